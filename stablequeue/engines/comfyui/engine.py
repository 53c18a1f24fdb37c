"""The engine for ComfyUI: one session with one server.

Tried on 0.3.64, 0.8.0 and 0.26.0. Older servers choose prompt ids themselves (before 0.3.45) and
interrupt whatever runs (before 0.3.57); newer ones have `/api/jobs`. Both are found by probing.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

from stablequeue.engines.base import (
    EngineJob,
    Inventory,
    Located,
    Progress,
    RawResult,
    Resolution,
    ServerInfo,
    Ticket,
)
from stablequeue.engines.comfyui import freeing, workflow
from stablequeue.engines.comfyui.answers import SystemStats
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.collecting import Collector, lost
from stablequeue.engines.comfyui.following import FOLDER, Follower
from stablequeue.engines.comfyui.inventory import read_inventory
from stablequeue.engines.comfyui.resolving import Resolver
from stablequeue.engines.comfyui.socket import ComfySocket
from stablequeue.engines.comfyui.submission import (
    Submitter,
    graph_of,
    overrides_of,
    seed_of,
    seeded_workflow,
)
from stablequeue.engines.comfyui.workflow_check import resolve_workflow
from stablequeue.request import GenerationRequest, Mode
from stablequeue.servers import ServerConfig

_TARGETED_INTERRUPT = (0, 3, 57)


class ComfyUI:
    """One session with one ComfyUI server; see `stablequeue.engines.base.Engine`."""

    app_type: ClassVar[str] = "comfyui"
    depth: ClassVar[int] = 2
    """One prompt runs and one waits: between two of them a server idles 1 to 6 ms."""

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._client = ComfyClient(server)
        self._socket = ComfySocket(server)
        self._follower = Follower(server, self._client, self._socket)
        self._submitter = Submitter(server, self._client, self._socket, self._follower)
        self._collector = Collector(server, self._client)
        self._stats: SystemStats | None = None
        self._has_jobs: bool | None = None

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            await self._socket.close()
        finally:
            await self._client.__aexit__(exc_type, exc, traceback)

    async def probe(self) -> ServerInfo:
        """Say what the server is and how busy."""
        self._stats = stats = await self._client.system_stats()
        features, self._has_jobs, queue_length = await asyncio.gather(
            self._client.features(), self._client.has_jobs(), self._client.queue_length()
        )
        known = {name for name, value in features.items() if value is True}
        known |= {"jobs_api"} if self._has_jobs else set()
        known |= {"targeted_interrupt"} if stats.release >= _TARGETED_INTERRUPT else set()
        return ServerInfo(
            app_type=self.app_type,
            flavour="comfyui",
            version=stats.version,
            gpu=stats.gpu,
            vram_total=stats.vram_total,
            vram_free=stats.vram_free,
            sandbox=stats.sandbox,
            queue_length=queue_length,
            features=frozenset(known),
        )

    async def inventory(self) -> Inventory:
        """List what the server has."""
        return await read_inventory(self._client)

    async def resolve(self, request: GenerationRequest) -> Resolution:
        """Turn references into the server's exact names, asking it anew."""
        if request.mode is Mode.WORKFLOW:
            return await resolve_workflow(self._client, self._server.alias, request)
        return await Resolver(self._client, self._server.alias, request).resolve()

    def ticket(self, job: EngineJob) -> Ticket:
        """Make the ticket of a job not yet sent.

        Its data: `folder` below the server's output folder, where everything this attempt saves
        goes; `recoverable`, whether its files can be found there by name; `models`, which must
        have run; `client_id`, whose socket gets the messages; `asked`, for the record.
        """
        date = datetime.now(UTC).date().isoformat()
        resolution = job.resolution
        models = [resolution.checkpoint, resolution.unet, *resolution.text_encoders]
        models += [resolution.vae, *(lora.name for lora in resolution.loras)]
        if resolution.detail.get("upscale_model"):
            models.append(resolution.upscaler)
        data: dict[str, Any] = {
            "folder": f"{FOLDER}/{date}/{job.key}",
            "recoverable": _recoverable(job),
            "models": sorted({name for name in models if name}),
            "client_id": self._socket.client_id,
            "asked": {
                "checkpoint": resolution.checkpoint or resolution.unet,
                "sampler": resolution.sampler,
                "scheduler": resolution.scheduler,
                "seed": _seed_of(job),
                "notes": list(resolution.detail.get("notes", [])),
            },
        }
        return Ticket(engine=self.app_type, remote_id=str(job.key), data=data)

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        """Hand the job over; return the ticket to follow."""
        return await self._submitter.submit(ticket, job)

    async def locate(self, ticket: Ticket) -> Located:
        """Say where the job is. What the server forgot is still found by its files' names."""
        located = await self._follower.locate(ticket.remote_id)
        if located is Located.GONE and await self._collector.find_by_name(ticket):
            return Located.DONE
        return located

    async def observe(self, ticket: Ticket) -> AsyncIterator[Progress]:
        """Follow the job by push and polling; ends when the job ended."""
        async with contextlib.aclosing(
            self._follower.observe(ticket.remote_id, _client_id(ticket))
        ) as observations:
            async for progress in observations:
                yield progress

    async def collect(self, ticket: Ticket, spool: Path) -> RawResult:
        """Await the end and bring everything made into the folder `spool`."""
        ended = await self._follower.wait_end(ticket.remote_id, _client_id(ticket))
        self._follower.forget(ticket.remote_id)
        if ended is None:
            files = await self._collector.find_by_name(ticket)
            if not files:
                raise lost(self._server)
            result = await self._collector.recover(ticket, files, spool)
        else:
            result = await self._collector.from_history(ticket, ended, spool)
        stats = await self._known_stats()
        result.effective.update({"version": stats.version, "gpu": stats.gpu})
        return result

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask once to stop this job and nothing else.

        An interrupt can get lost and acts only between two steps, so it is certain only once the
        history has the job or the server no longer knows it.
        """
        prompt_id = ticket.remote_id
        if self._has_jobs is None:
            self._has_jobs = await self._client.has_jobs()
        if not (self._has_jobs and await self._client.cancel_job(prompt_id)):
            await self._client.delete(prompt_id)
            # Servers before 0.3.57 interrupt whatever runs, so ours must be what runs.
            if (await self._follower.look(prompt_id)).running:
                await self._client.interrupt(prompt_id)
        # Looked for twice, because a request on its way to the server can still arrive.
        return await self._follower.locate(prompt_id) in {Located.DONE, Located.GONE}

    async def free_memory(self) -> None:
        """Have the server unload its models; returns once another one can use their memory.

        Raises:
            EngineUnreachable: Retryable.
        """
        await freeing.free_memory(self._client)

    async def _known_stats(self) -> SystemStats:
        if self._stats is None:
            self._stats = await self._client.system_stats()
        return self._stats


def _client_id(ticket: Ticket) -> str:
    client_id = ticket.data.get("client_id")
    return client_id if isinstance(client_id, str) else ""


def _seed_of(job: EngineJob) -> int:
    workflow_mode = job.request.mode is Mode.WORKFLOW
    return seed_of(job, seeded_workflow(job)) if workflow_mode else job.seed


def _recoverable(job: EngineJob) -> bool:
    if job.request.mode is not Mode.WORKFLOW:
        return True
    graph = workflow.with_overrides(graph_of(job), overrides_of(job))
    return workflow.saves_one_picture(graph, workflow.with_prefixes(graph, FOLDER))
