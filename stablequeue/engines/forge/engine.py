"""The engine for Forge and AUTOMATIC1111: one session with one server.

Tried on Forge f2.0.1v1.10.1 (June 2025). What differs between forks and versions is found by
probing: Forge's modules or AUTOMATIC1111's VAE list, task ids and files only with the web page,
schedulers of their own since AUTOMATIC1111 1.9. Gradio's own queue is not used.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from stablequeue.engines.base import (
    JSON,
    EngineJob,
    Inventory,
    Located,
    Progress,
    RawResult,
    Resolution,
    ServerInfo,
    Ticket,
)
from stablequeue.engines.forge import options, payload, watching
from stablequeue.engines.forge.answers import mapping
from stablequeue.engines.forge.cancelling import Canceller
from stablequeue.engines.forge.client import ForgeClient
from stablequeue.engines.forge.collecting import Collector
from stablequeue.engines.forge.doorman import Doorman
from stablequeue.engines.forge.following import Follower
from stablequeue.engines.forge.inventory import read_inventory
from stablequeue.engines.forge.resolving import AUTOMATIC1111, FORGE, Resolver
from stablequeue.engines.forge.session import Session
from stablequeue.engines.forge.submission import Desk, Submitter
from stablequeue.errors import EngineBusy
from stablequeue.models.kinds import ModelType
from stablequeue.request import GenerationRequest
from stablequeue.servers import ServerConfig

_REFRESHED: Mapping[ModelType, str] = {
    ModelType.CHECKPOINT: "checkpoints",
    ModelType.DIFFUSION_MODEL: "checkpoints",  # Forge lists bare image models among them
    ModelType.LORA: "loras",
    ModelType.VAE: "vae",
    ModelType.TEXT_ENCODER: "vae",  # Forge's modules: VAEs and text encoders in one list
    ModelType.EMBEDDING: "embeddings",
}


class Forge:
    """One session with one server; see `stablequeue.engines.base.Engine`."""

    app_type: ClassVar[str] = "forge"
    depth: ClassVar[int] = 1
    """A waiting request cannot be withdrawn there, so only one is ever sent."""

    def __init__(self, server: ServerConfig) -> None:
        self._client = ForgeClient(server)
        self._session = Session(server, self._client)
        self._desk = Desk()
        self.on_free: Callable[[], None] | None = None
        self._desk.answered = self._answered
        self._doorman = Doorman(self._client)
        self._submitter = Submitter(self._session, self._desk, self._doorman)
        self._follower = Follower(self._session, self._desk)
        self._collector = Collector(self._session, self._desk, self._follower)
        self._canceller = Canceller(self._session, self._desk, self._follower)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # The server goes on with what it has; the tickets find it again.
        try:
            for post in self._desk.posts.values():
                await post.give_up()
        finally:
            await self._client.__aexit__(exc_type, exc, traceback)

    def _answered(self) -> None:
        if self.on_free is not None:
            self.on_free()

    async def probe(self) -> ServerInfo:
        """Say what the server is and how busy.

        Its version is not told by anything cheap: it stands in each result.
        """
        await self._session.checkpoints()
        boot = await self._session.boot()
        modules, memory, queued = await asyncio.gather(
            self._client.modules(), self._client.memory(), self._doorman.ahead(boot)
        )
        features = {"web_page"} if boot.id else set[str]()
        features |= {"modules"} if modules is not None else set()
        return ServerInfo(
            app_type=self.app_type,
            flavour=AUTOMATIC1111 if modules is None else FORGE,
            version=boot.version,
            vram_total=memory.total if memory else 0,
            vram_free=memory.free if memory else 0,
            sandbox=self._session.sandbox,
            queue_length=queued,
            features=frozenset(features),
        )

    async def inventory(self) -> Inventory:
        """List what the server has."""
        return await read_inventory(self._session)

    async def refresh(self, kinds: Collection[ModelType]) -> None:
        """Have it look for new files of these types; may wait for the job that runs there."""
        for what in dict.fromkeys(_REFRESHED[kind] for kind in kinds if kind in _REFRESHED):
            await self._client.refresh(what)

    async def resolve(self, request: GenerationRequest) -> Resolution:
        """Turn references into the server's exact names, asking it anew."""
        return await Resolver(self._session, request).resolve()

    def ticket(self, job: EngineJob) -> Ticket:
        """Make the ticket of a job not yet sent.

        Its data: `kind` of request; `file`, where its picture will be (empty: not known);
        `expect`, what the server must report; `webui` and `ids`, whether it has a web page and
        knows task ids; `boot`, which run of the server's process got it (set by `submit`).
        """
        detail, task_id = job.resolution.detail, str(job.key)
        kind = str(detail.get("kind", ""))
        if kind == "upscale":
            data: JSON = {"kind": kind, "expect": {"upscaler": job.resolution.upscaler}}
        else:
            settings = mapping(detail.get("settings"))
            data = {
                "kind": kind,
                "seed": job.seed,
                "file": options.file_path(settings, kind, task_id, job.seed),
                "saves_whole_only": options.WHOLE_ONLY in (settings.get("keys") or []),
                "script": bool(detail.get("script_name")),
                "expect": payload.expected(job),
            }
        data["webui"] = bool(detail.get("webui"))
        # Task ids came with 1.8 (schedulers of their own with 1.9, which is what can be seen).
        data["ids"] = data["webui"] and bool(detail.get("schedulers"))
        return Ticket(engine=self.app_type, remote_id=task_id, data=data)

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        """Hand the job over once nobody else is there; return the ticket to follow."""
        return await self._submitter.submit(ticket, job)

    async def locate(self, ticket: Ticket) -> Located:
        """Say where the job is."""
        return await self._follower.locate(ticket)

    async def observe(self, ticket: Ticket) -> AsyncIterator[Progress]:
        """Follow the job by polling; ends when the job ended."""
        async with contextlib.aclosing(
            watching.observe(self._session, self._desk, self._follower, ticket)
        ) as observations:
            async for progress in observations:
                yield progress

    async def collect(self, ticket: Ticket, spool: Path) -> RawResult:
        """Await the end and bring the picture into the folder `spool`."""
        return await self._collector.collect(ticket, spool)

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask once to stop this job and nothing else."""
        return await self._canceller.cancel(ticket)

    async def free_memory(self) -> None:
        """Ask the server to unload its model; the next job loads it again.

        Raises:
            EngineBusy: Somebody uses it: their job would fail.
        """
        if not (await self._client.state()).idle:
            raise EngineBusy(
                self._session.alias, "somebody uses it, so its memory cannot be freed now"
            )
        await self._client.unload()
