"""A simulated graphics card, shared by the servers that sit on it.

It belongs to no server: two sandboxes on one card compete for its memory as two programs do. Each
evicts only its own models; what the other holds stays until that one is asked to free it.
All methods may be called from any thread.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field


class CardOutOfMemory(Exception):
    """Loading would need more memory than the card can give; the message is torch-like."""


@dataclass(kw_only=True)
class Generation:
    """One stretch of work on the card, times on the monotonic clock in seconds."""

    owner: str
    label: str
    started: float
    ended: float | None = None


@dataclass(kw_only=True)
class GraphicsCard:
    """Memory, loaded models, and a record of who generated when.

    Attributes:
        name: As the servers report it.
        memory_mb: All of it.
        reserve_mb: What is in use without any model.
        generations: Every stretch of work since the card exists, in order of start.
        most_at_once: The largest number of generations that ever ran at the same time.
        swaps: Every load, as (owner, model).
        refused: Every load for which there was no memory, likewise.
    """

    name: str = "StableQueue sandbox card"
    memory_mb: int = 24_576
    reserve_mb: int = 512
    generations: list[Generation] = field(default_factory=list[Generation])
    most_at_once: int = 0
    swaps: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    refused: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    _loaded: "OrderedDict[tuple[str, str], int]" = field(
        default_factory=OrderedDict[tuple[str, str], int], repr=False
    )
    _running: int = 0
    _lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @property
    def free_mb(self) -> int:
        """Memory no model uses now."""
        with self._lock:
            return self.memory_mb - self.reserve_mb - sum(self._loaded.values())

    def loaded(self, owner: str) -> list[str]:
        """Return the models `owner` holds, least recently used first."""
        with self._lock:
            return [model for held_by, model in self._loaded if held_by == owner]

    def load(self, owner: str, model: str, size_mb: int) -> bool:
        """Put `model` on the card, evicting `owner`'s least recently used ones as needed.

        Returns:
            Whether it had to be loaded (the caller then spends the swap time).

        Raises:
            CardOutOfMemory: It does not fit beside what other owners hold.
        """
        with self._lock:
            if (owner, model) in self._loaded:
                self._loaded.move_to_end((owner, model))
                return False
            for mine in self.loaded(owner):
                if self.free_mb >= size_mb:
                    break
                del self._loaded[owner, mine]
            if self.free_mb < size_mb:
                message = (
                    f"Allocation on device: tried to allocate {size_mb} MiB, "
                    f"{self.free_mb} MiB of {self.memory_mb} MiB are free"
                )
                self.refused.append((owner, model))
                raise CardOutOfMemory(message)
            self._loaded[owner, model] = size_mb
            self.swaps.append((owner, model))
            return True

    def unload(self, owner: str) -> None:
        """Take all of `owner`'s models off the card."""
        with self._lock:
            for model in self.loaded(owner):
                del self._loaded[owner, model]

    @contextmanager
    def generating(self, owner: str, label: str = "") -> Generator[Generation]:
        """Record that `owner` generates for as long as the block lasts."""
        with self._lock:
            entry = Generation(owner=owner, label=label, started=time.monotonic())
            self.generations.append(entry)
            self._running += 1
            self.most_at_once = max(self.most_at_once, self._running)
        try:
            yield entry
        finally:
            with self._lock:
                entry.ended = time.monotonic()
                self._running -= 1

    @property
    def running(self) -> int:
        """How many generations run now."""
        return self._running
