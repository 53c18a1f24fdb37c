"""A job as a Prefect flow run: phases, progress, pictures and endings as Prefect shows them.

`open_run` is what every flow starts with. Inside it the steps of `stablequeue.pipeline` do the
work; an expected failure ends the run with one line and is written to the catalogue, a cancelled
run sends its interrupts, a run that cannot keep its pictures is parked.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate, WorkPoolUpdate
from prefect.client.schemas.objects import State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import Abort, ObjectNotFound
from prefect.states import Cancelled, Completed, Failed, Running, Scheduled

from stablequeue.catalogue import (
    Asset,
    Catalogue,
    JobState,
    Outcome,
    StoredRequest,
    open_catalogue,
)
from stablequeue.engines.base import Phase
from stablequeue.errors import BadRequest, ModelMissing, QueueError, Refused, StoreUnavailable
from stablequeue.ids import run_name, short_id
from stablequeue.pipeline.accept import begin
from stablequeue.pipeline.generate import Failure
from stablequeue.pipeline.job import Job, check_job_id, open_job
from stablequeue.pipeline.monitor import Snapshot
from stablequeue.pipeline.storing import Stored
from stablequeue.request import GenerationRequest
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings
from stablequeue.storage import Store

logger = logging.getLogger("stablequeue.run")

MOST_IMAGE_ARTIFACTS = 4
"""Pictures of one run shown as image artifacts; the table artifact names all."""

FindServer = Callable[[GenerationRequest, str, Catalogue], Awaitable[ServerConfig]]
OpenStore = Callable[[ServerConfig, Settings], Awaitable[Store]]


class Run:
    """One Prefect flow run working on one job; no dataclass, because Prefect walks into those.

    Attributes:
        flow_run_id: Prefect's id of the run.
        job: The open job.
        client: Kept open for the whole run; opening one costs more than a call.
        failures: Pictures that could not be made although others were.
        missing: The model the server lacks, if `resolve` found one.
        stored: What was stored, once the task `store` has run.
    """

    def __init__(self, *, flow_run_id: UUID, job: Job, client: PrefectClient) -> None:
        self.flow_run_id = flow_run_id
        self.job = job
        self.client = client
        self.failures: list[Failure] = []
        self.missing: ModelMissing | None = None
        self.stored: Stored | None = None
        self._progress: UUID | None = None
        self._phase = ""

    async def phase(self, name: str, message: str = "") -> None:
        """Show a phase as the run's state; the state type stays RUNNING."""
        if name == self._phase:
            return
        self._phase = name
        await self.client.set_flow_run_state(
            self.flow_run_id, Running(name=name, message=message), force=True
        )

    async def report(self, snapshot: Snapshot) -> None:
        """Show progress: one artifact that is changed, and `Waiting` as a phase of its own."""
        waiting = snapshot.phase is Phase.WAITING
        await self.phase("Waiting" if waiting else "Generating", snapshot.message)
        percent = round(snapshot.fraction * 100, 1)
        about = f"Picture {snapshot.picture} of {snapshot.count}: {snapshot.message}"
        if self._progress is None:
            artifact = await self.client.create_artifact(
                ArtifactCreate(
                    type="progress",
                    key=f"progress-{short_id(self.job.id)}",
                    description=about,
                    data=percent,
                    flow_run_id=self.flow_run_id,
                )
            )
            self._progress = artifact.id
        else:
            await self.client.update_artifact(
                self._progress, ArtifactUpdate(data=percent, description=about)
            )

    async def show_pictures(self, assets: tuple[Asset, ...]) -> None:
        """Show stored pictures: thumbnails linked over http, and a table of all files."""
        settings = self.job.settings
        base = settings.files_url or f"http://127.0.0.1:{settings.files_port}"
        images = [asset for asset in assets if asset.mime.startswith("image/")]
        for asset in images[:MOST_IMAGE_ARTIFACTS]:
            await self.client.create_artifact(
                ArtifactCreate(
                    type="image",
                    key=f"picture-{short_id(self.job.id)}-{asset.index}-{asset.ordinal}",
                    description=f"Seed {asset.seed}, {asset.width} x {asset.height}",
                    data=f"{base.rstrip('/')}/thumbnails/{asset.sha256}.webp",
                    flow_run_id=self.flow_run_id,
                )
            )
        rows = "\n".join(
            f"| {asset.index + 1} | `{asset.seed}` | {asset.kind.value} | `{asset.key}` |"
            for asset in assets
        )
        await self.client.create_artifact(
            ArtifactCreate(
                type="markdown",
                key=f"stored-{short_id(self.job.id)}",
                description="What was stored",
                data=f"| picture | seed | kind | file |\n| --- | --- | --- | --- |\n{rows}",
                flow_run_id=self.flow_run_id,
            )
        )


