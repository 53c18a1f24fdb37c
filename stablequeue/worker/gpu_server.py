"""Worker type `gpu-server`: Prefect's process worker, with what our flows need filled in.

Importing this module registers the type (entry point group `prefect.collections`), so that
`prefect worker start --pool POOL` and the forms in Prefect's UI know it. Added to the process
worker: flows run in our project's folder by one Python start instead of two, each under a lock
that tells whether it lives, its `infrastructure_pid` says host and process, and a run cancelled
before it began is ended.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.exceptions import Abort, InfrastructureNotFound, ObjectNotFound
from prefect.states import Cancelled, Pending
from prefect.utilities.engine import propose_state
from prefect.workers.process import (
    ProcessJobConfiguration,
    ProcessWorker,
    ProcessWorkerResult,
)
from pydantic import BaseModel
from typing_extensions import override

from stablequeue.errors import PrefectError, PrefectUnreachable
from stablequeue.ids import short_id
from stablequeue.processes import LAST_WORDS_S, end_within
from stablequeue.settings import load
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker.configuration import (
    GpuServerJobConfiguration,
    GpuServerVariables,
    without_empty_tabs,
)
from stablequeue.worker.dispatch import Scheduling
from stablequeue.worker.presence import claim, is_here, kill, process_name

logger = logging.getLogger("stablequeue.worker")

T = TypeVar("T", bound=BaseModel)

Give = Callable[[], Awaitable[Mapping[str, Any]]]

_OUR_FLOWS = "flows/"
"""Where the flows are whose runs can go on after their process died."""

_REMEMBERED_S = 10.0

PATIENCE_S = 5.5
"""How long a cancelled flow may take for its clean-up before its process is killed."""

_LOOK_EVERY_S = 0.5

_PREFECT_AGAIN_S = (0.5, 1.0, 2.0, *[5.0] * 24)
"""Between tries to have a run wait again while Prefect's server is away (it is starting)."""


