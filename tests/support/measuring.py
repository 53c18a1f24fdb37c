"""Which processes coverage is measured in: those that run tests, and those that a test asks it of.

Tracing makes a process half as slow again, and most that tests start run code that other tests
reach in their own process.
"""

import os
from collections.abc import Mapping

_MEASURING: dict[str, str] = {}


def measure_where_asked() -> None:
    """Take out of this process's environment what makes its children measure coverage."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        _MEASURING[name] = os.environ.pop(name)


def measured(environment: Mapping[str, str]) -> dict[str, str]:
    """Return `environment` for a process whose coverage is measured, if this one's is."""
    return {**environment, **_MEASURING}
