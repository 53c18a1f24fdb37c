"""When a server takes a further job while one still runs. Pure; all durations are seconds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from stablequeue.worker.waiting import Card

PREPARE_S = 0.3
"""From taking a job until its server can begin with it, if it has not been measured."""

LEAST_LIMIT = 2
MOST_LIMIT = 4


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that a server has taken and not finished.

    Args:
        pictures: How many it makes.
        progress: The part of its generating that is done, 0 to 1; 1 while it stores.
        generating_s: Seconds since the server began to sample for it, loading left out; 0 while
            it is being prepared, waits for the card or loads.
        loading_s: Seconds of loading that are still before it.
    """

    pictures: int = 1
    progress: float = 0.0
    generating_s: float = 0.0
    loading_s: float = 0.0


def remaining_s(job: RunningJob, card: Card) -> float:
    """Return for how many seconds the card is still busy with `job`.

    By its own pace as soon as it has made some progress, else by what a picture took before.
    """
    if job.progress >= 1:
        return 0.0
    expected = job.pictures * card.picture_s
    if job.progress > 0 and job.generating_s > 0:
        return job.loading_s + job.generating_s * (1 - job.progress) / job.progress
    return job.loading_s + max(0.0, expected * (1 - job.progress) - job.generating_s)


def may_take_ahead(
    running: Sequence[RunningJob],
    card: Card,
    limit: int,
    *,
    prepare_s: float = PREPARE_S,
    shared: bool = True,
) -> bool:
    """Return whether a server may take one more job now.

    From the shared pool it takes one ahead only when all it has is done by the time the next is
    prepared: a job taken earlier would wait here while a faster card has nothing left to do.

    Args:
        running: What the server has taken and not finished.
        card: Its card.
        limit: How many it may have at once.
        prepare_s: Seconds measured from taking a job until the server can begin with it.
        shared: Whether the next job comes from a pool that other servers draw from, too; from
            its own pool the limit alone counts.
    """
    if len(running) >= limit:
        return False
    return not shared or sum(remaining_s(job, card) for job in running) <= prepare_s


def best_limit(picture_s: float, prepare_s: float, store_s: float = 0.0) -> int:
    """Return how many jobs a server should have at once so that its card never waits.

    Args:
        picture_s: Seconds a job keeps the card.
        prepare_s: Seconds from taking a job until the server can begin with it.
        store_s: Seconds from the end of its generating until its place is free again.
    """
    if picture_s <= 0:
        return MOST_LIMIT
    ahead = math.ceil((prepare_s + store_s) / picture_s)
    return min(MOST_LIMIT, max(LEAST_LIMIT, 1 + ahead))