class GpuServerWorker(ProcessWorker):
    """Runs the jobs of one generation server, each in a process of its own."""

    type: ClassVar[str] = WORKER_TYPE
    job_configuration = GpuServerJobConfiguration
    job_configuration_variables = GpuServerVariables

    _display_name = "GPU server"
    _description = (
        "Runs StableQueue's jobs for one ComfyUI, Forge or AUTOMATIC1111. Made by StableQueue for"
        " every saved server."
    )
    _documentation_url = ""
    _logo_url = ProcessWorker.get_logo_url()

    def __init__(self, *args: Any, scheduling: Scheduling | None = None, **options: Any) -> None:
        super().__init__(*args, **options)
        self._scheduling = scheduling
        self._own: Scheduling | None = None
        self._given: dict[UUID, Give] = {}
        self.children: dict[UUID, int] = {}
        """Process ids of the runs that are running now."""

    @property
    def starting(self) -> set[UUID]:
        """Runs this worker has taken and whose process does not run yet."""
        return set(getattr(self, "_submitting_flow_run_ids", ()))

    @classmethod
    @override
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Return the template of new pools."""
        return without_empty_tabs(super().get_default_base_job_template())

    @override
    async def setup(self) -> None:
        """Join the host this worker was made for, or be one of its own."""
        await super().setup()
        self._read_seldom()
        try:
            if self._scheduling is None:
                self._scheduling = self._own = Scheduling(load())
                await self._own.start()
            await self._scheduling.join(self)
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            # Prefect's own task groups are open here; they would turn it into a mere cancellation.
            logger.error("the worker of %s cannot start: %s", self.work_pool.name, error)  # noqa: TRY400
            raise

    @override
    async def teardown(self, *exc_info: Any) -> None:
        """Leave the host; with `prefect worker start` the process ends soon after."""
        if self._scheduling is not None:
            self._scheduling.leave(self)
        try:
            if self._own is not None:
                await self._own.close()
            await super().teardown(*exc_info)
        finally:
            if self._own is not None and _is_prefects_command():
                error = sys.exception()  # being stopped is none
                failed = error is not None and not isinstance(error, asyncio.CancelledError)
                end_within(LAST_WORDS_S, int(failed))

    @override
    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Look at what Prefect offers, in case an event was missed; our own order decides.

        Prefect marks the queues as polled.
        """
        self._last_polled_time = datetime.now(UTC)
        if self._has_successfully_synced and self._scheduling is not None:
            offered = await self._get_scheduled_flow_runs()
            self._scheduling.offered(self, [entry.flow_run for entry in offered])
        return []

    async def take(self, flow_run: FlowRun, give: Give) -> None:
        """Claim a waiting run and start it; returns when that is under way.

        Args:
            flow_run: As it was read.
            give: Returns what goes to its process (`stablequeue.warm`).
        """
        self._given[flow_run.id] = give
        entry = WorkerFlowRunResponse(
            work_pool_id=self.work_pool.id,
            work_queue_id=flow_run.work_queue_id or self.work_pool.id,
            flow_run=flow_run,
        )
        await self._submit_scheduled_flow_runs([entry])

    @override
    async def _submit_run(self, flow_run: FlowRun) -> None:
        taking = self._given.get(flow_run.id)
        try:
            await super()._submit_run(flow_run)
        finally:
            if flow_run.id not in self.children:  # it could not be claimed, or has ended
                self._ended(flow_run.id, taking)

    @override
    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        """Claim a run, and say who does: if this process dies before the run's own begins."""
        log, claimed = self.get_flow_run_logger(flow_run), Pending(message=claim(os.getpid()))
        try:
            state = await propose_state(self.client, claimed, flow_run_id=flow_run.id)
        except Abort as error:
            log.info("run %s is not taken: %s", flow_run.id, error)
            return False
        except (ObjectNotFound, httpx.HTTPError) as error:
            log.warning("run %s is not taken: %s", flow_run.id, error)
            return False
        return state.is_pending()

    @override
    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        """Spare a call a run: which server ran it, its tags say."""

    @override
    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        """Spare a state a run: a warm process begins at once."""

    def _read_seldom(self) -> None:
        """Read the same deployment and flow once in 10 s."""
        for name in ("read_deployment", "read_flow"):
            setattr(self.client, name, _remembered(getattr(self.client, name)))

    @override
    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> ProcessWorkerResult:
        """Run a flow run to its end in a warm process, or as its pool's own command says."""
        job = short_id(str(flow_run.parameters.get("job_id") or flow_run.id))
        log = self.get_flow_run_logger(flow_run)
        log.info("[PREFECT→WORKER] %s job=%s run=%s", self.work_pool.name, job, flow_run.id)
        taking = self._given.get(flow_run.id)
        started = _Started(self.children, flow_run.id, task_status)
        watching = asyncio.create_task(self._watch_for_cancel(flow_run.id))
        try:
            if (
                isinstance(configuration, GpuServerJobConfiguration)
                and not configuration.own_command
            ):
                result = await self._run_warm(flow_run, configuration, started)
            else:
                result = await super().run(flow_run, configuration, task_status=started)
        finally:
            watching.cancel()
            if started.is_last():
                self._ended(flow_run.id, taking)
        logger.info(
            "[WORKER→PREFECT] %s job=%s exit=%s", self.work_pool.name, job, result.status_code
        )
        if result.status_code:
            await self._say_cancelled(flow_run.id)
            if _goes_on(configuration):
                await self._recover(flow_run.id)
                # By now another process may work on it, and a report of ours would hit that one.
                result = ProcessWorkerResult(status_code=0, identifier=result.identifier)
        return result

    async def _recover(self, run_id: UUID) -> None:
        """Let a job of ours whose process died wait again: its ticket finds what it had begun."""
        scheduling = self._scheduling
        if scheduling is None:
            return
        for wait in _PREFECT_AGAIN_S:
            try:
                await asyncio.to_thread(scheduling.recover, str(run_id))
            except PrefectUnreachable:
                await asyncio.sleep(wait)
            except PrefectError as error:
                logger.warning("run %s is left to be settled: %s", run_id, error)
                return
            else:
                return

    async def _run_warm(
        self, flow_run: FlowRun, configuration: GpuServerJobConfiguration, started: "_Started"
    ) -> ProcessWorkerResult:
        if self._scheduling is None:
            raise AssertionError
        only_of_this_run = {
            name: value
            for name, value in configuration.env.items()
            if value is not None and name.startswith("PREFECT__")
        }
        give = self._given.get(flow_run.id)
        order = {
            "env": only_of_this_run,
            "entrypoint": configuration.entrypoint,
            "folder": str(configuration.working_dir),
            "given": await give() if give is not None else {},
        }
        own = configuration.own_environment
        ours = bool(configuration.entrypoint) and not own
        execution = await self._scheduling.warmth.perform(
            flow_run,
            order,
            None if ours else own,
            started.started,
            goes_on=_goes_on(configuration),
        )
        if execution is None or execution.status_code is None:
            message = "the flow run's process could not be started"
            raise RuntimeError(message)
        return ProcessWorkerResult(
            status_code=execution.status_code, identifier=str(execution.handle.pid)
        )

    def _ended(self, run_id: UUID, taking: Give | None) -> None:
        """Say once that a taking is over; by now the same run may have been taken again."""
        if self._given.get(run_id) is not taking:
            return
        self._given.pop(run_id, None)
        if self._scheduling is not None:
            self._scheduling.ended(str(run_id))

    @override
    async def _propose_crashed_state(
        self, flow_run: FlowRun, message: str, client: PrefectClient | None = None
    ) -> None:
        """Report a crash, unless the run waits again.

        Prefect's runner reports it first, so by now somebody may have retried the run.
        """
        try:
            run = await self.client.read_flow_run(flow_run.id)
        except (ObjectNotFound, httpx.HTTPError) as error:
            logger.warning("run %s is left to be settled: %s", flow_run.id, error)
            return
        if run.state is None or not run.state.is_scheduled():
            await super()._propose_crashed_state(flow_run, message, client=client)

    async def _say_cancelled(self, run_id: UUID) -> None:
        """End a run that was being cancelled when its process was killed by somebody else.

        Prefect's runner takes the death for the cancelling's work, and says nothing.
        """
        try:
            run = await self.client.read_flow_run(run_id)
            if run.state is not None and run.state.is_cancelling():
                state = Cancelled(message="Its process was killed.")
                await self.client.set_flow_run_state(run_id, state)
        except (ObjectNotFound, httpx.HTTPError) as error:
            logger.warning("run %s is left to be settled: %s", run_id, error)

    @override
    async def kill_infrastructure(
        self,
        infrastructure_pid: str,
        configuration: ProcessJobConfiguration,
        grace_seconds: int = 30,
    ) -> None:
        """End the process of a run that was cancelled before its flow began.

        Raises:
            InfrastructureNotFound: It is gone, or not one of this worker.
        """
        del configuration, grace_seconds
        pid = int(infrastructure_pid.rpartition(":")[2]) if is_here(infrastructure_pid) else 0
        if pid not in self.children.values():
            message = f"{infrastructure_pid} is no process of this worker"
            raise InfrastructureNotFound(message)
        kill(pid)

    async def _watch_for_cancel(self, run_id: UUID) -> None:
        """Have this worker told, too, when a running run is cancelled.

        Prefect's own supervision asks the process to end and looks again every 3 s, for 30 s. One
        that does not (a thread of it is busy) is ended here, so that the state says Cancelled
        within 10 s.
        """
        while run_id not in self.children or run_id in self.starting:  # noqa: ASYNC110 - Prefect tells nobody
            await asyncio.sleep(_LOOK_EVERY_S)
        observer: Any = getattr(self, "_cancelling_observer", None)
        if observer is None:
            return
        observer.add_in_flight_flow_run_id(run_id)
        try:
            await asyncio.Event().wait()
        finally:
            observer.remove_in_flight_flow_run_id(run_id)

    @override
    async def _cancel_run(self, flow_run_id: UUID) -> None:
        if flow_run_id not in self.children or flow_run_id in self.starting:
            await super()._cancel_run(flow_run_id)
            return
        await asyncio.sleep(PATIENCE_S)
        if pid := self.children.get(flow_run_id):
            logger.warning("run %s does not end when cancelled; its process is killed", flow_run_id)
            kill(pid)
            if self._scheduling is not None:  # it may not have sent its interrupt
                self._scheduling.abandon(str(flow_run_id))


