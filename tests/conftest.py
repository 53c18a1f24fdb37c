"""Fixtures and habits every folder of tests may use."""

import hypothesis

from tests.support.prefect import prefect_api, prefect_server

__all__ = ["prefect_api", "prefect_server"]

# A shared machine is slow at times; a test that hangs is ended by its timeout.
hypothesis.settings.register_profile("shared", deadline=None)
hypothesis.settings.load_profile("shared")
