"""What the order of waiting runs is decided from: the runs, the card, and what came of it.

Plain data without Prefect, clocks or files. Durations are measured seconds; a run's place is in
epoch seconds because it is the scheduled time that people move.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stablequeue.model_names import model_key

MOST_OVERTAKINGS = 50
"""So many runs of its tier that stood behind a run may be started before it, never more."""

SWAP_S = 8.0
"""Seconds that loading a checkpoint is taken to need until it has been measured."""

PICTURE_S = 4.0
"""Seconds that a picture is taken to need until one has been measured."""

Standing = tuple[int, bool, float, float, str]
"""Sorts runs as they stand: tier, moved to the front, place, created, run id."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A waiting flow run.

    Args:
        run_id: The flow run.
        job_id: The job it is a run of.
        tier: 0 interactive, 1 normal, 2 bulk; a lower tier always goes first.
        place: Its scheduled time in epoch seconds: what people move.
        created: Epoch seconds; breaks ties of `place`, and `run_id` those of both.
        models: What must be loaded, most expensive first: the checkpoint (or unet), then LoRAs.
            Only the first decides. Empty: it does not matter, or nobody knows.
        pictures: How many it makes.
        overtaken: How many runs that stood behind it in its tier were started before it.
        pinned: A person moved it to the front: it stands before all others of its tier and is
            taken next whatever is loaded. Several pinned runs keep the order of their places.
    """

    run_id: str
    job_id: str
    tier: int
    place: float
    created: float
    models: tuple[str, ...] = ()
    pictures: int = 1
    overtaken: int = 0
    pinned: bool = False

    @property
    def standing(self) -> Standing:
        """Sorts runs as they stand, before what is loaded is considered."""
        return (self.tier, not self.pinned, self.place, self.created, self.run_id)

    @property
    def checkpoint(self) -> str:
        """The model that is expensive to load; empty: none, or unknown."""
        return self.models[0] if self.models else ""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a server's card.

    Args:
        loaded: Checkpoints in its memory as far as known, last used first.
        holds: How many it keeps; loading one more drops the one used longest ago.
        swap_s: Seconds measured to load a checkpoint; `SWAP_S` for one never measured.
        picture_s: Seconds measured for one picture.
    """

    loaded: tuple[str, ...] = ()
    holds: int = 1
    swap_s: Mapping[str, float] = field(default_factory=dict[str, float])
    picture_s: float = PICTURE_S

    def swap(self, checkpoint: str) -> float:
        """Return the seconds that loading `checkpoint` takes, loaded or not."""
        return self.swap_s.get(checkpoint, SWAP_S)

    def used(self, checkpoint: str) -> tuple[str, ...]:
        """Return what is loaded after a run with this checkpoint ("": any)."""
        if not checkpoint:
            return self.loaded
        others = (name for name in self.loaded if name != checkpoint)
        return (checkpoint, *others)[: max(1, self.holds)]


@dataclass(frozen=True, slots=True)
class Pick:
    """The run to take next.

    Args:
        run: The chosen one.
        reason: Why, for people.
        overtakes: The ids of the runs of its tier that stand before it, as they stand; each has
            been overtaken once more when the chosen one starts.
    """

    run: Waiting
    reason: str
    overtakes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Ranked:
    """A waiting run at its real turn, and why it has that turn.

    Args:
        run: As given (its `overtaken` is today's, not what it will be by then).
        reason: For people.
        loads: Whether its checkpoint has to be loaded for it.
    """

    run: Waiting
    reason: str
    loads: bool = False


def models_of(request: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what has to be loaded for a request, the checkpoint first, by `model_key`.

    Args:
        request: As a run's parameters have it, not validated yet.
    """
    main: object = request.get("checkpoint") or request.get("unet")
    return (model_key(main),) if isinstance(main, str) and main else ()
