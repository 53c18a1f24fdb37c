"""How runs of one tier are batched by checkpoint under a cap of overtakings.

Number the runs as they stand; a run is late by its turn less its number. The runs of one tier are
late by zero on average and none by more than about the cap, so each checkpoint goes round between
"late by the cap" and "early by so much". Fewest seconds go into loading if the length of that
round is proportional to the square root of (seconds to load it / its share of the runs):
docs/decisions/0008-order-of-waiting-runs.md derives it. `Batching` estimates with these lengths
the seconds of loading still to come once some runs of one checkpoint are gone, and adds a penalty
where several checkpoints become due at once: that is what makes a plain greedy choice load a
checkpoint for every single run in the end.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, sqrt

from stablequeue.worker.waiting import MOST_OVERTAKINGS

# Found by a random search on generated backlogs (Zipf over 12 checkpoints; 100, 200, 600 runs), and
# as good on others (2, 5 and 30 checkpoints asked for alike, 24 by Zipf, 95 % of one).
ROUND = 0.8
"""The rounds used, as a part of the longest that the cap allows when nothing is random."""
NO_MORE = 1.0
"""A checkpoint's runs that stand within so many caps of each other need one more round only."""
CROWDED = 9.0
CROWDED_POWER = 1.65
CROWDED_BATCH = 0.79
"""What it costs, in swaps, that a checkpoint is due before those due earlier had their batches."""
LATE = 0.8
LATE_POWER = 2.25
"""What it costs, in swaps, that others than the latest checkpoint are late at all."""
LEAST_SWAP_S = 0.001
_LATE_COSTS = [LATE * (times / MOST_OVERTAKINGS) ** LATE_POWER for times in range(1000)]
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class Group:
    """The waiting runs of one checkpoint.

    Args:
        checkpoint: Their checkpoint.
        places: Places in line (0 is the head) of its first runs, rising.
        last: The number of its very last run: its place less the times it was overtaken.
        waiting: How many there are in all.
        swap_s: Seconds to load the checkpoint.
    """

    checkpoint: str
    places: Sequence[int]
    last: int
    waiting: int
    swap_s: float


@dataclass(frozen=True, slots=True)
class Batch:
    """The best number of runs of one checkpoint to take now.

    Args:
        runs: How many; at least one.
        cost_s: Estimated seconds of loading after them, their own checkpoint's left out.
    """

    runs: int
    cost_s: float


class Batching:
    """Estimates for one tier's line as it is now.

    Args:
        groups: The checkpoints' runs.
        overtaken: How many times each of the first runs in line was overtaken.
        waiting: How many runs the tier has.
        reach: No place beyond this may be taken: the run that stands there must not be overtaken.
    """

    def __init__(
        self, groups: Sequence[Group], overtaken: Sequence[int], waiting: int, reach: int
    ) -> None:
        self._groups, self._overtaken, self._reach = groups, overtaken, reach
        self._swaps = [max(group.swap_s, LEAST_SWAP_S) for group in groups]
        self._mean_swap = sum(self._swaps) / len(groups)
        shares = [group.waiting / waiting for group in groups]
        roots = sum(sqrt(swap * share) for swap, share in zip(self._swaps, shares, strict=True))
        scale = ROUND * 2 * MOST_OVERTAKINGS * sum(shares) / roots
        self._rounds = [
            scale * sqrt(swap / share) for swap, share in zip(self._swaps, shares, strict=True)
        ]
        self._batches = [
            max(1.0, share * length) for share, length in zip(shares, self._rounds, strict=True)
        ]
        self._heads = [group.places[0] for group in groups]
        self._late = [overtaken[place] for place in self._heads]
        self._loading = [self._loading_s(number, 0) for number in range(len(groups))]
        self._all_loading = sum(self._loading)
        self.cost_s = self._cost(self._late, 0, 0)
        """Estimated seconds of loading if none of the checkpoints is loaded."""

    def best(self, chosen: int) -> Batch | None:
        """Return the best batch of group `chosen` to take now; nothing if it is out of reach."""
        group, late = self._groups[chosen], list(self._late)
        others = [(head, other) for other, head in enumerate(self._heads) if other != chosen]
        places = group.places
        best: Batch | None = None
        for taken, place in enumerate(places, start=1):
            if place > self._reach:
                break
            for head, other in others:
                if head < place:
                    late[other] += 1
            late[chosen] = self._overtaken[places[taken]] if taken < len(places) else 0
            cost = self._cost(late, chosen, taken)
            if cost == inf and best:
                break
            if best is None or cost < best.cost_s - _EQUAL:
                best = Batch(taken, cost)
        return best

    def _loading_s(self, number: int, taken: int) -> float:
        """Return the seconds of loading a group to come once `taken` of its runs are gone."""
        group = self._groups[number]
        if taken >= group.waiting:
            return 0.0
        first = group.places[min(taken, len(group.places) - 1)]
        apart = group.last - (first - self._overtaken[first])
        rounds = max(0.0, (apart - NO_MORE * MOST_OVERTAKINGS) / self._rounds[number])
        return self._swaps[number] * (1 + rounds)

    def _cost(self, late: Sequence[int], chosen: int, taken: int) -> float:
        """Return the cost in seconds once `taken` runs of group `chosen` are gone.

        Args:
            late: For each group, how many times its first run will have been overtaken.
            chosen: A group.
            taken: How many of its runs are gone.
        """
        swaps, before = 0.0, 0.0
        latest = True
        for number in sorted(range(len(late)), key=late.__getitem__, reverse=True):
            left = self._groups[number].waiting
            if number == chosen:
                left -= taken
                if left <= 0:
                    continue
            times = late[number]
            if latest:
                if times > MOST_OVERTAKINGS:
                    return inf
                latest = False
            else:
                swaps += _LATE_COSTS[times]
                missing = before - (MOST_OVERTAKINGS - times)
                if missing > 0:
                    swaps += CROWDED * (missing / MOST_OVERTAKINGS) ** CROWDED_POWER
            before += CROWDED_BATCH * min(left, self._batches[number])
        loading = self._all_loading - self._loading[chosen] + self._loading_s(chosen, taken)
        return loading + self._mean_swap * swaps


def group_places(checkpoints: Sequence[str]) -> Mapping[str, list[int]]:
    """Return the places of each checkpoint, "" left out, in the order of their heads."""
    places: dict[str, list[int]] = {}
    for place, name in enumerate(checkpoints):
        if name in places:
            places[name].append(place)
        elif name:
            places[name] = [place]
    return places
