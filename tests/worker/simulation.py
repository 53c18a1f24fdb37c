"""A simulated clock that plays generated backlogs and arrivals through the scheduling policy."""

from __future__ import annotations

import random
from bisect import insort
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from heapq import nsmallest

from stablequeue.worker.ahead import RunningJob, may_take_ahead
from stablequeue.worker.batching import Batching, Group, group_places
from stablequeue.worker.policy import WINDOW, pick
from stablequeue.worker.waiting import MOST_OVERTAKINGS, Card, Pick, Waiting

CHECKPOINTS = 12
SWAP_S = 8.0
JOB_S = 2.0

Choose = Callable[[Sequence[Waiting], Card], Pick | None]


def waiting_run(number: int, checkpoint: str = "", *, tier: int = 1, place: float = 0) -> Waiting:
    """Return a run; those with higher numbers stand later unless `place` says otherwise."""
    return Waiting(
        run_id=f"run-{number:05}",
        job_id=f"job-{number:05}",
        tier=tier,
        place=place or float(number),
        created=float(number),
        models=(checkpoint,) if checkpoint else (),
    )


def zipf(jobs: int, seed: int, checkpoints: int = CHECKPOINTS) -> list[Waiting]:
    """Return a backlog in which checkpoint k is asked for in proportion to 1/k."""
    rng = random.Random(seed)
    weights = [1 / rank for rank in range(1, checkpoints + 1)]
    chosen = rng.choices(range(checkpoints), weights=weights, k=jobs)
    return [waiting_run(number, f"model-{name:02}") for number, name in enumerate(chosen)]


def sandbox_card(holds: int = 1) -> Card:
    """Return an empty card that needs `JOB_S` a picture and `SWAP_S` for every checkpoint."""
    swaps = {f"model-{name:02}": SWAP_S for name in range(100)}
    return Card(holds=holds, swap_s=swaps, picture_s=JOB_S)


@dataclass
class Played:
    """What came of it.

    Args:
        taken: The runs in the order in which they started, with their final `overtaken`.
        seconds: Until the last ended; waiting for arrivals included.
        busy_s: Seconds in which the card generated.
        swaps: How many checkpoints were loaded.
    """

    taken: list[Waiting] = field(default_factory=list[Waiting])
    seconds: float = 0.0
    busy_s: float = 0.0
    swaps: int = 0

    @property
    def most_overtaken(self) -> int:
        """The most overtakings any run suffered."""
        return max((run.overtaken for run in self.taken), default=0)


def play(
    runs: Sequence[Waiting],
    card: Card,
    *,
    arrivals: Sequence[tuple[float, Waiting]] = (),
    choose: Choose = pick,
) -> Played:
    """Take runs one after the other until none is left.

    Overtakings are counted by their definition and compared with what the policy says.

    Args:
        runs: What waits at second 0.
        card: The card, as it is at second 0.
        arrivals: Further runs, each with its second, rising.
        choose: The policy.
    """
    line = sorted(runs, key=lambda run: run.standing)
    coming = list(arrivals)[::-1]
    played, loaded = Played(), list(card.loaded)
    while line or coming:
        if not line:
            played.seconds = max(played.seconds, coming[-1][0])
        while coming and coming[-1][0] <= played.seconds:
            insort(line, coming.pop()[1], key=lambda run: run.standing)
        picked = choose(line, replace(card, loaded=tuple(loaded)))
        assert picked is not None
        at = line.index(picked.run)
        overtaken = {run.run_id for run in line[:at] if run.tier == picked.run.tier}
        assert overtaken == set(picked.overtakes)
        line[:at] = [
            replace(run, overtaken=run.overtaken + 1) if run.run_id in overtaken else run
            for run in line[:at]
        ]
        del line[at]
        played.taken.append(picked.run)
        name = picked.run.checkpoint
        if name and name not in loaded:
            played.swaps += 1
            played.seconds += card.swap(name)
        if name:
            loaded = [name, *(other for other in loaded if other != name)][: card.holds]
        played.seconds += picked.run.pictures * card.picture_s
        played.busy_s += picked.run.pictures * card.picture_s
    return played


def in_line(runs: Sequence[Waiting], card: Card) -> Pick | None:
    """Choose as stock queues do: first in, first out."""
    del card
    return Pick(min(runs, key=lambda run: run.standing), "") if runs else None


def greedy(runs: Sequence[Waiting], card: Card) -> Pick | None:
    """Choose as a simple affinity does: stay on the loaded checkpoint while the cap allows."""
    line = sorted(runs, key=lambda run: run.standing)
    for place, run in enumerate(line):
        if run.checkpoint in card.loaded:
            return Pick(run, "", tuple(other.run_id for other in line[:place]))
        if run.overtaken >= MOST_OVERTAKINGS:
            break
    return in_line(runs, card)


