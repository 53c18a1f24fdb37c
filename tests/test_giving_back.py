"""A run that gives its place back leaves nothing in its log that looks like a failure."""

import logging

import pytest

from stablequeue.giving_back import given_back


def test_only_the_end_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert "a model" in str(given_back("waits for a model"))
    log = logging.getLogger("prefect.flow_runs")
    with caplog.at_level(logging.INFO, "prefect.flow_runs"):
        for state in ("Running()", "Failed('no such model')"):
            log.error("Finished in state %s", state, extra={"send_to_api": False})
    assert caplog.messages == ["Finished in state Failed('no such model')"]
