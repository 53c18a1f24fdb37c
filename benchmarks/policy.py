"""How well the order of waiting runs uses a card: `python -m benchmarks.policy [--width N]`.

Plays generated backlogs (Zipf over 12 checkpoints, 8 s to load one, 2 s a job) on a simulated
clock, so only the last table, how long choosing takes, depends on the machine. Columns of the
first: the best order of all (every checkpoint loaded once, no cap), the best that a beam search
over whole orders finds under the cap, ours, a simple affinity, and first in, first out.
"""

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from benchmarks.report import Figure, load
from stablequeue.worker.policy import order, pick
from stablequeue.worker.waiting import MOST_OVERTAKINGS, Card, Waiting
from tests.worker.simulation import (
    JOB_S,
    SWAP_S,
    Choose,
    Played,
    Shared,
    best_without_cap,
    fewest_swaps,
    greedy,
    in_line,
    play,
    sandbox_card,
    share,
    waiting_run,
    zipf,
)

SIZES = (60, 100, 120, 150, 200, 600)
SEEDS = 8
FIRST_SEED = 5000
"""None of the backlogs on which the policy's constants were found."""
GOAL = 0.9
MANY = 10_000
SHOWN = 200
STEADY_JOBS = 2000


@dataclass(frozen=True)
class Backlog:
    """One backlog, or means over several. Shares are of the best order's throughput."""

    jobs: int
    best_per_minute: float
    under_cap: float
    ours: float
    simple: float
    stock: float
    swaps: float
    fewest: float
    most_overtaken: int


def backlog(jobs: int, seeds: int, width: int) -> Backlog:
    """Play `seeds` backlogs of `jobs` runs; `width` is that of the beam search."""
    card = sandbox_card()
    found: list[Backlog] = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        runs = zipf(jobs, seed)
        best = best_without_cap(runs, card)
        ours, simple, stock = (play(runs, card, choose=one) for one in (pick, greedy, in_line))
        fewest = min(fewest_swaps(runs, width), ours.swaps)
        found.append(
            Backlog(
                jobs=jobs,
                best_per_minute=60 * jobs / best,
                under_cap=best / (jobs * JOB_S + fewest * SWAP_S),
                ours=best / ours.seconds,
                simple=best / simple.seconds,
                stock=best / stock.seconds,
                swaps=ours.swaps,
                fewest=fewest,
                most_overtaken=ours.most_overtaken,
            )
        )
    return _mean(found)


def _mean(found: Sequence[Backlog]) -> Backlog:
    return Backlog(
        jobs=found[0].jobs,
        best_per_minute=statistics.mean(one.best_per_minute for one in found),
        under_cap=statistics.mean(one.under_cap for one in found),
        ours=statistics.mean(one.ours for one in found),
        simple=statistics.mean(one.simple for one in found),
        stock=statistics.mean(one.stock for one in found),
        swaps=statistics.mean(one.swaps for one in found),
        fewest=statistics.mean(one.fewest for one in found),
        most_overtaken=max(one.most_overtaken for one in found),
    )


def print_backlogs(measured: Sequence[Backlog]) -> None:
    """Print the table of backlogs."""
    print(
        "| jobs | best order, jobs/min | best found under the cap | ours | simple affinity"
        " | first in, first out | ours of best under the cap | swaps: ours, fewest found"
        " | most overtakings |"
    )
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for one in measured:
        print(
            f"| {one.jobs} | {one.best_per_minute:.1f} | {one.under_cap:.2f} | {one.ours:.2f}"
            f" | {one.simple:.2f} | {one.stock:.2f} | {one.ours / one.under_cap:.2f}"
            f" | {one.swaps:.1f}, {one.fewest:.1f} | {one.most_overtaken} |",
            flush=True,
        )


def steady(rare: float, choose: Choose) -> Played:
    """Play runs that ask for one checkpoint, a part `rare` of them for one of 11 others."""
    rng, arrivals = random.Random(7), list[tuple[float, Waiting]]()
    for number in range(1, STEADY_JOBS + 1):
        other = rng.random() < rare
        name = f"model-{rng.randrange(1, 12):02}" if other else "model-00"
        arrivals.append((number * JOB_S / 0.95, waiting_run(number, name)))
    return play([], sandbox_card(), arrivals=arrivals, choose=choose)


