"""Make every picture of a job that is not made yet: submit, await, spool.

What is done stands in the catalogue and the spool, so this can be run again at any time, in any
process: a stored ticket is looked up on the server before anything is asked for again.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from stablequeue.catalogue import Attempt, AttemptState, JobState
from stablequeue.engines.base import (
    Located,
    RawResult,
    SupportsFreeMemory,
    SupportsFreeNotice,
    Ticket,
)
from stablequeue.errors import (
    EngineAuthFailed,
    EngineError,
    EngineStalled,
    EngineUnreachable,
    OutOfMemory,
    QueueError,
    Refused,
    ResultLost,
)
from stablequeue.ids import short_id
from stablequeue.pipeline.card import hold_card
from stablequeue.pipeline.job import PARKING, Job, Live, logger
from stablequeue.pipeline.spool import (
    attempt_folder,
    disk_trouble,
    prepare,
    read_result,
    write_result,
)
from stablequeue.uninterrupted import uninterrupted
from stablequeue.warm import CardHeld, given

MOST_ATTEMPTS = 4
"""New remote jobs one run may start for one picture before it gives up."""

_CANCEL_WITHIN_S = 3.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A picture that could not be made, and why."""

    index: int
    error: QueueError


async def generate(job: Job) -> list[Failure]:
    """Bring every picture of the job into the spool, holding the server's card meanwhile.

    At most `engine.depth` remote jobs of ours are on the server at once, begun in order. When a
    picture fails for good, those under way are finished and no further one is begun. One the card
    had no memory for is tried once more with everything else unloaded.

    Returns:
        The pictures that failed, if at least one other was made; empty when all are there.

    Raises:
        StoreUnavailable: What was made cannot be kept here; the tickets stay open.
        EngineAuthFailed: The server refuses our credentials.
        QueueError: The first failure, when no picture was made or when it may be tried again.
        CancelledError: After one interrupt was sent for each remote job of ours.
    """
    for index in range(job.request.count):
        if await _is_done(job, index):
            job.made.add(index)
    todo = [index for index in range(job.request.count) if index not in job.made]
    if not todo:
        return []
    async with hold_card(job) as card:
        failures = await _make_all(job, todo, card)
    engine = job.engine
    lacking = [one.error for one in failures if isinstance(one.error, OutOfMemory)]
    if lacking and len(lacking) == len(failures) and isinstance(engine, SupportsFreeMemory):
        async with hold_card(job) as card:  # it was given back with the last answer
            await _free_memory(engine, lacking[0])
            todo = [index for index in todo if index not in job.made]
            failures = await _make_all(job, todo, card)
    for failure in failures:
        if isinstance(failure.error, PARKING):
            raise failure.error
    if failures and (
        len(failures) == job.request.count or any(failure.error.retryable for failure in failures)
    ):
        raise failures[0].error
    return failures


async def _free_memory(engine: SupportsFreeMemory, error: OutOfMemory) -> None:
    """Have the server unload what it keeps of other jobs; what failed is then tried once more."""
    logger.info("%s; its memory is freed, and it is tried once more", error)
    try:
        await engine.free_memory()
    except QueueError as refused:
        logger.info("it is tried once more all the same: %s", refused)


async def _make_all(job: Job, todo: Sequence[int], card: CardHeld) -> list[Failure]:
    waiting = list(reversed(todo))
    failures: list[Failure] = []
    if hasattr(job.engine, "on_free"):  # its server works on one job of ours at a time
        engine = cast("SupportsFreeNotice", job.engine)
        engine.on_free = lambda: None if waiting else card.free()

    async def worker() -> None:
        while waiting and not failures:
            index = waiting.pop()
            try:
                await _make(job, index, lambda: None if waiting else card.nearly_done())
            except QueueError as error:
                failures.append(Failure(index, error))

    workers = [asyncio.create_task(worker()) for _ in range(min(job.engine.depth, len(todo)))]
    try:
        await asyncio.wait(workers)
    except asyncio.CancelledError:
        for task in workers:
            task.cancel()  # once: a second time would cut off the interrupt it is sending
        await uninterrupted(asyncio.wait(workers))
        raise
    for task in workers:
        task.result()
    return sorted(failures, key=lambda failure: failure.index)


