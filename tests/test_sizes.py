"""Numbers of bytes as people read them."""

import pytest

from stablequeue.sizes import size


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (2048, "2.0 kB"),
        (999_499, "999 kB"),
        (999_600, "1.0 MB"),
        (228_455_000, "228 MB"),
        (6_938_040_000, "6.9 GB"),
        (12_300_000_000, "12.3 GB"),
        (2.5e15, "2500.0 TB"),
    ],
)
def test_a_size_is_told_in_decimal_units(count: float, shown: str) -> None:
    assert size(count) == shown
