"""One boot of the server: everything it keeps in memory, and the loading of models."""

import asyncio
import random
import time
from typing import Any

from stablequeue.sandbox.card import CardOutOfMemory
from stablequeue.sandbox.faults import Fault
from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.board import JobState, TaskBoard
from stablequeue.sandbox.forge.checkpoints import Checkpoint, Shelf
from stablequeue.sandbox.forge.files import Files
from stablequeue.sandbox.forge.options import CHECKPOINT, CHECKPOINT_HASH, MODULES, Options
from stablequeue.sandbox.forge.settings import ForgeSettings
from stablequeue.sandbox.models import CHECKPOINTS, TEXT_ENCODERS, UNETS, VAES, ModelFile
from stablequeue.sandbox.state import SandboxState

PROTOCOL = "forge"
_NO_MODEL = (
    "You do not have any model! Please download at least one model in [models/Stable-diffusion]."
)


class ForgeServer:
    """Memory of one boot.

    Attributes:
        lock: One job at a time, first come first served; extras and most refreshes take it, too.
        slots: Requests worked on at once. One that waits for the lock keeps its slot.
        app_id: New at each boot.
        loaded: The checkpoint on the card.
        stopping: Set by `server-stop`.
    """

    def __init__(self, state: SandboxState) -> None:
        self.state = state
        self.settings = ForgeSettings.from_config(state.config.forge)
        self.folder = (state.home / "forge").resolve()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.rng = random.Random(state.boot_id)  # noqa: S311 - seeds of pictures
        self.shelf = Shelf(state.models, self.settings, self.folder)
        config = self.folder / "config.json"
        self.options = Options(self.settings, config, self.shelf.keep_modules)
        self.files = Files(self.folder, self.options)
        self.tasks = TaskBoard(self.rng)
        self.job = JobState(state.wall)
        self.lock = asyncio.Lock()
        self.slots = asyncio.Semaphore(self.settings.workers)
        self.app_id = self.rng.getrandbits(64)
        self.booted = time.monotonic()
        self.loaded: Checkpoint | None = None
        self.stopping = asyncio.Event()
        self._select_first()
        state.reports["forge"] = self.report

    def _select_first(self) -> None:
        whole = self.state.models.of(CHECKPOINTS)  # bare UNets would need modules to run
        if self.options[CHECKPOINT] is None and whole:
            self.options.data[CHECKPOINT] = self.state.models.told(whole[0])
        if MODULES in self.options.names():
            self.options.data.setdefault(MODULES, [])
        self.options.save()

    def report(self) -> dict[str, Any]:
        """Return what `/stablequeue/state` shows of us."""
        return {
            "app_id": self.app_id,
            "pending": [*self.tasks.pending],
            "current": self.tasks.current,
            "finished": [*self.tasks.finished],
            "loaded": self.loaded.name if self.loaded else None,
            "job": self.job.to_json(),
        }

    @property
    def routes_are_late(self) -> bool:
        """Whether extensions' routes do not exist yet."""
        return time.monotonic() - self.booted < self.settings.late_routes_s

    def selected(self) -> Checkpoint:
        """Return the checkpoint the options name, or the first.

        Raises:
            Failure: ValueError when there is none at all.
        """
        found = self.shelf.find(self.options[CHECKPOINT])
        if found is not None:
            return found
        checkpoints = self.shelf.checkpoints
        if not checkpoints:
            raise Failure("ValueError", _NO_MODEL)
        return checkpoints[0]

    async def load(self, checkpoint: Checkpoint) -> tuple[Checkpoint, list[Fault]]:
        """Put a checkpoint and the chosen modules on the card, spending the time it takes.

        Returns:
            The checkpoint as listed from now on (its hash is known), and faults to act out.

        Raises:
            Failure: OutOfMemoryError, or AssertionError for a bare UNet without its modules.
        """
        modules = self._modules(checkpoint)
        card, owner = self.state.card, self.state.owner(PROTOCOL)
        faults: list[Fault] = []
        if checkpoint.file.name not in card.loaded(owner):
            faults = await self.state.strike("load", PROTOCOL)
            card.unload(owner)
            self.loaded = None
        try:
            for file in [checkpoint.file, *modules]:
                if card.load(owner, file.name, file.size_mb):
                    self.state.note("forge.load", model=file.name)
                    await asyncio.sleep(file.load_seconds)
        except CardOutOfMemory as error:
            raise out_of_memory(str(error)) from error
        self.loaded = self.shelf.learn_hash(checkpoint)
        self.options.data[CHECKPOINT_HASH] = checkpoint.file.sha256
        return self.loaded, faults

    def _modules(self, checkpoint: Checkpoint) -> list[ModelFile]:
        chosen: list[Any] = self.options[MODULES] or []
        modules = [m for m in (self.shelf.find_module(path) for path in chosen) if m is not None]
        if checkpoint.file.kind == UNETS:
            kinds = {module.kind for module in modules}
            if VAES not in kinds:
                raise Failure("AssertionError", "You do not have VAE state dict!")
            if TEXT_ENCODERS not in kinds:
                raise Failure("AssertionError", "You do not have CLIP state dict!")
        return modules

    def unload(self) -> None:
        """Give the card's memory back."""
        self.state.card.unload(self.state.owner(PROTOCOL))
        self.loaded = None


def out_of_memory(detail: str) -> Failure:
    """Return what torch raises when the card is full."""
    return Failure("OutOfMemoryError", f"CUDA out of memory. {detail}")