def print_steady() -> None:
    """Print how a steady load of one checkpoint with rare others goes."""
    print("| rare others | order | jobs/min | swaps | most overtakings |")
    print("| ---: | --- | ---: | ---: | ---: |")
    orders: dict[str, Choose] = {"ours": pick, "simple": greedy, "first in, first out": in_line}
    for rare in (0.01, 0.02, 0.05):
        for name, choose in orders.items():
            played = steady(rare, choose)
            per_minute = 60 * len(played.taken) / played.seconds
            print(
                f"| {rare:.0%} | {name} | {per_minute:.1f} | {played.swaps}"
                f" | {played.most_overtaken} |"
            )


def milliseconds(rounds: int, work: Callable[[], object]) -> list[float]:
    """Return the CPU time of each round, sorted: neighbours do not count."""
    taken: list[float] = []
    for _ in range(rounds):
        begun = time.process_time()
        work()
        taken.append((time.process_time() - begun) * 1000)
    return sorted(taken)


def choosing(rounds: int) -> dict[str, list[float]]:
    """Time choosing with many runs waiting; milliseconds of CPU, sorted."""
    runs = zipf(MANY, 1)
    mixed = random.Random(1).sample(runs, len(runs))
    head = runs[0].checkpoint
    goes_on = next(run.checkpoint for run in runs if run.checkpoint != head)
    empty = sandbox_card()
    stays = replace(empty, loaded=(goes_on,))
    return {
        f"pick of {MANY:,}, sorted": milliseconds(rounds, lambda: pick(runs, stays)),
        f"pick of {MANY:,}, sorted, nothing loaded": milliseconds(
            rounds, lambda: pick(runs, empty)
        ),
        f"pick of {MANY:,}, in any order": milliseconds(rounds, lambda: pick(mixed, stays)),
        f"the first {SHOWN} of {MANY:,} in order": milliseconds(
            max(3, rounds // 5), lambda: order(runs, Card(), SHOWN)
        ),
    }


def shared_pool() -> Shared:
    """Let servers of speeds 1:3 share 60 jobs of 6 s and 2 s."""
    return share([1 / 6, 1 / 2], 60)


def figures() -> Iterator[Figure]:
    """Measure what docs/benchmarks.md shows of the order of waiting runs."""
    one = backlog(100, SEEDS, width=4)
    note = f"{one.jobs} jobs, Zipf over 12 checkpoints, 8 s swap, 2 s jobs, simulated"
    yield Figure(
        "mixed backlog: share of the best order's throughput",
        f"{one.ours:.2f} (first in, first out: {one.stock:.2f})",
        f"{GOAL}",
        note,
        load(),
    )
    yield Figure(
        "most overtakings of any run", f"{one.most_overtaken}", f"{MOST_OVERTAKINGS}", note, load()
    )
    shared = shared_pool()
    yield Figure(
        "60 jobs, two servers of speeds 1:3: the slow one's part, and the time",
        f"{shared.done[0] / 60:.0%}, {shared.seconds / shared.ideal_s:.2f} of the ideal",
        "25 % ± 5, 1.1",
        "simulated, 0.3 s to prepare a job",
        load(),
    )
    for name, taken in choosing(20).items():
        goal = "200 ms" if "first" in name else "20 ms"
        value = f"{statistics.median(taken):.1f} ms of CPU (worst {taken[-1]:.1f})"
        yield Figure(name, value, goal, "waiting runs as they stand", load())


def main() -> None:
    """Play everything and print the tables."""
    parser = argparse.ArgumentParser(description="How well the order of waiting runs is chosen.")
    parser.add_argument("--seeds", type=int, default=SEEDS, help="backlogs of each size")
    parser.add_argument("--width", type=int, default=8, help="of the search for the best order")
    options = parser.parse_args()
    print_backlogs([backlog(jobs, options.seeds, options.width) for jobs in SIZES])
    print()
    print_steady()
    shared, hasty = shared_pool(), share([1 / 6, 1 / 2], 60, careful=False)
    print()
    print("| 60 jobs, speeds 1:3 | slow one's part | of the ideal time |")
    print("| --- | ---: | ---: |")
    for name, one in (("taken ahead when nearly done", shared), ("limit 2 alone", hasty)):
        print(f"| {name} | {one.done[0] / 60:.0%} | {one.seconds / one.ideal_s:.3f} |")
    print()
    print(f"| what (load {load()}) | CPU ms, median | worst |")
    print("| --- | ---: | ---: |")
    for name, taken in choosing(40).items():
        print(f"| {name} | {statistics.median(taken):.1f} | {taken[-1]:.1f} |")


if __name__ == "__main__":
    main()