@dataclass
class Ending:
    """How a run ended; `state` is what its flow returns."""

    state: State[Any] = field(default_factory=lambda: Failed(message="the run did not begin"))


@asynccontextmanager
async def open_run(
    request: Mapping[str, Any] | GenerationRequest,
    job_id: str,
    *,
    flow_run_id: UUID,
    deployed_for: str,
    settings: Settings,
    find_server: FindServer,
    open_store: OpenStore,
    ending: Ending,
) -> AsyncGenerator[Run]:
    """Begin a job's run; whatever happens inside decides `ending.state`.

    Args:
        request: As the run's parameters have it.
        job_id: Ours, or empty for a run created elsewhere: then the flow run's id.
        flow_run_id: This run.
        deployed_for: Alias the deployment is fixed to, or `any`.
        settings: This installation's.
        find_server: Loads, or for `any` chooses, the server.
        open_store: Opens the store of that server.
        ending: Receives the state to return.

    Raises:
        Abort: The run went back to Scheduled (parked, or handed back by a stopping worker).
        CancelledError: It was cancelled; the interrupts are sent.
    """
    job_id = job_id or str(flow_run_id)
    catalogue = await asyncio.to_thread(open_catalogue, settings.catalogue)
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(get_client())
        server = ""
        started = datetime.now(UTC)

        def finish(state: JobState, message: str, code: str = "") -> None:
            outcome = Outcome(
                state=state,
                code=code,
                message=message,
                started_at=started,
                finished_at=datetime.now(UTC),
            )
            catalogue.finish(job_id, outcome)

        try:
            check_job_id(job_id)
            stored = await asyncio.to_thread(
                lambda: begin(
                    request,
                    settings=settings,
                    catalogue=catalogue,
                    job_id=job_id,
                    server=deployed_for,
                    flow_run_id=str(flow_run_id),
                )
            )
            wanted = _server_of(stored.request, deployed_for)
            await _name_run(client, flow_run_id, stored, wanted)
            if stored.request.expired(started):
                ending.state = State(
                    type=StateType.CANCELLED,
                    name="Expired",
                    message=f"Not started by {stored.request.expires_at}",
                )
                await asyncio.to_thread(finish, JobState.EXPIRED, "not started in time")
                raise _Ended  # noqa: TRY301 - the one way out that is no failure
            config = await find_server(stored.request, wanted, catalogue)
            server = config.alias
            if server != stored.server:
                stored = await asyncio.to_thread(
                    lambda: catalogue.start(
                        stored.request,
                        job_id=job_id,
                        seed=stored.seed,
                        server=server,
                        flow_run_id=str(flow_run_id),
                        deployment=stored.deployment,
                    )
                )
            job = await stack.enter_async_context(
                open_job(
                    stored,
                    config,
                    settings=settings,
                    catalogue=catalogue,
                    store=await open_store(config, settings),
                )
            )
            job.wants_interrupt = lambda: _is_cancelling(client, flow_run_id)
            run = Run(flow_run_id=flow_run_id, job=job, client=client)
            yield run
            outcome, ending.state = _result(run)
            await asyncio.to_thread(
                finish, outcome, ending.state.message or "", _code_of(run.failures)
            )
        except _Ended:
            return
        except StoreUnavailable as error:
            reason = str(error)
            await _park(client, catalogue, server or deployed_for, reason)
            await _back_to_scheduled(client, flow_run_id, "Parked", reason)
            message = f"parked: {reason}"
            raise Abort(message) from error
        except QueueError as error:
            ending.state = Failed(message=f"{error.code}: {error}")
            await asyncio.to_thread(finish, JobState.FAILED, str(error), error.code)
        except asyncio.CancelledError as error:
            if await _is_cancelling(client, flow_run_id):
                await asyncio.to_thread(finish, JobState.CANCELLED, "cancelled")
                # Prefect's runner says Cancelled only after it has loaded the flow once more to
                # look for hooks; the interrupts are sent, so it is true already.
                await client.set_flow_run_state(
                    flow_run_id, Cancelled(message="Cancelled by a person"), force=True
                )
                raise
            await _back_to_scheduled(
                client, flow_run_id, "Handed back", "The worker stopped; it goes on from here."
            )
            message = "handed back by a stopping worker"
            raise Abort(message) from error
        finally:
            await asyncio.to_thread(catalogue.close)


