"""What the two halves of the sandbox share.

The contract between the core and a protocol (`stablequeue.sandbox.comfyui.app`,
`stablequeue.sandbox.forge.app`): each has `build(state) -> list[BaseRoute]`. It

* reads its settings from `state.config`, its models from `state.models`, its files from below
  `state.home` (files survive a restart);
* keeps everything a real server keeps in memory in objects it makes inside `build`: a restart
  makes a new `SandboxState` with a new `boot_id` and builds again, so that memory is lost;
* puts what must run besides requests into `state.on_startup` (coroutine functions, awaited in the
  server's event loop before the first request);
* brackets each generation with `state.card.generating(owner, label)`, loads models with
  `state.card.load(owner, ...)` (owner: the protocol's name plus `state.name`, see `owner`), and
  awaits `state.strike(place, protocol)` at each place of `stablequeue.sandbox.faults`: it
  stalls, drops sockets and dies by itself, and returns the faults the protocol must act out;
* spends time with `asyncio.sleep`, never by blocking the loop; painting goes to a thread;
* records anything a test may want to read in `state.journal`, and adds a function to
  `state.reports` whose plain JSON appears in `GET /stablequeue/state`.

HTTP faults (close, cut, delay, hang, status, die) are acted out by the core around every route.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stablequeue.sandbox.card import GraphicsCard
from stablequeue.sandbox.faults import Fault, FaultKind, Faults
from stablequeue.sandbox.models import ModelShelf, default_models

_HOLD_POLL_S = 0.02


@dataclass(kw_only=True)
class SandboxConfig:
    """How a sandbox is set up; the same through its restarts.

    Attributes:
        protocol: `comfyui`, `forge` or `both`.
        home: Folder for everything it writes; ours alone.
        name: Tells two sandboxes on one card apart.
        step_seconds: What one sampling step takes.
        models: The model files; may be changed while it runs.
        card: The graphics card; give two sandboxes the same to let them compete.
        faults: What goes wrong.
        control: Whether `/stablequeue/faults` and `/stablequeue/state` exist.
        comfyui_version: What ComfyUI's half says it is.
        newer_comfyui: Behave as ComfyUI of 2026: `/api/jobs`, prompt ids must be UUIDs.
        previews: ComfyUI's `--preview-method`: `none`, `auto`, `latent2rgb` or `taesd`.
        max_upload_bytes: Largest request body ComfyUI's half takes.
        forge: Settings only Forge's half reads.
    """

    home: Path
    protocol: str = "comfyui"
    name: str = "sandbox"
    step_seconds: float = 0.0
    models: ModelShelf = field(default_factory=default_models)
    card: GraphicsCard = field(default_factory=GraphicsCard)
    faults: Faults = field(default_factory=Faults)
    control: bool = False
    comfyui_version: str = "0.3.64"
    newer_comfyui: bool = False
    previews: str = "none"
    max_upload_bytes: int = 100 * 1024 * 1024
    forge: dict[str, Any] = field(default_factory=dict[str, Any])


def _no_killer() -> None:
    message = "this state belongs to no running server"
    raise RuntimeError(message)


@dataclass(kw_only=True)
class SandboxState:
    """One life of a server, from boot to its end.

    Attributes:
        boot_id: New at each boot.
        wall: Wall clock in seconds since 1970, for time stamps only.
        on_startup: Awaited in order when the event loop runs.
        reports: Functions whose JSON appears in `/stablequeue/state`, by name.
        journal: What happened, for tests: protocols append plain dictionaries with a `what`.
        loop: The server's event loop, once it runs.
        kill: Ends the server as SIGKILL would. Callable from its event loop.
        cut_sockets: Cuts every WebSocket without a closing handshake.
    """

    config: SandboxConfig
    boot_id: int = field(default_factory=lambda: random.SystemRandom().getrandbits(31))
    wall: Callable[[], float] = time.time
    on_startup: list[Callable[[], Awaitable[None]]] = field(
        default_factory=list[Callable[[], Awaitable[None]]]
    )
    reports: dict[str, Callable[[], Any]] = field(default_factory=dict[str, Callable[[], Any]])
    journal: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    loop: asyncio.AbstractEventLoop | None = None
    kill: Callable[[], None] = _no_killer
    cut_sockets: Callable[[], None] = _no_killer

    @property
    def home(self) -> Path:
        """Folder for files; they survive restarts."""
        return self.config.home

    @property
    def card(self) -> GraphicsCard:
        """The graphics card, possibly shared with other servers."""
        return self.config.card

    @property
    def faults(self) -> Faults:
        """What goes wrong."""
        return self.config.faults

    @property
    def models(self) -> ModelShelf:
        """The model files."""
        return self.config.models

    @property
    def step_seconds(self) -> float:
        """What one sampling step takes, without faults."""
        return self.config.step_seconds

    def owner(self, protocol: str) -> str:
        """Return the name under which `protocol` of this server uses the card."""
        return f"{self.config.name}/{protocol}"

    def note(self, what: str, **facts: Any) -> None:
        """Append to the journal."""
        self.journal.append({"what": what, **facts})

    async def step(self, number: int, protocol: str) -> list[Fault]:
        """Spend one sampling step (from 1); see `strike` for faults and the result."""
        place = f"step {number}"
        slow = self.faults.take(FaultKind.SLOW, place, protocol)
        await asyncio.sleep(slow.seconds if slow else self.step_seconds)
        return await self.strike(place, protocol)

    async def strike(self, place: str, protocol: str) -> list[Fault]:
        """Let the faults for a place of a generation happen.

        Stalling, dropped sockets and death happen here.

        Returns:
            What the protocol must act out itself: OUT_OF_MEMORY, ERROR, WRONG_MODEL, PARTIAL,
            INTERRUPT, LOSE_RESULT, in this order.
        """
        faults = self.faults
        if stall := faults.take(FaultKind.STALL, place, protocol):
            await self.hold(stall)
        if faults.take(FaultKind.DROP_SOCKET, place, protocol):
            self.cut_sockets()
        if faults.take(FaultKind.DIE, place, protocol):
            await self.die()
        kinds = (
            FaultKind.OUT_OF_MEMORY,
            FaultKind.ERROR,
            FaultKind.WRONG_MODEL,
            FaultKind.PARTIAL,
            FaultKind.INTERRUPT,
            FaultKind.LOSE_RESULT,
        )
        return [fault for kind in kinds if (fault := faults.take(kind, place, protocol))]

    async def hold(self, fault: Fault) -> None:
        """Wait for the fault's seconds (0: for ever), or until it is cleared from any thread."""
        until = time.monotonic() + (fault.seconds or float("inf"))
        while time.monotonic() < until and self.faults.in_force(fault):  # noqa: ASYNC110 - threads
            await asyncio.sleep(_HOLD_POLL_S)

    async def die(self) -> None:
        """Kill the server and never return (the loop ends)."""
        self.kill()
        await asyncio.Event().wait()
