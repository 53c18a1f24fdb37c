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


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what uses Prefect's server, give it the time a start takes, and keep a file together.

    In a run split over processes (`--dist loadgroup`) each that meets such a file starts a server.
    """
    for item in items:
        fixtures: list[str] = getattr(item, "fixturenames", [])
        if "prefect_server" in fixtures:
            item.add_marker(pytest.mark.prefect)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(300))
        if item.get_closest_marker("prefect") is not None:
            # an installation is made once for all that use it
            group = "fetching" if "fetch_house" in fixtures else item.path.stem
            item.add_marker(pytest.mark.xdist_group(group))
