"""What Prefect's executor is told of a run in a warm process."""

from typing import cast
from uuid import uuid4

import anyio
import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.runner._process_manager import ProcessHandle

from stablequeue.worker.runners import Runners
from stablequeue.worker.warm_process import Runner
from stablequeue.worker.warmth import WarmStarter


class Lender:
    """Stands in for `Runners`, with one process."""

    def __init__(self) -> None:
        self.runner = Runner("one", pid=1)

    async def take(self, environment: object) -> Runner:
        del environment
        return self.runner

    def give_back(self, runner: Runner) -> None:
        assert runner is self.runner


@pytest.mark.parametrize("goes_on", [True, False])
async def test_the_death_of_a_run_that_goes_on_is_none_to_prefect(*, goes_on: bool) -> None:
    starter, told = await _killed(Lender(), goes_on=goes_on)
    assert starter.exit_code == -9
    assert told == (0 if goes_on else -9)


async def test_a_run_that_its_host_hands_back_has_not_crashed() -> None:
    lender = Lender()
    lender.runner.let_go = True
    starter, told = await _killed(lender)
    assert (starter.exit_code, told) == (0, 0)


async def _killed(lender: Lender, *, goes_on: bool = False) -> tuple[WarmStarter, int | None]:
    """Return what became of a run whose process was killed, and what Prefect learns."""
    starter = WarmStarter(
        cast("Runners", lender),
        {"env": {}},
        None,
        lambda _run: (1, "token"),
        lambda _run: False,
        goes_on=goes_on,
    )
    handles: list[ProcessHandle] = []
    async with anyio.create_task_group() as group:
        handles.append(await group.start(starter.start, FlowRun(flow_id=uuid4(), name="r")))
        lender.runner.gone(-9)
    return starter, handles[0].returncode