def best_without_cap(runs: Sequence[Waiting], card: Card) -> float:
    """Return the seconds of the best order of all: every checkpoint is loaded once."""
    names = {run.checkpoint for run in runs} - {""} - set(card.loaded)
    pictures = sum(run.pictures for run in runs)
    return pictures * card.picture_s + sum(card.swap(name) for name in names)


@dataclass(frozen=True)
class _Branch:
    """A part of an order: what is still in line, and how often each was overtaken."""

    names: list[str]
    overtaken: list[int]


def fewest_swaps(runs: Sequence[Waiting], width: int = 16) -> int:
    """Return the fewest swaps under the cap that a search over whole orders finds.

    A beam search over which checkpoint is loaded next, each time keeping the `width` most
    promising beginnings; not proven to be the fewest. All of one tier, one checkpoint on the card.
    """
    line = sorted(runs, key=lambda run: run.standing)
    branches = [_Branch([run.checkpoint for run in line], [run.overtaken for run in line])]
    swaps = 0
    while True:
        swaps += 1
        grown: list[tuple[float, int, _Branch]] = []
        for branch in branches:
            for cost, after in _loads(branch):
                if not after.names:
                    return swaps
                grown.append((cost, len(grown), after))
        branches = [branch for _, _, branch in nsmallest(width, grown)]


def _loads(branch: _Branch) -> list[tuple[float, _Branch]]:
    counts = Counter(branch.names)
    lasts = {name: place for place, name in enumerate(branch.names)}
    groups = [
        Group(name, places, lasts[name] - branch.overtaken[lasts[name]], counts[name], SWAP_S)
        for name, places in group_places(branch.names[:WINDOW]).items()
    ]
    blocked = (place for place, n in enumerate(branch.overtaken) if n >= MOST_OVERTAKINGS)
    reach = next(blocked, len(branch.names) - 1)
    batching = Batching(groups, branch.overtaken, len(branch.names), reach)
    found: list[tuple[float, _Branch]] = []
    for number, group in enumerate(groups):
        batch = batching.best(number)
        if batch is None:
            continue
        gone = set(group.places[: batch.runs])
        names = [name for place, name in enumerate(branch.names) if place not in gone]
        left: list[int] = []
        behind = batch.runs
        for place, times in enumerate(branch.overtaken):
            if place in gone:
                behind -= 1
            else:
                left.append(times + behind)
        found.append((batch.cost_s, _Branch(names, left)))
    return found


@dataclass
class _Server:
    picture_s: float
    limit: int
    prepared: list[float] = field(default_factory=list[float])
    """When each job that it has taken and not finished is ready to begin, in order."""
    begun: float | None = None
    done: int = 0

    def running(self, now: float) -> list[RunningJob]:
        jobs = [RunningJob() for _ in self.prepared]
        if self.begun is not None:
            spent = now - self.begun
            jobs[0] = RunningJob(progress=min(1.0, spent / self.picture_s), generating_s=spent)
        return jobs

    def advance(self, now: float) -> None:
        if self.begun is not None and now >= self.begun + self.picture_s - 1e-9:
            self.begun, self.done = None, self.done + 1
            self.prepared.pop(0)
        if self.begun is None and self.prepared and self.prepared[0] <= now + 1e-9:
            self.begun = now


@dataclass(frozen=True)
class Shared:
    """How two or more servers shared a pool.

    Args:
        done: How many jobs each did.
        seconds: Until the last ended.
        ideal_s: The same if work could be divided at will and nothing had to be prepared.
    """

    done: list[int]
    seconds: float
    ideal_s: float


def share(
    speeds: Sequence[float],
    jobs: int,
    *,
    limit: int = 2,
    prepare_s: float = 0.3,
    careful: bool = True,
) -> Shared:
    """Let servers draw from one shared pool until it is empty.

    Args:
        speeds: Jobs a second of each server.
        jobs: How many wait.
        limit: How many jobs each server may have at once.
        prepare_s: From taking a job until its server can begin with it.
        careful: Whether a server asks `may_take_ahead` as for a shared pool.
    """
    step, tick = 0.01, 0
    servers = [_Server(1 / speed, limit) for speed in speeds]
    waiting = jobs
    while sum(server.done for server in servers) < jobs:
        tick += 1
        now = tick * step
        for server in servers:
            server.advance(now)
            card = Card(picture_s=server.picture_s)
            while waiting and may_take_ahead(
                server.running(now), card, limit, prepare_s=prepare_s, shared=careful
            ):
                waiting -= 1
                server.prepared.append(now + prepare_s)
    return Shared([server.done for server in servers], tick * step, jobs / sum(speeds))
