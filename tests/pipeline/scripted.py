"""An engine that does what a test tells it, for what no server can be made to do on demand."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

from PIL import Image

from stablequeue.engines.base import (
    EngineJob,
    Inventory,
    Kind,
    Located,
    Phase,
    Progress,
    RawAsset,
    RawResult,
    Resolution,
    ServerInfo,
    Ticket,
)
from stablequeue.request import GenerationRequest
from stablequeue.servers import ServerConfig

T = TypeVar("T")

HANG: Any = object()
"""Told as the outcome of a call: it waits until it is cancelled."""


def picture(folder: Path, name: str = "0.png", colour: str = "teal", **more: Any) -> RawAsset:
    """Paint a file into a spool folder."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), colour).save(folder / name, **more)
    return RawAsset(path=folder / name, kind=Kind.IMAGE, mime="image/png", name=f"theirs/{name}")


@dataclass
class Scripted:
    """Each call takes the next of what it was told; told nothing, all goes well.

    An exception is raised, an event is awaited first.

    Attributes:
        server: Whose alias is in its errors.
        ends: What `collect` takes before `collects`, by remote id.
        colours: Of the pictures it paints, by remote id.
        calls: What was asked, in order, e.g. `submit 0-1` (picture and attempt).
        waiting: How many calls hang now.
    """

    app_type: ClassVar[str] = "comfyui"
    depth: ClassVar[int] = 2

    server: ServerConfig
    info: Any = field(
        default_factory=lambda: ServerInfo(app_type="comfyui", flavour="x", version="1")
    )
    resolution: Any = field(default_factory=lambda: Resolution(checkpoint="base.safetensors"))
    submits: list[Any] = field(default_factory=list[Any])
    locates: list[Any] = field(default_factory=list[Any])
    collects: list[Any] = field(default_factory=list[Any])
    cancels: list[Any] = field(default_factory=list[Any])
    observations: list[Any] = field(default_factory=list[Any])
    frees: list[Any] = field(default_factory=list[Any])
    calls: list[str] = field(default_factory=list[str])
    waiting: int = 0
    at_once: int = 0
    most_at_once: int = 0
    ends: dict[str, Any] = field(default_factory=dict[str, Any])
    colours: dict[str, str] = field(default_factory=dict[str, str])

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Nothing to close."""

    async def probe(self) -> ServerInfo:
        return await self._told([self.info], self.info)

    async def inventory(self) -> Inventory:
        return Inventory()

    async def resolve(self, request: GenerationRequest) -> Resolution:
        del request
        return await self._told([self.resolution], self.resolution)

    def ticket(self, job: EngineJob) -> Ticket:
        return Ticket(engine=self.app_type, remote_id=f"{job.index}-{job.attempt}")

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        self.calls.append(f"submit {job.index}-{job.attempt}")
        return await self._told(self.submits, ticket)

    async def locate(self, ticket: Ticket) -> Located:
        self.calls.append(f"locate {ticket.remote_id}")
        return await self._told(self.locates, Located.DONE)

    async def observe(self, ticket: Ticket) -> AsyncIterator[Progress]:
        self.calls.append(f"observe {ticket.remote_id}")
        while self.observations:
            yield await self._told(self.observations, Progress(phase=Phase.QUEUED))

    async def collect(self, ticket: Ticket, spool: Path) -> RawResult:
        self.calls.append(f"collect {ticket.remote_id}")
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)  # so that several are under way
            ends = [self.ends.pop(ticket.remote_id)] if ticket.remote_id in self.ends else None
            told = await self._told(self.collects if ends is None else ends, None)
        finally:
            self.at_once -= 1
        if told is not None:
            made: RawResult = told(spool) if callable(told) else told
            return made
        colour = self.colours.get(ticket.remote_id, "teal")
        return RawResult(assets=(picture(spool, colour=colour),))

    async def cancel(self, ticket: Ticket) -> bool:
        self.calls.append(f"cancel {ticket.remote_id}")
        return await self._told(self.cancels, True)

    async def free_memory(self) -> None:
        self.calls.append("free")
        await self._told(self.frees, None)

    async def _told(self, told: list[Any], usual: T) -> T:
        next_one: Any = told.pop(0) if told else usual
        if next_one is HANG or isinstance(next_one, asyncio.Event):
            self.waiting += 1
            try:
                await (asyncio.Event() if next_one is HANG else next_one).wait()
            finally:
                self.waiting -= 1
            return usual
        if isinstance(next_one, BaseException):
            raise next_one
        return next_one