class _Ended(Exception):
    """The ending is decided; leave the block."""


async def _name_run(
    client: PrefectClient, flow_run_id: UUID, stored: StoredRequest, server: str
) -> None:
    """Give the run its readable name, the same for every way in."""
    name = run_name(stored.request.prompt, stored.request.mode.value, server, stored.job_id)
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    if run is None or run.name != name:
        await client.set_flow_run_name(flow_run_id, name)


def _server_of(request: GenerationRequest, deployed_for: str) -> str:
    """Return where the job must run: the deployment decides, the request may only agree."""
    if not deployed_for or deployed_for == ANY:
        return request.server
    if request.server not in {ANY, deployed_for}:
        raise BadRequest("server", f"this deployment runs on {deployed_for!r} only", [deployed_for])
    return deployed_for


def _result(run: Run) -> tuple[JobState, State[Any]]:
    count = run.job.request.count
    assets = run.stored.assets if run.stored else ()
    made = len({asset.index for asset in assets})
    if run.failures:
        first = run.failures[0]
        message = (
            f"{first.error.code}: {made} of {count} pictures stored;"
            f" picture {first.index + 1}: {first.error}"
        )
        return JobState.FAILED, Failed(message=message)
    if run.stored is None:
        reason = f"job {run.job.id}: the flow left out the step `store`"
        raise Refused(reason)
    message = f"{len(assets)} stored"
    if run.stored.censored:
        return JobState.CENSORED, Completed(name="Censored", message=message)
    if run.stored.warnings:
        message = f"{message}; {'; '.join(run.stored.warnings)}"[:2000]
        return JobState.DEGRADED, Completed(name="Degraded", message=message)
    return JobState.COMPLETED, Completed(message=message)


def _code_of(failures: list[Failure]) -> str:
    return failures[0].error.code if failures else ""


async def _is_cancelling(client: PrefectClient, flow_run_id: UUID) -> bool:
    """Whether a person cancelled the run (and not merely its process is being stopped)."""
    flow_run = await client.read_flow_run(flow_run_id)
    state = flow_run.state
    return state is not None and state.type in {StateType.CANCELLING, StateType.CANCELLED}


async def _park(client: PrefectClient, catalogue: Catalogue, server: str, reason: str) -> None:
    """Stop the server's pool, once and with one message, so that its jobs wait."""
    if await asyncio.to_thread(catalogue.park, server, reason):
        logger.error("%s is parked: %s Then: stablequeue resume %s", server, reason, server)
    with suppress(ObjectNotFound):
        await client.update_work_pool(server, WorkPoolUpdate(is_paused=True))


async def _back_to_scheduled(
    client: PrefectClient, flow_run_id: UUID, name: str, message: str
) -> None:
    state = Scheduled(scheduled_time=datetime.now(UTC), name=name, message=message)
    await client.set_flow_run_state(flow_run_id, state, force=True)
