"""What every engine is: the contract between the pipeline and one protocol.

An engine object is one session with one server, opened with `async with` once per flow run and
used by one event loop. It imports no Prefect, keeps nothing on disk but what `collect` spools, and
logs each exchange with its direction (`stablequeue.wire`).

The order of calls for one picture::

    ticket = engine.ticket(job)          # pure; committed to the catalogue before anything is sent
    ticket = await engine.submit(ticket, job)
    result = await engine.collect(ticket, spool)     # awaits the end, however long
    # meanwhile, in another task: async for progress in engine.observe(ticket)

and after a crash, with the stored ticket::

    match await engine.locate(ticket):
        QUEUED | RUNNING | DONE -> collect(ticket, spool)
        GONE                    -> a new attempt, with a new ticket
        UNKNOWN                 -> the server gives no means to look: one repeat, recorded as such
"""

from collections.abc import AsyncIterator, Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Protocol, Self, runtime_checkable
from uuid import UUID

from stablequeue.ids import remote_key
from stablequeue.models.kinds import ModelType
from stablequeue.request import GenerationRequest
from stablequeue.servers import ServerConfig

JSON = dict[str, Any]


class Located(StrEnum):
    """Where a ticket's job is on its server."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"  # ended in any way; `collect` tells which
    GONE = "gone"  # the server provably does not have it
    UNKNOWN = "unknown"  # the server gives no means to tell


class Phase(StrEnum):
    """What the server is doing with our job."""

    WAITING = "waiting"  # somebody else's work is running there: not a stall
    QUEUED = "queued"
    LOADING = "loading"
    SAMPLING = "sampling"
    FINISHING = "finishing"
    DONE = "done"


class Kind(StrEnum):
    """Kinds of asset."""

    IMAGE = "image"
    VIDEO = "video"
    TEXT = "text"
    AUDIO = "audio"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraUse:
    """A LoRA under the server's exact name."""

    name: str
    weight: float
    text_weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """A request's references as one server's own exact names. Empty: not used.

    Attributes:
        detail: The engine's own (hashes expected, node classes, ...), plain JSON.
        graph: A workflow as this server takes it, overrides put in, where the request has it in
            another form. Not part of the record: the request has it, and so have the pictures.
    """

    checkpoint: str = ""
    unet: str = ""
    text_encoders: tuple[str, ...] = ()
    vae: str = ""
    loras: tuple[LoraUse, ...] = ()
    sampler: str = ""
    scheduler: str = ""
    upscaler: str = ""
    detail: JSON = field(default_factory=dict[str, Any])
    graph: JSON = field(default_factory=dict[str, Any])

    def to_json(self) -> JSON:
        """Return plain JSON data, for the record."""
        return {name: value for name, value in asdict(self).items() if name != "graph"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineJob:
    """One picture to make: one remote job per (job, index, attempt).

    Attributes:
        job_id: The job's UUIDv7.
        index: Which picture of the job, from 0.
        attempt: From 1; a new attempt never reuses a remote id.
        seed: This picture's seed (the request's first seed + index).
        inputs: Local files for `init_image` and `mask_image`, by field name.
    """

    job_id: str
    index: int
    attempt: int
    seed: int
    request: GenerationRequest
    resolution: Resolution
    inputs: Mapping[str, Path] = field(default_factory=dict[str, Path])

    @property
    def key(self) -> UUID:
        """The remote id."""
        return remote_key(self.job_id, self.index, self.attempt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticket:
    """What finds a remote job again: a name and opaque JSON, stored before it is needed."""

    engine: str
    remote_id: str
    data: JSON = field(default_factory=dict[str, Any])

    def to_json(self) -> JSON:
        """Return plain JSON data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote."""
        return cls(
            engine=data["engine"], remote_id=data["remote_id"], data=dict(data.get("data", {}))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One observation. `fraction` is 0 to 1, never goes back, None while unknown."""

    phase: Phase
    fraction: float | None = None
    step: int = 0
    steps: int = 0
    position: int = 0  # jobs before ours there, ours and foreign; 0: none
    message: str = ""
    preview: bytes | None = None  # an encoded image (PNG, JPEG or WEBP)


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAsset:
    """One file as the server made it, spooled to disk with its bytes unchanged.

    Attributes:
        path: The spooled file, inside the `spool` folder given to `collect`.
        name: The server's own name for it; hostile, for the record only.
        infotext: A1111 infotext, if the server told one for this file.
        meta: Whatever else it told about this file, plain JSON.
    """

    path: Path
    kind: Kind
    mime: str
    name: str = ""
    infotext: str = ""
    meta: JSON = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class RawResult:
    """What one remote job made.

    Attributes:
        assets: In the server's order; without grids, previews and temporary files.
        warnings: One line each; not empty means the job ends as Degraded.
        censored: The server withheld or blanked pictures.
        effective: What the server says it used (model, hash, sampler, seed, version), plain JSON.
    """

    assets: tuple[RawAsset, ...]
    warnings: tuple[str, ...] = ()
    censored: bool = False
    effective: JSON = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """What a probe tells. Memory in bytes, 0 while unknown."""

    app_type: str
    flavour: str  # comfyui, forge, automatic1111, ...
    version: str
    gpu: str = ""
    vram_total: int = 0
    vram_free: int = 0
    sandbox: bool = False
    queue_length: int = 0  # running and waiting there, everybody's
    features: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a server has, under its own exact names, in its own order."""

    checkpoints: tuple[str, ...] = ()
    unets: tuple[str, ...] = ()
    text_encoders: tuple[str, ...] = ()
    vaes: tuple[str, ...] = ()
    loras: tuple[str, ...] = ()
    upscalers: tuple[str, ...] = ()
    embeddings: tuple[str, ...] = ()
    samplers: tuple[str, ...] = ()
    schedulers: tuple[str, ...] = ()


class Engine(Protocol):
    """One protocol, spoken with one server.

    Every method raises `EngineUnreachable` (retryable) for a lost connection,
    `EngineAuthFailed` for refused credentials and `ProtocolError` for nonsense, besides what it
    says itself. Short calls have the server's read timeout; generating has none.
    """

    app_type: ClassVar[str]
    depth: ClassVar[int]
    """How many remote jobs of ours may be on the server at once (1 runs, the rest wait there)."""

    def __init__(self, server: ServerConfig) -> None: ...
    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...

    async def probe(self) -> ServerInfo:
        """Say what the server is and how busy. Raises `EngineBusy` while it is still starting."""
        ...

    async def inventory(self) -> Inventory:
        """List what the server has."""
        ...

    async def resolve(self, request: GenerationRequest) -> Resolution:
        """Turn references into the server's exact names, asking it anew.

        Raises:
            ModelMissing: It lacks a model; suggestions are listed, never used.
            Unsupported: It cannot do this (mode, sampler, scheduler, node class, script, ...).
        """
        ...

    def ticket(self, job: EngineJob) -> Ticket:
        """Make the ticket of a job not yet sent. Pure: no waiting, no exchange."""
        ...

    async def submit(self, ticket: Ticket, job: EngineJob) -> Ticket:
        """Hand the job over; return the ticket to follow (the server may choose another id).

        Waits while the server cannot take it, as long as needed (`observe` says
        `Phase.WAITING` meanwhile). A lost reply is settled by looking, never by sending again.

        Raises:
            JobRejected: It did not validate.
            EngineUnreachable: And the server provably did not take it. Retryable with a new ticket.
        """
        ...

    async def locate(self, ticket: Ticket) -> Located:
        """Say where the job is. Asks twice before it says GONE."""
        ...

    def observe(self, ticket: Ticket) -> AsyncIterator[Progress]:
        """Follow the job by push and polling; ends when the job ended.

        Never raises for a lost connection: it keeps trying until closed.
        """
        ...

    async def collect(self, ticket: Ticket, spool: Path) -> RawResult:
        """Await the end and bring everything made into the folder `spool` (exists, ours alone).

        Works in the process that submitted and in one that only has the ticket. Safe to repeat:
        files are written under a temporary name and renamed.

        Raises:
            JobFailed: It ran and failed (also OutOfMemory, WrongModel, Interrupted).
            ResultLost: It ran, but the result is gone.
        """
        ...

    async def cancel(self, ticket: Ticket) -> bool:
        """Ask once to stop this job and nothing else; already over is fine.

        Returns:
            Whether it is certain that the job no longer waits or runs there. False: ask again.
        """
        ...


class SupportsFreeNotice(Protocol):
    """An engine that can tell when its server is done, before the result is brought home.

    Attributes:
        on_free: Called when a remote job of this session was answered, if set.
    """

    on_free: Callable[[], None] | None


@runtime_checkable
class SupportsRefresh(Protocol):
    """An engine whose server lists its model files only when it is told to.

    Others look at their folders whenever they are asked.
    """

    async def refresh(self, kinds: Collection[ModelType]) -> None:
        """Have the server look for new files of these types; may wait for the job that runs.

        Raises:
            EngineUnreachable: Retryable.
        """
        ...


@runtime_checkable
class SupportsFreeMemory(Protocol):
    """An engine that can ask its server to give the card's memory back."""

    async def free_memory(self) -> None:
        """Have the server unload its models; returns once another one can use their memory.

        Raises:
            EngineBusy: Somebody uses them.
            EngineUnreachable: Retryable.
        """
        ...