async def _is_done(job: Job, index: int) -> bool:
    """Whether picture `index` is stored, or lies complete in our spool."""
    last = await job.call(lambda: job.catalogue.last_attempt(job.id, index))
    if last is None:
        return False
    if last.state is AttemptState.STORED:
        return True
    if last.state in {AttemptState.OPEN, AttemptState.CANCELLING, AttemptState.COLLECTED}:
        folder = attempt_folder(job.spool, index, last.attempt)
        if await job.call(lambda: read_result(folder)) is not None:
            if last.state is not AttemptState.COLLECTED:
                await _update(job, last, AttemptState.COLLECTED)
            return True
    return False


async def _make(job: Job, index: int, sent: Callable[[], None]) -> None:
    """Make one picture: follow the ticket there is, or begin anew.

    Args:
        job: Open and resolved.
        index: Which picture.
        sent: Called once the server has it.
    """
    begun_at = time.monotonic()
    for _ in range(MOST_ATTEMPTS):
        attempt = await job.call(lambda: job.catalogue.last_attempt(job.id, index))
        if attempt is not None and _can_be_followed(attempt):
            if (attempt.server, attempt.engine) != (job.server.alias, job.engine.app_type):
                note = f"begun on {attempt.server}, which does not do this job any more"
                await _update(job, attempt, AttemptState.GONE, note=note)
                continue
            located = await job.engine.locate(attempt.ticket)
            logger.info("picture %d attempt %d is %s", index, attempt.attempt, located.value)
            if located in {Located.GONE, Located.UNKNOWN}:
                await _give_up_ticket(job, attempt, located)
                continue
        else:
            attempt = await _begin(job, index, attempt)
        sent()
        await _collect(job, attempt, attempt.ticket)
        _tell_made(job, time.monotonic() - max(begun_at, job.made_at))
        return
    raise ResultLost(
        job.server.alias,
        f"picture {index} was lost {MOST_ATTEMPTS} times on this server; see its log",
    )


def _tell_made(job: Job, seconds: float) -> None:
    """Tell the worker what a picture took since it was sent, or since the one before it."""
    job.made_at = time.monotonic()
    warm = given.get()
    if warm is not None:
        resolution = job.resolution
        checkpoint = (resolution.checkpoint or resolution.unet) if resolution else ""
        warm.tell({"made_s": seconds, "checkpoint": checkpoint, "server": job.server.alias})


def _can_be_followed(attempt: Attempt) -> bool:
    return attempt.state in {
        AttemptState.OPEN,
        AttemptState.CANCELLING,
        AttemptState.COLLECTED,  # but its spool is on another host or gone
    }


async def _give_up_ticket(job: Job, attempt: Attempt, located: Located) -> None:
    """Close an attempt the server does not have; at most one blind repeat a picture."""
    if located is Located.UNKNOWN and attempt.repeat:
        await _update(job, attempt, AttemptState.FAILED, note="no means to look, repeated before")
        raise ResultLost(
            job.server.alias,
            "the connection was lost twice and this server gives no means to look for the"
            " result. Check its output folder, then: stablequeue retry",
        )
    note = "the server does not have it" if located is Located.GONE else "no means to look"
    await _update(job, attempt, AttemptState.GONE, note=note)


