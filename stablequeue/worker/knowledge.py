"""What the host knows of each server: its pool, what runs there, what was measured, its health."""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydantic import NonNegativeFloat, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from stablequeue.servers import ServerConfig
from stablequeue.views import TIERS
from stablequeue.worker.ahead import PREPARE_S, RunningJob, best_limit
from stablequeue.worker.waiting import PICTURE_S, Card

_WEIGHT = 0.3
"""Of the newest measurement in a running mean."""

DEFAULT_LIMIT = 4

FORGOTTEN_AFTER_S = 20.0
"""When nothing listens at a server's address for so long, its jobs for any server go elsewhere."""


class _Learned(TypedDict):
    loaded: tuple[str, ...]
    swap_s: dict[str, NonNegativeFloat]
    picture_s: NonNegativeFloat


_LEARNED = TypeAdapter(_Learned)


@dataclass(slots=True)
class PoolState:
    """A work pool as Prefect has it.

    Attributes:
        limit: Of active runs; None: none set.
        stopped_tiers: Names of its paused queues.
    """

    id: str
    name: str
    paused: bool = False
    limit: int | None = None
    stopped_tiers: frozenset[str] = frozenset()

    def stops(self, tier: int) -> bool:
        """Whether the queue of a tier, by its place in `views.TIERS`, is paused."""
        return TIERS[tier] in self.stopped_tiers


@dataclass(slots=True)
class Taken:
    """A run a server has taken and not finished."""

    run_id: str
    job_id: str
    pool: str
    checkpoint: str
    pictures: int = 1
    taken_at: float = field(default_factory=time.monotonic)
    granted_at: float = 0.0
    released: bool = False
    progress: float = 0.0


@dataclass(slots=True)
class ServerState:
    """One generation server.

    Attributes:
        config: As saved.
        taken: Its runs, by flow run id.
        loaded: Checkpoints last used there, newest first.
        quarantined: Why it gets nothing now; empty: it does.
        faults: Failures in a row that speak against the server.
        silent_since: Since when (monotonic seconds) nothing has listened at its address; 0:
            something does, or nobody knows.
    """

    config: ServerConfig
    taken: dict[str, Taken] = field(default_factory=dict[str, Taken])
    loaded: tuple[str, ...] = ()
    swap_s: dict[str, float] = field(default_factory=dict[str, float])
    picture_s: float = 0.0
    prepare_s: float = PREPARE_S
    quarantined: str = ""
    faults: int = 0
    silent_since: float = 0.0

    @property
    def alias(self) -> str:
        """Its name, and that of its pool."""
        return self.config.alias

    @property
    def has_forgotten(self) -> bool:
        """Whether its process ended so long ago that nobody waits for what it was doing."""
        return bool(self.silent_since) and time.monotonic() - self.silent_since >= FORGOTTEN_AFTER_S

    @property
    def card(self) -> Card:
        """What the policy is told of its card."""
        return Card(loaded=self.loaded, swap_s=self.swap_s, picture_s=self.picture_s or PICTURE_S)

    def limit(self, pool: PoolState) -> int:
        """Return how many runs it may have at once: as the pool says, and no more than pays."""
        most = DEFAULT_LIMIT if pool.limit is None else pool.limit
        return min(most, best_limit(self.picture_s or PICTURE_S, self.prepare_s + _STORE_S))

    def running(self, now: float) -> list[RunningJob]:
        """Return what it has taken, as the policy wants it."""
        return [
            RunningJob(
                pictures=job.pictures,
                progress=1.0 if job.released else job.progress,
                generating_s=now - job.granted_at if job.granted_at and not job.released else 0.0,
            )
            for job in self.taken.values()
        ]

    def used(self, checkpoint: str) -> None:
        """Note that a checkpoint is in its memory now."""
        self.loaded = self.card.used(checkpoint)

    def measured(self, checkpoint: str, seconds: float) -> None:
        """Learn from one picture: what it took, and what loading took if it was loaded for it."""
        if not checkpoint or checkpoint in self.loaded[:1]:
            self.picture_s = _mean(self.picture_s, seconds)
        elif self.picture_s:
            before = self.swap_s.get(checkpoint, 0.0)
            self.swap_s[checkpoint] = _mean(before, max(0.0, seconds - self.picture_s))
        if checkpoint:
            self.used(checkpoint)

    def to_json(self) -> dict[str, Any]:
        """Return what other processes may read of it."""
        return {
            "loaded": list(self.loaded),
            "holds": self.card.holds,
            "swap_s": {name: round(seconds, 3) for name, seconds in self.swap_s.items()},
            "picture_s": round(self.picture_s, 3),
            "quarantined": self.quarantined,
            "running": sorted(self.taken),
        }

    def recall(self, data: Mapping[str, Any]) -> None:
        """Take over what an earlier host had learned; nonsense is left out."""
        with suppress(ValidationError):
            learned = _LEARNED.validate_python(data)
            self.loaded = learned["loaded"]
            self.swap_s = learned["swap_s"]
            self.picture_s = learned["picture_s"]


_STORE_S = 0.4
"""From the end of generating until a run's place is free, on a small machine."""


def _mean(before: float, now: float) -> float:
    return now if not before else before + _WEIGHT * (now - before)
