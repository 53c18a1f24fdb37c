"""One run's work on one job: what its steps share, opened once."""

import asyncio
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from stablequeue.catalogue import Attempt, Catalogue, StoredRequest
from stablequeue.engines import open_engine
from stablequeue.engines.base import Engine, EngineJob, Resolution, ServerInfo, Ticket
from stablequeue.errors import EngineAuthFailed, Refused, StoreUnavailable
from stablequeue.ids import short_id
from stablequeue.request import GenerationRequest
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings
from stablequeue.storage import InputStore, Store
from stablequeue.wire import current_job

logger = logging.getLogger("stablequeue.job")

T = TypeVar("T")

PARKING = (StoreUnavailable, EngineAuthFailed)
"""Failures that every other job of the server would meet too: its jobs wait, none fails."""


class Job:
    """A job in one process: the frozen request, the server it runs on, and open resources.

    Made by `open_job`. Not shared between event loops. The steps in this package take it as their
    first argument and leave their results in the catalogue and the spool, so that any later run
    of the same job can go on from there. (No dataclass: Prefect walks into the fields of those.)

    Attributes:
        info: What the server is; set by `resolve`.
        resolution: The server's exact names; set by `resolve`.
        renamed: The request with models of the library under the server's names, if the request's
            own references mean nothing to the server; the request itself stays as accepted.
        in_flight: Attempts on the server now, by picture.
        made: Pictures that are stored, or lie complete in the spool.
        live: Remote jobs `monitor` is to follow.
        waiting_for: What the job waits for outside the server's knowledge, e.g. the card.
        wants_interrupt: Asked when its task is cancelled: is the job cancelled, or does only
            this process end? Then its tickets stay open.
        warnings: What makes it Degraded, one line each.
        made_at: Monotonic seconds when the last picture was there; 0: none yet.
        unsettled: It was interrupted, and its server has not confirmed that it stopped.
    """

    def __init__(
        self,
        *,
        stored: StoredRequest,
        server: ServerConfig,
        settings: Settings,
        catalogue: Catalogue,
        store: Store,
        engine: Engine,
    ) -> None:
        self.stored = stored
        self.server = server
        self.settings = settings
        self.catalogue = catalogue
        self.store = store
        self.engine = engine
        self.info: ServerInfo | None = None
        self.resolution: Resolution | None = None
        self.renamed: GenerationRequest | None = None
        self.in_flight: dict[int, Attempt] = {}
        self.made: set[int] = set()
        self.live: asyncio.Queue[Live] = asyncio.Queue()
        self.waiting_for = ""
        self.wants_interrupt: Callable[[], Awaitable[bool]] = _always
        self.warnings: list[str] = []
        self.made_at = 0.0
        self.unsettled = False

    @property
    def id(self) -> str:
        """The job's id."""
        return self.stored.job_id

    @property
    def request(self) -> GenerationRequest:
        """The request as accepted, frozen."""
        return self.stored.request

    @property
    def spool(self) -> Path:
        """Folder of results fetched but not yet stored."""
        return self.settings.spool / self.id

    async def call(self, function: Callable[[], T]) -> T:
        """Run something that blocks (the catalogue, a store) in a thread."""
        return await asyncio.to_thread(function)

    def engine_job(self, index: int, attempt: int) -> EngineJob:
        """Return picture `index` as the engine wants it; `resolve` must have run."""
        if self.resolution is None:
            message = f"job {self.id} was not resolved before generating"
            raise Refused(message)
        inputs = InputStore(self.settings.inputs)
        return EngineJob(
            job_id=self.id,
            index=index,
            attempt=attempt,
            seed=self.stored.seed + index,
            request=self.renamed or self.request,
            resolution=self.resolution,
            inputs={
                name: inputs.path(reference)
                for name in ("init_image", "mask_image")
                if (reference := getattr(self.request, name))
            },
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A remote job that can be followed now, and where to say that it stalled."""

    index: int
    ticket: Ticket
    stalled: "asyncio.Future[str]"


async def _always() -> bool:
    """A cancelled task means a cancelled job, unless somebody who knows better says otherwise."""
    return True


def check_job_id(job_id: str) -> str:
    """Return `job_id` if it is a UUID in its usual form: it becomes a folder's name.

    Raises:
        Refused: It is not.
    """
    try:
        if str(uuid.UUID(job_id)) == job_id:
            return job_id
    except ValueError:
        pass
    message = f"job_id {job_id[:80]!r} is not a job's id; leave it empty for a new job"
    raise Refused(message)


@asynccontextmanager
async def open_job(
    stored: StoredRequest,
    server: ServerConfig,
    *,
    settings: Settings,
    catalogue: Catalogue,
    store: Store,
) -> AsyncGenerator[Job]:
    """Open one engine session for a job and yield what its steps share.

    Raises:
        SettingsError: No installed engine speaks the server's protocol.
    """
    token = current_job.set(short_id(stored.job_id))
    try:
        async with open_engine(server) as engine:
            yield Job(
                stored=stored,
                server=server,
                settings=settings,
                catalogue=catalogue,
                store=store,
                engine=engine,
            )
    finally:
        current_job.reset(token)
