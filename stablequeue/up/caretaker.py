"""What must happen although no run is there to do it.

Accepted jobs that have no run are sent; jobs whose run ended without our flow (crashed, cancelled
while waiting, deleted in Prefect's UI) get their outcome; remote jobs of cancelled jobs are
stopped until the server confirms it; jobs for any server go on as soon as one is not parked, and
those that wait for a download once it is over. Every
step may be repeated, and a fault of one is logged and left to the next round.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

from filelock import FileLock, Timeout

from stablequeue.catalogue import (
    Attempt,
    AttemptState,
    Catalogue,
    JobState,
    Outcome,
    StoredRequest,
)
from stablequeue.engines import open_engine
from stablequeue.engines.base import Located
from stablequeue.errors import NotFound, QueueError
from stablequeue.fetches import wake_left
from stablequeue.pipeline.resolve import EVERY_PARKED
from stablequeue.prefect_api import PrefectApi, Run, StateType, run_filter
from stablequeue.sending import AT_ONCE, send_many
from stablequeue.server_blocks import saved_server, saved_servers
from stablequeue.servers import ANY

logger = logging.getLogger("stablequeue.caretaker")

EVERY_S = 3.0
UNSENT_AFTER_S = 3.0
_LOOK_EVERY_ROUNDS = 4
_BATCH = 200
_SETTLE_WITHIN_S = 20.0
_GRACE = timedelta(seconds=20)

_ENDINGS = {
    StateType.COMPLETED: JobState.COMPLETED,
    StateType.FAILED: JobState.FAILED,
    StateType.CANCELLED: JobState.CANCELLED,
    StateType.CRASHED: JobState.CRASHED,
}
_ADVICE = {
    JobState.CRASHED: "Its process died. Go on from where it was with: stablequeue retry",
    JobState.FAILED: "Its log says why: stablequeue show -v",
}


class Caretaker:
    """Runs beside the workers in `stablequeue up`; one for an installation is enough.

    Args:
        catalogue: Of the installation.
        api: Prefect's API.
        lock: Lock file of those who send many jobs: nothing is sent while somebody else does.
    """

    def __init__(self, catalogue: Catalogue, api: PrefectApi, lock: Path | None = None) -> None:
        self._catalogue = catalogue
        self._api = api
        self._lock = lock
        self._round = 0
        self._told: set[str] = set()

    async def run(self) -> None:
        """Do everything again and again until cancelled; sending many jobs delays nothing else."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._again(self.send_accepted))
            group.create_task(
                self._again(
                    self.note_endings,
                    self.settle_cancelled,
                    self.resume_any,
                    self.wake_waiting,
                    self._count,
                )
            )

    async def _again(self, *steps: Callable[[], Awaitable[None]]) -> None:
        while True:
            for step in steps:
                try:
                    await step()
                except QueueError as error:
                    logger.warning("%s: %s", step.__name__.replace("_", " "), error)
            await asyncio.sleep(EVERY_S)

    async def _count(self) -> None:
        self._round += 1

    async def send_accepted(self) -> None:
        """Create the runs of jobs that were accepted but not sent, a hundred at a time."""
        last: int | None = 0
        while last is not None:
            last = await asyncio.to_thread(self._send_some, last)

    def _send_some(self, after: int) -> int | None:
        """Send up to a hundred jobs; return the last one's row, None when there are no more."""
        waiting = self._catalogue.unsent(older_than_s=UNSENT_AFTER_S, limit=AT_ONCE, after=after)
        if not waiting:
            return None
        try:
            with self._alone():
                # Whoever sent until now may have sent these.
                now = self._catalogue.requests_by_id(stored.job_id for stored in waiting)
                left = [row for row in now.values() if row.state is JobState.ACCEPTED]
                left.sort(key=lambda row: row.id)
                refused = send_many(left, api=self._api, catalogue=self._catalogue)
        except Timeout:
            return None
        for stored in left:
            if stored.job_id not in refused:
                logger.info("sent %s", stored.job_id)
        self._tell({stored.job_id: stored.deployment for stored in left}, refused)
        return waiting[-1].id

    def _alone(self) -> AbstractContextManager[object]:
        return FileLock(self._lock, timeout=0) if self._lock else nullcontext()

    def _tell(self, deployments: Mapping[str, str], refused: Mapping[str, QueueError]) -> None:
        """Say once why jobs cannot be sent: the same line every few seconds helps nobody."""
        missing: dict[str, list[str]] = {}
        for job_id, error in refused.items():
            if isinstance(error, NotFound):
                missing.setdefault(deployments[job_id], []).append(str(error))
            elif job_id not in self._told:
                self._told.add(job_id)
                logger.warning("%s cannot be sent yet: %s", job_id, error)
        for deployment, reasons in missing.items():
            if deployment not in self._told:
                self._told.add(deployment)
                logger.warning(
                    "jobs of %s cannot be sent yet (%d now): %s",
                    deployment,
                    len(reasons),
                    reasons[0],
                )

    async def note_endings(self) -> None:
        """Write the outcome of jobs whose run ended without our flow saying how."""
        if self._round % _LOOK_EVERY_ROUNDS:
            return
        live = await asyncio.to_thread(self._live)
        for batch in _batches(live, _BATCH):
            runs = await asyncio.to_thread(self._runs, batch)
            for stored in batch:
                await self._note(stored, runs.get(stored.flow_run_id))

    def _runs(self, batch: Sequence[StoredRequest]) -> dict[str, Run]:
        wanted = run_filter(ids=[stored.flow_run_id for stored in batch])
        return {run.id: run for run in self._api.runs(wanted)}

    def _live(self) -> list[StoredRequest]:
        found: list[StoredRequest] = []
        before: int | None = None
        while True:
            page = self._catalogue.requests(
                states={JobState.SENT, JobState.STARTED}, limit=_BATCH, before=before
            )
            found += [stored for stored in page if stored.flow_run_id]
            if len(page) < _BATCH:
                return found
            before = page[-1].id

    async def _note(self, stored: StoredRequest, run: Run | None) -> None:
        if run is None:
            state, message = JobState.CANCELLED, "its run was deleted in Prefect"
        elif run.final:
            if run.ended is not None and datetime.now(UTC) - run.ended < _GRACE:
                return  # its flow may be writing the outcome right now
            state, message = _ENDINGS[run.state_type], run.state_message or run.state_name
        else:
            return
        outcome = Outcome(state=state, message=message, advice=_ADVICE.get(state, ""))
        await asyncio.to_thread(self._catalogue.finish, stored.job_id, outcome)
        logger.info("%s ended: %s (%s)", stored.job_id, state.value, message)
        if state is JobState.CANCELLED:
            attempts = await asyncio.to_thread(self._catalogue.attempts, stored.job_id)
            for attempt in attempts:
                if attempt.state is AttemptState.OPEN:
                    await self._update(attempt, AttemptState.CANCELLING)

    async def settle_cancelled(self) -> None:
        """Stop the remote jobs of cancelled jobs until their servers confirm it."""
        attempts = await asyncio.to_thread(
            lambda: self._catalogue.open_attempts(states={AttemptState.CANCELLING})
        )
        for server in sorted({attempt.server for attempt in attempts}):
            theirs = [attempt for attempt in attempts if attempt.server == server]
            try:
                async with asyncio.timeout(_SETTLE_WITHIN_S):
                    await self._settle(server, theirs)
            except NotFound as error:
                for attempt in theirs:
                    await self._update(attempt, AttemptState.CANCELLED, note=str(error))
            except (QueueError, TimeoutError) as error:
                logger.info("%s does not confirm a cancel yet: %s", server, error)

    async def resume_any(self) -> None:
        """Let the jobs for any server go on once one of the servers is not parked any more."""
        parked = await asyncio.to_thread(self._catalogue.parked)
        if ANY not in parked or EVERY_PARKED not in parked[ANY].reason:
            return
        saved = await asyncio.to_thread(saved_servers, self._api)
        if all(server.alias in parked for server in saved):
            return
        await asyncio.to_thread(self._api.resume_pool, ANY)
        await asyncio.to_thread(self._catalogue.unpark, ANY)
        logger.info("jobs for any server go on")

    async def wake_waiting(self) -> None:
        """Let jobs go on whose download ended, was cancelled or deleted without telling them."""
        if self._round % _LOOK_EVERY_ROUNDS == 0:
            woken = await asyncio.to_thread(wake_left, self._api)
            if woken:
                logger.info("%d jobs waited for downloads that are over", woken)

    async def _settle(self, server: str, attempts: Iterable[Attempt]) -> None:
        config = await asyncio.to_thread(saved_server, self._api, server)
        async with open_engine(config) as engine:
            for attempt in attempts:
                stored = await asyncio.to_thread(self._catalogue.request, attempt.job_id)
                if stored.state in {JobState.SENT, JobState.STARTED, JobState.ACCEPTED}:
                    continue  # it is being retried: its run follows this ticket itself
                located = await engine.locate(attempt.ticket)
                over = located in {Located.DONE, Located.GONE}
                if not over and not await engine.cancel(attempt.ticket):
                    continue
                await self._update(attempt, AttemptState.CANCELLED)
                logger.info("%s confirms that %s is stopped", server, attempt.job_id)

    async def _update(
        self, attempt: Attempt, state: AttemptState, *, note: str | None = None
    ) -> None:
        await asyncio.to_thread(
            lambda: self._catalogue.update_attempt(attempt.id, state, note=note)
        )


def _batches(items: Sequence[StoredRequest], size: int) -> Iterable[Sequence[StoredRequest]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