async def _begin(job: Job, index: int, last: Attempt | None) -> Attempt:
    """Commit a new ticket, then hand the job over.

    Not for a job that was cancelled meanwhile by somebody who cannot reach this process.
    """
    if (await job.call(lambda: job.catalogue.request(job.id))).state is JobState.CANCELLED:
        message = f"job {short_id(job.id)} was cancelled"
        raise Refused(message)
    repeat = last is not None and last.state is AttemptState.GONE and last.note.startswith("no m")
    attempt = await job.call(
        lambda: job.catalogue.begin_attempt(
            job.id,
            index,
            server=job.server.alias,
            engine=job.engine.app_type,
            make_ticket=lambda number: job.engine.ticket(job.engine_job(index, number)),
            repeat=repeat,
            note="automatic repeat: this server gives no means to look" if repeat else "",
        )
    )
    job.in_flight[index] = attempt
    stalled = _announce(job, index, attempt.ticket)
    try:
        ticket = await job.engine.submit(attempt.ticket, job.engine_job(index, attempt.attempt))
    except asyncio.CancelledError:
        await _cancelled(job, attempt, attempt.ticket)
        raise
    except QueueError as error:
        # EngineUnreachable too: an engine says so here only if the server did not take the job.
        await _update(job, attempt, AttemptState.FAILED, note=str(error))
        job.in_flight.pop(index, None)
        raise
    finally:
        stalled.cancel()
    if ticket != attempt.ticket:
        await _update(job, attempt, AttemptState.OPEN, ticket=ticket)
        attempt = replace(attempt, ticket=ticket)
    return attempt


def _announce(job: Job, index: int, ticket: Ticket) -> "asyncio.Future[str]":
    """Let `monitor` follow this ticket; the future gets the reason if it stalls."""
    stalled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    job.live.put_nowait(Live(index=index, ticket=ticket, stalled=stalled))
    return stalled


async def _collect(job: Job, attempt: Attempt, ticket: Ticket) -> None:
    """Await the end and spool what was made; a stall ends the wait."""
    index = attempt.index
    job.in_flight[index] = attempt
    folder = attempt_folder(job.spool, index, attempt.attempt)
    stalled = _announce(job, index, ticket)
    await job.call(lambda: prepare(folder))
    collecting = asyncio.ensure_future(job.engine.collect(ticket, folder))
    try:
        await asyncio.wait({collecting, stalled}, return_when=asyncio.FIRST_COMPLETED)
        if not collecting.done():
            collecting.cancel()
            await asyncio.gather(collecting, return_exceptions=True)
            await _interrupt(job, attempt, ticket)
            raise EngineStalled(job.server.alias, stalled.result())
        result = collecting.result()
        await _spooled(job, attempt, result, folder)
    except asyncio.CancelledError:
        collecting.cancel()
        await asyncio.gather(collecting, return_exceptions=True)
        await _cancelled(job, attempt, ticket)
        raise
    except OSError as error:
        raise disk_trouble(error) from error
    except (EngineUnreachable, EngineAuthFailed):
        raise  # the ticket stays open: the next try looks for it
    except EngineError as error:
        await _update(job, attempt, AttemptState.FAILED, note=str(error), error=error.code)
        raise
    finally:
        stalled.cancel()
        job.in_flight.pop(index, None)


async def _spooled(job: Job, attempt: Attempt, result: RawResult, folder: Path) -> None:
    await job.call(lambda: write_result(folder, result))
    await _update(job, attempt, AttemptState.COLLECTED)
    job.made.add(attempt.index)


async def _update(
    job: Job,
    attempt: Attempt,
    state: AttemptState,
    *,
    ticket: Ticket | None = None,
    note: str | None = None,
    error: str | None = None,
) -> None:
    await job.call(
        lambda: job.catalogue.update_attempt(
            attempt.id, state, ticket=ticket, note=note, error=error
        )
    )


async def _cancelled(job: Job, attempt: Attempt, ticket: Ticket) -> None:
    """Our task is cancelled: interrupt the remote job, unless only this process ends.

    Then the job does not end, and its ticket stays open.
    """

    async def ask() -> None:
        if await job.wants_interrupt():
            await _interrupt(job, attempt, ticket)

    await uninterrupted(ask())


async def _interrupt(job: Job, attempt: Attempt, ticket: Ticket) -> None:
    """Ask the server once to stop this job; what stays uncertain is settled from the ticket."""
    await _update(job, attempt, AttemptState.CANCELLING)
    try:
        async with asyncio.timeout(_CANCEL_WITHIN_S):
            certain = await job.engine.cancel(ticket)
    except (QueueError, TimeoutError) as error:
        logger.warning("interrupt not confirmed yet: %s", error)
        certain = False
    if certain:
        await _update(job, attempt, AttemptState.CANCELLED)
    else:
        job.unsettled = True
