"""Which waiting run a server takes next. Pure: the same arguments give the same answer.

Tiers come strictly before one another. Within a tier, runs that a person moved to the front go
first, then runs are taken as they stand, except that runs of one checkpoint are taken together:
they overtake others, each of which at most `MOST_OVERTAKINGS` times. Runs of one checkpoint keep
their order. How far is gone on a checkpoint and which one comes next: `batching`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf
from operator import attrgetter

from stablequeue.worker.batching import Batching, Group, group_places
from stablequeue.worker.waiting import MOST_OVERTAKINGS, Card, Pick, Ranked, Waiting

WINDOW = 500
"""Only so many runs at the head of a tier are candidates."""
MOST_GROUPS = 24
"""Only so many checkpoints are weighed: those loaded, and those whose heads stand first."""
EVICTED = 0.5
"""What dropping a checkpoint that runs still wait for costs, as a part of loading it."""
_EQUAL = 1e-9


def pick(waiting: Iterable[Waiting], card: Card) -> Pick | None:
    """Return the run that a server with this card takes next.

    The caller raises `overtaken` of every run in `Pick.overtakes` by one when the run has started.

    Args:
        waiting: Runs this server can take, in any order; sorted as they stand is fastest.
        card: Its card.

    Returns:
        The choice; nothing if nothing waits.
    """
    runs = list(waiting)
    if not runs:
        return None
    tier = min(map(attrgetter("tier"), runs))
    line = _Line(_sorted(run for run in runs if run.tier == tier))
    choice = line.choose(card)
    overtakes = tuple(run.run_id for run in line.runs[: choice.place])
    return Pick(line.runs[choice.place], choice.reason, overtakes)


def order(waiting: Iterable[Waiting], card: Card, limit: int | None = None) -> list[Ranked]:
    """Return the runs in the order in which this card alone would take them.

    It is what repeated calls of `pick` give if nothing arrives or moves.

    Args:
        waiting: Runs this server can take, in any order.
        card: Its card.
        limit: Only the first so many; all of them if not given.
    """
    tiers: dict[int, list[Waiting]] = {}
    for run in waiting:
        tiers.setdefault(run.tier, []).append(run)
    ranked: list[Ranked] = []
    for tier in sorted(tiers):
        line = _Line(_sorted(tiers[tier]))
        while line.runs and (limit is None or len(ranked) < limit):
            choice = line.choose(card)
            run = line.take(choice.place)
            loads = bool(run.checkpoint) and run.checkpoint not in card.loaded
            ranked.append(Ranked(run, choice.reason, loads))
            card = replace(card, loaded=card.used(run.checkpoint))
    return ranked


@dataclass(frozen=True, slots=True)
class _Choice:
    place: int
    reason: str


class _Line:
    """The runs of one tier.

    Args:
        runs: Sorted as they stand.
    """

    def __init__(self, runs: list[Waiting]) -> None:
        self.runs = runs
        self._checkpoints = [run.models[0] if run.models else "" for run in runs]
        self._overtaken = [run.overtaken for run in runs]
        self._counts = Counter(self._checkpoints)
        self._lasts = {name: place for place, name in enumerate(self._checkpoints)}
        for name, place in self._lasts.items():
            self._lasts[name] = place - self._overtaken[place]
        self._taken = 0

    def take(self, place: int) -> Waiting:
        """Remove the run at `place`; those before it have been overtaken once more."""
        self._overtaken[:place] = [times + 1 for times in self._overtaken[:place]]
        del self._overtaken[place]
        self._counts[self._checkpoints.pop(place)] -= 1
        self._taken += 1
        return self.runs.pop(place)

    def choose(self, card: Card) -> _Choice:
        """Return which place is next, and why."""
        if self.runs[0].pinned:
            return _Choice(0, "moved to the front")
        head = self._checkpoints[0]
        if not head or head in card.loaded:
            return _Choice(0, "next in line")
        checkpoints, overtaken = self._checkpoints[:WINDOW], self._overtaken[:WINDOW]
        reach = next(
            (place for place, times in enumerate(overtaken) if times >= MOST_OVERTAKINGS),
            len(overtaken) - 1,
        )
        if "" in checkpoints[: reach + 1]:
            place = checkpoints.index("")  # so many started before it as stood before it: its turn
            if place <= overtaken[place]:
                return _Choice(place, "next in line, and needs no checkpoint")
        groups = self._groups(checkpoints, card)
        batching = Batching(groups, overtaken, len(self.runs), reach)
        for number in _by_use(groups, card):
            batch = batching.best(number)
            if batch and batch.cost_s <= batching.cost_s + _EQUAL:
                return _Choice(groups[number].places[0], "its checkpoint is loaded")
        return self._swap(groups, batching, card)

    def _swap(self, groups: Sequence[Group], batching: Batching, card: Card) -> _Choice:
        """Choose which checkpoint comes next when going on with those loaded does not pay."""
        best, best_cost, size = 0, inf, 0
        for number, group in enumerate(groups):
            if batch := batching.best(number):
                cost = batch.cost_s + self._swap_cost(group.checkpoint, card)
                if not size or cost < best_cost - _EQUAL:
                    best, best_cost, size = number, cost, batch.runs
        return self._because(groups[best], size, card)

    def _groups(self, checkpoints: Sequence[str], card: Card) -> list[Group]:
        groups: list[Group] = []
        for name, places in group_places(checkpoints).items():
            if len(groups) < MOST_GROUPS or name in card.loaded:
                last = self._lasts[name] - self._taken
                groups.append(Group(name, places, last, self._counts[name], card.swap(name)))
        return groups

    def _swap_cost(self, name: str, card: Card) -> float:
        """Return the seconds that loading `name` costs now and, by what it evicts, later."""
        if name in card.loaded:
            return 0.0
        evicted = card.loaded[max(1, card.holds) - 1 :]
        needed = (card.swap(other) for other in evicted if self._counts[other])
        return card.swap(name) + EVICTED * sum(needed)

    def _because(self, group: Group, size: int, card: Card) -> _Choice:
        place, name = group.places[0], group.checkpoint
        if name in card.loaded:
            reason = "its checkpoint is loaded"
        elif self._overtaken[place] >= MOST_OVERTAKINGS:
            reason = f"has been overtaken {MOST_OVERTAKINGS} times"
        elif size > 1:
            reason = f"{size} runs wait for {name} to be loaded once"
        else:
            reason = f"{name} is best loaded now" if place else "next in line"
        return _Choice(place, reason)


def _by_use(groups: Sequence[Group], card: Card) -> list[int]:
    """Return which groups' checkpoints are loaded, last used first."""
    numbers = {group.checkpoint: number for number, group in enumerate(groups)}
    return [numbers[name] for name in card.loaded if name in numbers]


def _sorted(runs: Iterable[Waiting]) -> list[Waiting]:
    """Return the runs of one tier as they stand."""
    by_place = sorted(runs, key=attrgetter("place", "created", "run_id"))
    return sorted(by_place, key=attrgetter("pinned"), reverse=True)