def _is_prefects_command() -> bool:
    """Whether this process is `prefect worker start`, which does nothing after its worker."""
    program = Path(sys.argv[0])
    return program.stem == "prefect" or program.parts[-2:] == ("prefect", "__main__.py")


def _goes_on(configuration: ProcessJobConfiguration) -> bool:
    """Whether a run waits again when its process dies."""
    return str(getattr(configuration, "entrypoint", "")).startswith(_OUR_FLOWS)


class _Started:
    """Passes on that a process runs, under the name we give it."""

    def __init__(
        self,
        children: dict[UUID, int],
        run_id: UUID,
        outer: anyio.abc.TaskStatus[Any] | None,
    ) -> None:
        self._children = children
        self._run_id = run_id
        self._outer = outer or anyio.TASK_STATUS_IGNORED
        self._pid = 0

    def started(self, value: int | None = None) -> None:
        if value is None:
            self._outer.started()
            return
        self._pid = self._children[self._run_id] = value
        self._outer.started(process_name(value))

    def is_last(self) -> bool:
        """Forget the process; False if the same run has gone on in another one already.

        It was handed back and taken again before this one was reaped.
        """
        if self._children.get(self._run_id, self._pid) != self._pid:
            return False
        self._children.pop(self._run_id, None)
        return True


def _remembered(read: Callable[..., Awaitable[T]]) -> Callable[..., Awaitable[T]]:
    """Return `read` with its answers kept for a while; each caller gets a copy to change."""
    answers: dict[Any, tuple[float, T]] = {}

    async def remembered(key: Any, *args: Any, **options: Any) -> T:
        known = answers.get(key)
        if known is None or time.monotonic() - known[0] > _REMEMBERED_S:
            known = answers[key] = (time.monotonic(), await read(key, *args, **options))
        return known[1].model_copy(deep=True)

    return remembered
