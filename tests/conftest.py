"""Fixtures every folder of tests may use."""

from tests.support.prefect import prefect_api, prefect_server

__all__ = ["prefect_api", "prefect_server"]
