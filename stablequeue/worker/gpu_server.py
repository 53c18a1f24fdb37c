"""Worker type `gpu-server`: Prefect's process worker, with what our flows need filled in.

Importing this module registers the type (entry point group `prefect.collections`), so that
`prefect worker start --pool POOL` and the forms in Prefect's UI know it. Added to the process
worker: flows run in our project's folder by one Python start instead of two, each under a lock
that tells whether it lives, its `infrastructure_pid` says host and process, and a run cancelled
before it began is ended.
"""

import asyncio
import logging
import sys
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import anyio
import anyio.abc
import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import Flow, FlowRun, WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import InfrastructureNotFound, ObjectNotFound
from prefect.states import Cancelled
from prefect.utilities.processutils import command_to_string
from prefect.workers.process import (
    ProcessJobConfiguration,
    ProcessVariables,
    ProcessWorker,
    ProcessWorkerResult,
)
from pydantic import Field
from typing_extensions import override

from stablequeue.forms import drop_none
from stablequeue.ids import short_id
from stablequeue.project import project_dir
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker.presence import is_here, kill, process_name

logger = logging.getLogger("stablequeue.worker")

PATIENCE_S = 5.5
"""How long a cancelled flow may take for its clean-up before its process is killed."""

_LOOK_EVERY_S = 0.5


class GpuServerJobConfiguration(ProcessJobConfiguration):
    """How a flow run is started, once everything is known."""

    @override
    def prepare_for_flow_run(
        self,
        flow_run: FlowRun,
        deployment: DeploymentResponse | None = None,
        flow: Flow | None = None,
        work_pool: WorkPool | None = None,
        worker_name: str | None = None,
        worker_id: UUID | None = None,
    ) -> None:
        """Fill in command and folder of this host, unless the pool or deployment names others."""
        if self.command is None:  # named, it is started as it is; else Prefect starts Python twice
            self.command = command_to_string([sys.executable, "-m", "stablequeue.worker.child"])
        if self.working_dir is None:
            self.working_dir = project_dir()
        super().prepare_for_flow_run(
            flow_run, deployment, flow, work_pool, worker_name, worker_id=worker_id
        )


class GpuServerVariables(ProcessVariables):
    """What a pool or deployment may set; Prefect's UI shows it as a form."""

    name: str | None = Field(
        default=None, title="Name", description="Name of the process. Empty: the run's name."
    )
    env: dict[str, str | None] = Field(
        default_factory=dict[str, str | None],
        title="Environment variables",
        description="Added to the worker's own. Nothing secret: everyone who sees the pool sees"
        " them.",
    )
    labels: dict[str, str] = Field(
        default_factory=dict[str, str], title="Labels", description="For people only."
    )
    command: str | None = Field(
        default=None,
        title="Command",
        description="Leave empty: StableQueue's own way to run a flow.",
    )
    stream_output: bool = Field(
        default=True, title="Show output", description="Copy each run's output to the worker's."
    )
    working_dir: Path | None = Field(
        default=None,
        title="Folder",
        description="Leave empty: the folder StableQueue's flows are in.",
    )


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

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.children: dict[UUID, int] = {}
        """Process ids of the runs that are running now."""

    @property
    def starting(self) -> set[UUID]:
        """Runs this worker has taken and whose process does not run yet."""
        return set(getattr(self, "_submitting_flow_run_ids", ()))

    @classmethod
    @override
    def get_default_base_job_template(cls) -> dict[str, Any]:
        """Return the template of new pools, as a form without a tab for every empty field."""
        template = super().get_default_base_job_template()
        for field in template["variables"]["properties"].values():
            drop_none(field)
        return template

    @override
    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: anyio.abc.TaskStatus[Any] | None = None,
    ) -> ProcessWorkerResult:
        """Run a flow run to its end in a process of its own."""
        job = short_id(str(flow_run.parameters.get("job_id") or flow_run.id))
        log = self.get_flow_run_logger(flow_run)
        log.info("[PREFECT→WORKER] %s job=%s run=%s", self.work_pool.name, job, flow_run.id)
        started = _Started(self.children, flow_run.id, task_status)
        watching = asyncio.create_task(self._watch_for_cancel(flow_run.id))
        try:
            result = await super().run(flow_run, configuration, task_status=started)
        finally:
            watching.cancel()
            self.children.pop(flow_run.id, None)
        logger.info(
            "[WORKER→PREFECT] %s job=%s exit=%s", self.work_pool.name, job, result.status_code
        )
        if result.status_code:
            await self._say_cancelled(flow_run.id)
        return result

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

    def started(self, value: int | None = None) -> None:
        if value is None:
            self._outer.started()
            return
        self._children[self._run_id] = value
        self._outer.started(process_name(value))
