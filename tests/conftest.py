"""Fixtures and habits every folder of tests may use."""

import hypothesis
import pytest

from tests.support.prefect import prefect_api, prefect_server

__all__ = ["prefect_api", "prefect_server"]

# A shared machine is slow at times; a test that hangs is ended by its timeout.
# Explaining failures traces every line of every example, also where none fails.
quick = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("shared", deadline=None, phases=quick)
hypothesis.settings.load_profile("shared")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Fit tests to what they share.

    One that happens to start Prefect's server gets the time that takes, and all that use it are
    marked: run side by side they would register the same block types at the same moment, and keep
    a small machine from answering in time.
    """
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if "prefect_server" in fixtures and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(300))
        if "prefect_server" in fixtures:
            item.add_marker(pytest.mark.prefect)
