"""Follow the remote jobs of one job: progress for people, stalls for the pipeline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from stablequeue.engines.base import Phase, Progress
from stablequeue.errors import QueueError
from stablequeue.pipeline.job import Job, Live, logger

REPORT_EVERY_S = 2.0
"""At most one report in this time."""

SLOW_STEPS = 20
"""A stall is no progress for this many times the longest step seen, at least `stall_after_s`."""

_WORKING = {Phase.LOADING, Phase.SAMPLING, Phase.FINISHING}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a person may know of a running job now.

    Attributes:
        phase: Of the picture furthest behind that has begun.
        fraction: Of the whole job, 0 to 1; never goes back.
        picture: Which picture is being made, or was made last, from 1.
        count: How many there are to make.
        message: One line.
        preview: The newest preview, encoded, or None.
    """

    phase: Phase
    fraction: float
    picture: int
    count: int
    message: str
    preview: bytes | None = None


Report = Callable[[Snapshot], Awaitable[None]]


class StallWatch:
    """Decides when a remote job counts as stalled. Times are monotonic seconds."""

    def __init__(self, stall_after_s: float, now: float) -> None:
        self._at_least = stall_after_s
        self._moved = now
        self._longest = 0.0
        self._last: tuple[Phase, float | None, int] | None = None

    def seen(self, progress: Progress, now: float) -> None:
        """Note an observation."""
        state = (progress.phase, progress.fraction, progress.step)
        if state == self._last:
            return
        if self._last is not None and self._last[0] is progress.phase is Phase.SAMPLING:
            self._longest = max(self._longest, now - self._moved)
        self._last, self._moved = state, now

    def stalled_for(self, now: float) -> float:
        """Return the seconds without progress if that is a stall, else 0."""
        if self._last is None or self._last[0] not in _WORKING:
            return 0.0
        quiet = now - self._moved
        return quiet if quiet > max(self._at_least, SLOW_STEPS * self._longest) else 0.0


async def monitor(job: Job, report: Report, until: asyncio.Event) -> None:
    """Follow every remote job `generate` announces; report and detect stalls.

    Ends when `until` is set, with one last report: a job whose pictures are all made shows 100 %,
    however quick it was. A failing `report` is logged and tried again with the next snapshot:
    progress is decoration.
    """
    board = _Board(job)
    followers: dict[int, asyncio.Task[None]] = {}
    reporting = asyncio.create_task(_report_changes(board, report))
    following = asyncio.create_task(_follow_all(job, board, followers))
    ending = asyncio.create_task(until.wait())
    try:
        await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        tasks: list[asyncio.Task[Any]] = [following, ending, *followers.values(), reporting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _report(board, report, None)


async def _follow_all(job: Job, board: "_Board", followers: dict[int, asyncio.Task[None]]) -> None:
    while True:
        live = await job.live.get()
        if (earlier := followers.pop(live.index, None)) is not None:
            earlier.cancel()
        followers[live.index] = asyncio.create_task(_follow(job, live, board))


class _Board:
    """The newest observation of every picture, made into one snapshot."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._count = job.request.count
        self._newest: dict[int, Progress] = {}
        self._fraction = 0.0
        self._preview: bytes | None = None

    def seen(self, index: int, progress: Progress) -> None:
        self._newest[index] = progress
        self._preview = progress.preview or self._preview

    def snapshot(self) -> Snapshot | None:
        """Return what is known now; None while there is nothing to tell."""
        made, waiting_for = self._job.made, self._job.waiting_for
        under_way = {index: seen for index, seen in self._newest.items() if index not in made}
        done = len(made) + sum(
            1.0 if progress.phase is Phase.DONE else (progress.fraction or 0.0)
            for progress in under_way.values()
        )
        self._fraction = max(self._fraction, min(done / self._count, 1.0))
        if waiting_for and not self._newest:
            message = f"Waiting for {waiting_for}"
            return Snapshot(Phase.WAITING, self._fraction, 1, self._count, message)
        if not under_way:
            if not made:
                return None
            return Snapshot(Phase.DONE, self._fraction, len(made), self._count, "Made")
        index, progress = min(
            under_way.items(), key=lambda item: (item[1].phase is Phase.DONE, item[0])
        )
        return Snapshot(
            progress.phase,
            self._fraction,
            index + 1,
            self._count,
            progress.message or _words(progress),
            self._preview,
        )


def _words(progress: Progress) -> str:
    match progress.phase:
        case Phase.WAITING:
            return "Waiting for somebody else on the server"
        case Phase.QUEUED:
            ahead = f", {progress.position} ahead" if progress.position else ""
            return f"In the server's queue{ahead}"
        case Phase.LOADING:
            return "Loading the model"
        case Phase.SAMPLING:
            return f"Step {progress.step} of {progress.steps}" if progress.steps else "Sampling"
        case Phase.FINISHING:
            return "Finishing the picture"
        case Phase.DONE:
            return "Made"


async def _follow(job: Job, live: Live, board: _Board) -> None:
    watch = StallWatch(job.server.stall_after_s, time.monotonic())

    async def observe() -> None:
        last = Progress(phase=Phase.QUEUED)
        async for progress in job.engine.observe(live.ticket):
            watch.seen(progress, time.monotonic())
            board.seen(live.index, progress)
            last = progress
        board.seen(live.index, replace(last, phase=Phase.DONE, fraction=1.0, message=""))

    observing = asyncio.create_task(observe())
    try:
        while not observing.done():
            await asyncio.wait({observing}, timeout=min(5.0, job.server.stall_after_s / 4))
            if (quiet := watch.stalled_for(time.monotonic())) and not live.stalled.done():
                live.stalled.set_result(
                    f"no progress for {quiet:.0f} s; the job was given up there."
                    " Look at the server, then: stablequeue retry"
                )
                return
        try:
            observing.result()
        except QueueError as error:
            logger.warning("progress cannot be followed: %s", error)
    finally:
        observing.cancel()
        await asyncio.gather(observing, return_exceptions=True)


async def _report_changes(board: _Board, report: Report) -> None:
    last: Snapshot | None = None
    while True:
        last = await _report(board, report, last)
        await asyncio.sleep(REPORT_EVERY_S)


async def _report(board: _Board, report: Report, last: Snapshot | None) -> Snapshot | None:
    """Report what changed since `last`; return what was reported last."""
    snapshot = board.snapshot()
    if snapshot is None or snapshot == last:
        return last
    try:
        await report(snapshot)
    except QueueError as error:
        logger.info("progress not reported: %s", error)
        return last
    return snapshot
