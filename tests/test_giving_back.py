"""A run that gives its place back waits as if nobody had ever worked on it."""

import logging
import os
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect import states
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.responses import SetStateStatus

from stablequeue import giving_back
from stablequeue.giving_back import back_to_scheduled, given_back
from stablequeue.warm import Warm, given


class Prefect:
    """A run whose worker writes the process down late; `at_last` after so many readings."""

    def __init__(self, *, at_last: int) -> None:
        self.process: str | None = "gpu-box:1"  # of an earlier try
        self.at_last, self.reads, self.states = at_last, 0, list[str]()

    async def read_flow_run(self, _: UUID) -> Any:
        self.reads += 1
        if self.reads == self.at_last:
            self.process = f"gpu-box:{os.getpid()}"
        return SimpleNamespace(infrastructure_pid=self.process)

    async def request(self, method: str, *_: Any, json: dict[str, Any], **__: Any) -> None:
        assert method == "PATCH"
        self.process = json["infrastructure_pid"]

    async def set_flow_run_state(self, _: UUID, state: Any) -> Any:
        self.states.append(state.type.value)
        return SimpleNamespace(status=SetStateStatus.ACCEPT)


@pytest.mark.parametrize(("warm", "reads"), [(True, 3), (False, 0)])
async def test_the_process_is_forgotten_after_the_worker_has_written_it_down(
    warm: bool, reads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(giving_back, "_LOOK_EVERY_S", 0.0)
    prefect = Prefect(at_last=3)
    mark = given.set(Warm() if warm else None)
    try:
        client = cast("PrefectClient", prefect)
        assert await back_to_scheduled(client, uuid4(), states.Scheduled())
    finally:
        given.reset(mark)
    assert (prefect.process, prefect.states, prefect.reads) == (None, ["SCHEDULED"], reads)


async def test_a_worker_that_died_before_it_wrote_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(giving_back, "_WRITTEN_WITHIN_S", 0.02)
    monkeypatch.setattr(giving_back, "_LOOK_EVERY_S", 0.0)
    prefect = Prefect(at_last=-1)
    mark = given.set(Warm())
    try:
        client = cast("PrefectClient", prefect)
        assert await back_to_scheduled(client, uuid4(), states.Scheduled())
    finally:
        given.reset(mark)
    assert prefect.process is None


def test_only_the_end_that_is_none_is_left_out(caplog: pytest.LogCaptureFixture) -> None:
    assert "a model" in str(given_back("waits for a model"))
    log = logging.getLogger("prefect.flow_runs")
    with caplog.at_level(logging.INFO, "prefect.flow_runs"):
        for state in ("Running()", "Failed('no such model')"):
            log.error("Finished in state %s", state, extra={"send_to_api": False})
    assert caplog.messages == ["Finished in state Failed('no such model')"]
