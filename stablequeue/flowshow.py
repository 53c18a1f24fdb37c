"""What Prefect's pages show of a running job: phases, progress, pictures.

All of it is decoration: a Prefect that does not answer never fails a job. But its answers also
tell when the run was cancelled or deleted there, and then the job is stopped.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable
from typing import TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import ObjectNotFound
from prefect.states import Running

from stablequeue.catalogue import Asset
from stablequeue.engines.base import Phase
from stablequeue.errors import ModelMissing
from stablequeue.ids import short_id
from stablequeue.pipeline.generate import Failure
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.monitor import Snapshot
from stablequeue.pipeline.storing import Stored
from stablequeue.warm import given

logger = logging.getLogger("stablequeue.run")

MOST_IMAGE_ARTIFACTS = 4
"""Pictures of one run shown as image artifacts; the table artifact names all."""

SHORTEST_PHASE_S = 0.4
"""A phase is shown once it lasts so long (in a warm process; else at once)."""

SHORTEST_JOB_S = 1.5
"""A job gets a progress artifact once it runs so long (in a warm process; else at once)."""

LOOK_EVERY_S = 5.0
"""Between two questions whether the run was cancelled or deleted."""

_OVER = {StateType.CANCELLING, StateType.CANCELLED}

T = TypeVar("T")


class Run:
    """One Prefect flow run working on one job; no dataclass, because Prefect walks into those.

    Made in the flow's own asyncio task, which it cancels when Prefect tells that the run was
    cancelled or deleted.

    Attributes:
        flow_run_id: Prefect's id of the run.
        job: The open job.
        client: Kept open for the whole run; opening one costs more than a call.
        failures: Pictures that could not be made although others were.
        missing: The models the server lacks, if `resolve` found that.
        wait: What the job has to wait for, if `download` found that.
        stored: What was stored, once the task `store` has run.
        stopped: The flow's task was cancelled by this object.
    """

    def __init__(self, *, flow_run_id: UUID, job: Job, client: PrefectClient) -> None:
        self.flow_run_id = flow_run_id
        self.job = job
        self.client = client
        self.failures: list[Failure] = []
        self.missing: ModelMissing | None = None
        self.wait: Exception | None = None
        self.stored: Stored | None = None
        self.stopped = False
        self._flow = asyncio.current_task()
        self._progress: UUID | None = None
        self._phase = ("", "")
        self._began = self._looked = time.monotonic()
        self._showing: asyncio.Task[None] | None = None
        self._begun_showing = False

    async def phase(self, name: str, message: str = "") -> None:
        """Show a phase as the run's state; the state type stays RUNNING.

        Not forced: a person's cancel that came a moment before stands.
        """
        if (name, message) == self._phase:
            return
        self._phase = (name, message)
        await self.quiet()
        if given.get() is None:
            await self._show_phase(name, message)
        else:
            self._showing = asyncio.create_task(self._show_phase_soon(name, message))

    async def quiet(self) -> None:
        """Show nothing that was about to be shown."""
        showing, self._showing = self._showing, None
        if showing is not None:
            if not self._begun_showing:
                showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)

    async def _show_phase_soon(self, name: str, message: str) -> None:
        """A phase shorter than a blink costs Prefect 40 ms and shows nobody anything."""
        self._begun_showing = False
        await asyncio.sleep(SHORTEST_PHASE_S)
        self._begun_showing = True
        await self._show_phase(name, message)

    async def _show_phase(self, name: str, message: str) -> None:
        state = Running(name=name, message=message or f"on {self.job.server.alias}")
        answer = await self._told(self.client.set_flow_run_state(self.flow_run_id, state))
        if answer is None or answer.status is SetStateStatus.ACCEPT:
            return
        if await is_over(self.client, self.flow_run_id):
            self._stop("cancelled")

    async def report(self, snapshot: Snapshot) -> None:
        """Show progress: one artifact that is changed, and `Waiting` as a phase of its own."""
        await self._look()
        if (warm := given.get()) is not None:
            warm.tell({"progress": snapshot.fraction, "server": self.job.server.alias})
        # What it waits for belongs to the state; steps, and how many are before it, change too
        # often and stand in the artifact.
        if snapshot.phase is Phase.WAITING:
            await self.phase("Waiting", snapshot.message)
        elif snapshot.phase is Phase.QUEUED:
            await self.phase("Waiting", f"in the queue of {self.job.server.alias}")
        else:
            await self.phase("Generating")
        if self._progress is None and not self._worth_progress():
            return
        percent = round(snapshot.fraction * 100, 1)
        about = f"Picture {snapshot.picture} of {snapshot.count}: {snapshot.message}"
        if self._progress is None:
            artifact = await self._told(
                self.client.create_artifact(
                    ArtifactCreate(
                        type="progress",
                        key=f"progress-{short_id(self.job.id)}",
                        description=about,
                        data=percent,
                        flow_run_id=self.flow_run_id,
                    )
                )
            )
            self._progress = artifact.id if artifact else None
        else:
            change = ArtifactUpdate(data=percent, description=about)
            await self._told(self.client.update_artifact(self._progress, change))

    def _worth_progress(self) -> bool:
        """A job over in a moment needs no progress bar; in a warm process most are."""
        return given.get() is None or time.monotonic() - self._began >= SHORTEST_JOB_S

    async def show_pictures(self, assets: tuple[Asset, ...]) -> None:
        """Show stored pictures: thumbnails linked over http, and a table of all files."""
        settings = self.job.settings
        base = settings.files_url or f"http://127.0.0.1:{settings.files_port}"
        images = [asset for asset in assets if asset.mime.startswith("image/")]
        for asset in images[:MOST_IMAGE_ARTIFACTS]:
            await self._show(
                "image",
                f"picture-{short_id(self.job.id)}-{asset.index}-{asset.ordinal}",
                f"Seed {asset.seed}, {asset.width} x {asset.height}: `{asset.key}`",
                f"{base.rstrip('/')}/thumbnails/{asset.sha256}.webp",
            )
        if len(assets) == len(images) == 1:
            return
        rows = "\n".join(
            f"| {asset.index + 1} | `{asset.seed}` | {asset.kind.value} | `{asset.key}` |"
            for asset in assets
        )
        await self._show(
            "markdown",
            f"stored-{short_id(self.job.id)}",
            f"What was stored, made on {self.job.server.alias}",
            f"| picture | seed | kind | file |\n| --- | --- | --- | --- |\n{rows}",
        )

    async def _look(self) -> None:
        """Ask now and then whether the run is still wanted; nobody tells us of a deletion."""
        now = time.monotonic()
        if now - self._looked < LOOK_EVERY_S:
            return
        self._looked = now
        if await is_over(self.client, self.flow_run_id):
            self._stop("cancelled or deleted")

    async def _show(self, kind: str, key: str, description: str, data: str) -> None:
        artifact = ArtifactCreate(
            type=kind, key=key, description=description, data=data, flow_run_id=self.flow_run_id
        )
        await self._told(self.client.create_artifact(artifact))

    async def _told(self, call: Awaitable[T]) -> T | None:
        """Await a call to Prefect; None when it cannot be told."""
        try:
            return await call
        except ObjectNotFound:
            self._stop("deleted")
        except httpx.HTTPError as error:
            logger.info("Prefect cannot be told how far the job is: %s", type(error).__name__)
        return None

    def _stop(self, why: str) -> None:
        if self.stopped or self._flow is None:
            return
        logger.info("the run was %s in Prefect; the job is stopped", why)
        self.stopped = True
        self._flow.cancel()


async def is_over(client: PrefectClient, flow_run_id: UUID) -> bool:
    """Whether the run was cancelled or deleted (and not merely its process is being stopped).

    False while Prefect cannot be asked: then the job goes on some time later.
    """
    try:
        flow_run = await client.read_flow_run(flow_run_id)
    except ObjectNotFound:
        return True
    except httpx.HTTPError as error:
        logger.warning("Prefect does not say whether the run is cancelled: %s", error)
        return False
    return flow_run.state is not None and flow_run.state.type in _OVER
