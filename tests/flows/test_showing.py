"""What a run says of itself while it works, without a Prefect server."""

from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import FlowRunContext

from stablequeue.engines.base import Phase
from stablequeue.flowshow import Run
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.monitor import Snapshot
from tasks.run import parameter_now


class Prefect:
    """Stands in for the client; notes what it was told."""

    def __init__(self) -> None:
        self.states: list[tuple[str, str]] = []

    async def set_flow_run_state(self, _run: object, state: Any) -> SimpleNamespace:
        self.states.append((state.name, state.message))
        return SimpleNamespace(status=SetStateStatus.ACCEPT)

    async def create_artifact(self, _artifact: object) -> SimpleNamespace:
        return SimpleNamespace(id=uuid4())

    async def update_artifact(self, _id: object, _change: object) -> None:
        """Nothing is kept of it."""


async def test_the_state_says_what_the_run_waits_for_now_and_no_step_that_soon_is_old() -> None:
    prefect = Prefect()
    job = SimpleNamespace(id=str(uuid4()), server=SimpleNamespace(alias="gpu"))
    run = Run(flow_run_id=uuid4(), job=cast("Job", job), client=cast("PrefectClient", prefect))

    async def told(phase: Phase, message: str) -> None:
        await run.report(Snapshot(phase, 0.0, 1, 1, message))

    await told(Phase.WAITING, "Waiting for the card host/0")
    await told(Phase.WAITING, "Waiting for somebody else on the server")
    await told(Phase.WAITING, "Waiting for somebody else on the server")
    await told(Phase.SAMPLING, "Step 0 of 40")  # of the job before, as Forge tells at first
    await told(Phase.SAMPLING, "Step 1 of 2")
    assert prefect.states == [
        ("Waiting", "Waiting for the card host/0"),
        ("Waiting", "Waiting for somebody else on the server"),
        ("Generating", "on gpu"),
    ]


async def test_a_job_behind_another_in_the_servers_queue_does_not_say_generating() -> None:
    prefect = Prefect()
    job = SimpleNamespace(id=str(uuid4()), server=SimpleNamespace(alias="gpu"))
    run = Run(flow_run_id=uuid4(), job=cast("Job", job), client=cast("PrefectClient", prefect))
    await run.phase("Generating")
    await run.report(Snapshot(Phase.QUEUED, 0.0, 1, 1, "In the server's queue, 2 ahead"))
    await run.report(Snapshot(Phase.QUEUED, 0.0, 1, 1, "In the server's queue, 1 ahead"))
    await run.report(Snapshot(Phase.LOADING, 0.0, 1, 1, "Loading the model"))
    assert prefect.states == [
        ("Generating", "on gpu"),
        ("Waiting", "in the queue of gpu"),
        ("Generating", "on gpu"),
    ]


def test_what_was_changed_until_the_run_began_counts() -> None:
    run = FlowRun(flow_id=uuid4(), name="r", parameters={"request": {"prompt": "after"}})
    before = {"prompt": "before"}
    with FlowRunContext.model_construct(flow_run=run):
        assert parameter_now("request", before) == {"prompt": "after"}
        assert parameter_now("other", before) is before
    assert parameter_now("request", before) is before
