"""Fixtures and habits every folder of tests may use."""

import sys
import threading
from collections.abc import Generator

import hypothesis
import pytest

from stablequeue.processes import collect_seldom, keep_what_is_there
from tests.support.measuring import measure_where_asked
from tests.support.prefect import prefect_api, prefect_server

__all__ = ["prefect_api", "prefect_server"]

# A shared machine is slow at times; a test that hangs is ended by its timeout.
# Explaining failures traces every line of every example, also where none fails.
quick = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
hypothesis.settings.register_profile("shared", deadline=None, phases=quick)
hypothesis.settings.load_profile("shared")


def pytest_configure(config: pytest.Config) -> None:
    """Measure coverage of children where it is asked for, and look for garbage seldom.

    Python's own pace of looking costs a fifth of the time of tests with a million objects around.
    """
    collect_seldom()
    starts_those = bool(config.getoption("numprocesses", None)) and not hasattr(
        config, "workerinput"
    )
    if not starts_those:
        measure_where_asked()


def pytest_collection_finish() -> None:
    """Never look for garbage among what was imported and collected."""
    keep_what_is_there()


_FIRST_SERVER = {"blocks", "deployments", "fetching", "prefect_api", "server"}
"""Folders of tests that share one Prefect server where a run is split; the others share another."""


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest first, mark what uses Prefect's server, and give it the time a start takes.

    A run split over processes (`--dist loadgroup`) starts two servers: a first start takes 10 s
    of CPU, and each some percent of a core for as long as it runs.
    """
    items.sort(key=lambda item: item.get_closest_marker("begins_first") is None)
    for item in items:
        if "prefect_server" in getattr(item, "fixturenames", []):
            item.add_marker(pytest.mark.prefect)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))
        if item.get_closest_marker("prefect") is not None:
            first = item.nodeid.split("/")[1] in _FIRST_SERVER
            item.add_marker(pytest.mark.xdist_group("server-1" if first else "server-2"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None]:
    """Take no coverage of tests that go the same ways hundreds of times.

    Those are the property tests and what is marked so. Tracing costs half of their time again,
    and what they reach the chosen examples reach as well: the figure is a lower bound.
    """
    tracer, of_threads = sys.gettrace(), threading.gettrace()
    property_test = getattr(getattr(item, "obj", None), "is_hypothesis_test", False)
    if tracer is None or not (property_test or item.get_closest_marker("repeats")):
        return (yield)
    sys.settrace(None)
    threading.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)
        threading.settrace(of_threads)
