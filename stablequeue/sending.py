"""Give accepted jobs their flow runs in Prefect; safe to repeat, from several processes at once."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stablequeue.catalogue import ENDED, Catalogue, JobState, StoredRequest
from stablequeue.errors import NotFound, PrefectError, PrefectRefused, QueueError, Refused
from stablequeue.ids import run_name
from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType, run_filter
from stablequeue.prefect_api.parallel import each
from stablequeue.request import GenerationRequest
from stablequeue.views import JOB_TAG, due

MOST_RUNS = 1000
"""Runs one job may have had, each after the one before had ended."""

AT_ONCE = 50
"""Jobs in one call. Prefect takes 100, no faster, and writes nothing else to SQLite meanwhile."""

_LOOKED_UP = 200
_GAP_S = 0.05
"""Between calls, so that others who write to Prefect's database get their turn."""

_TRIES = 3


OnSent = Callable[[int], None]
"""Told how many more jobs were settled: sent, or found not to be wanted any more."""


def send(
    stored: StoredRequest,
    *,
    api: PrefectApi,
    catalogue: Catalogue,
    target: Deployment | None = None,
) -> str:
    """Create the job's flow run, or find the one it has, and record it.

    The idempotency key is the job id, so whoever comes second gets the first one's run. Where that
    run has ended (the job is being retried), the next free key with a number is taken.

    Args:
        stored: The job.
        api: Prefect's API.
        catalogue: Where the run is recorded.
        target: Its deployment, when that was just read.

    Returns:
        The flow run's id; empty when the job was cancelled meanwhile, and so was the run.

    Raises:
        NotFound: Its server has no deployment (yet).
        PrefectUnreachable: Retryable; a later call finishes what this one began.
        PrefectRefused: Prefect does not take it.
        Refused: It was to go to another server, and has begun on the old one.
    """
    place: datetime | None = None
    if stored.flow_run_id and stored.state is JobState.ACCEPTED:
        freed = free([stored], api=api, catalogue=catalogue)
        if refusal := freed.refused.get(stored.job_id):
            raise refusal
        stored, place = freed.jobs[stored.job_id], freed.places.get(stored.job_id)
    if target is None or target.name != stored.deployment.partition("/")[2]:
        target = api.deployment(stored.deployment)
    run_id = _run_for(stored, api, catalogue, place, target)
    return _settle([(stored, run_id)], api, catalogue).get(stored.job_id, "")


def send_many(
    jobs: Iterable[StoredRequest],
    *,
    api: PrefectApi,
    catalogue: Catalogue,
    on_sent: OnSent | None = None,
) -> dict[str, QueueError]:
    """Create the flow runs of many jobs, many a call, and record them.

    Prefect answers such a call with success although single runs of it failed, or were rolled
    back with others: each is looked up afterwards, and what is not there is sent again.

    Returns:
        Why jobs were not sent, by job id; a later call finishes what this one began.

    Raises:
        PrefectUnreachable: Retryable, as above.
    """
    wanted = list(jobs)
    moved = [job for job in wanted if job.flow_run_id and job.state is JobState.ACCEPTED]
    places: Mapping[str, datetime] = {}
    refused: dict[str, QueueError] = {}
    if moved:
        freed = free(moved, api=api, catalogue=catalogue)
        places, refused = freed.places, dict(freed.refused)
        wanted = [
            freed.jobs.get(job.job_id, job) for job in wanted if job.job_id not in freed.refused
        ]
    sender = _Bulk(api, catalogue, places, on_sent or _nobody)
    for group in _groups(wanted):
        refused |= sender.send(group)
    return refused


def new_run(stored: StoredRequest, *, key: str, place: datetime | None = None) -> NewRun:
    """Return what Prefect is asked for: parameters, tags, queue and name say the same thing.

    Args:
        stored: The job.
        key: The run's idempotency key.
        place: When it is due, which is its place in the order; None: now.
    """
    request = stored.request
    return NewRun(
        parameters=run_parameters(stored.job_id, request),
        idempotency_key=key,
        name=run_name(request.prompt, request.mode.value, request.server, stored.job_id),
        tags=job_tags(request, stored.job_id, request.server),
        queue=request.tier.value,
        scheduled_time=place,
        checked=True,  # by `parse_request`, which the schema is made from
    )


def run_parameters(job_id: str, request: GenerationRequest) -> dict[str, object]:
    """Return the parameters of a job's run."""
    return {"request": request.dumped(), "job_id": job_id}


def job_tags(request: GenerationRequest, job_id: str, server: str) -> tuple[str, ...]:
    """Return the tags of a job's run: what it is, where it runs, and the request's own."""
    ours = (f"{JOB_TAG}{job_id}", f"server:{server}", f"tier:{request.tier.value}")
    return tuple(dict.fromkeys((*ours, *request.tags)))


def sending_lock(run_folder: Path) -> Path:
    """Return the lock file of whoever sends many jobs, so that nobody does the same meanwhile."""
    return run_folder / "sending.lock"


@dataclass(frozen=True)
class Freed:
    """Jobs that were to go to another server.

    Attributes:
        jobs: Those whose old run is over, as they are now, by job id.
        places: When their old runs were due.
        refused: Those that have begun on the old server, and stay there, or ended.
    """

    jobs: Mapping[str, StoredRequest]
    places: Mapping[str, datetime]
    refused: Mapping[str, QueueError]


def free(jobs: Sequence[StoredRequest], *, api: PrefectApi, catalogue: Catalogue) -> Freed:
    """Cancel the old runs of jobs that go to another server, so that they can get new ones."""
    ids = {job.flow_run_id: job for job in jobs}
    waiting = [run for run in _runs(api, ids) if run.state_type is StateType.SCHEDULED]
    places = {ids[run.id].job_id: when for run in waiting if (when := due(run))}
    for run in waiting:
        if run.process:  # of an earlier try: Prefect would send the cancel there, and wait
            api.patch_run(run.id, infrastructure_pid=None)
    each([run.id for run in waiting], lambda run_id: _cancel(api, run_id))
    live = {run.id for run in _runs(api, ids) if not run.final}
    over = {job.job_id: run_id for run_id, job in ids.items() if run_id not in live}
    free_now = catalogue.forget_runs(over)
    refused: dict[str, QueueError] = {
        job.job_id: Refused(f"job {job.job_id} has begun on its old server, and stays there")
        for job in jobs
        if job.job_id not in free_now
    }
    return Freed(free_now, places, refused)


class _Bulk:
    """Sends jobs of one deployment after the other."""

    def __init__(
        self,
        api: PrefectApi,
        catalogue: Catalogue,
        places: Mapping[str, datetime],
        on_sent: OnSent,
    ) -> None:
        self._api = api
        self._catalogue = catalogue
        self._places = places
        self._on_sent = on_sent

    def send(self, jobs: Sequence[StoredRequest]) -> dict[str, QueueError]:
        """Send jobs of one deployment, in their order; why some were not, by job id."""
        try:
            target = self._api.deployment(jobs[0].deployment)
        except NotFound as error:
            return {job.job_id: error for job in jobs}
        refused: dict[str, QueueError] = {}
        numbers = dict.fromkeys((job.job_id for job in jobs), 1)
        for start in range(0, len(jobs), AT_ONCE):
            left = list(jobs[start : start + AT_ONCE])
            tries = dict.fromkeys((job.job_id for job in left), 0)
            while left:
                time.sleep(_GAP_S)
                left, problems = self._once(target, left, numbers, tries)
                refused |= problems
        return refused

    def _once(
        self,
        target: Deployment,
        jobs: Sequence[StoredRequest],
        numbers: dict[str, int],
        tries: dict[str, int],
    ) -> tuple[list[StoredRequest], dict[str, QueueError]]:
        """Send some jobs; return those to send again, and those refused."""
        keys = {job.job_id: run_key(job.job_id, numbers[job.job_id]) for job in jobs}
        try:
            answers = self._api.create_runs(
                target, [new_run(job, key=keys[job.job_id], place=self._place(job)) for job in jobs]
            )
        except (NotFound, PrefectRefused) as error:
            if len(jobs) == 1:
                self._on_sent(1)
                return [], {jobs[0].job_id: error}
            return [], self._one_by_one(jobs)
        made = {answer for answer in answers if isinstance(answer, str)}
        runs = {run.id: run for run in _runs(self._api, made)}
        again: list[StoredRequest] = []
        refused: dict[str, QueueError] = {}
        good: list[tuple[StoredRequest, str]] = []
        ended: list[StoredRequest] = []
        for job, answer in zip(jobs, answers, strict=True):
            run = runs.get(answer) if isinstance(answer, str) else None
            if run is None or run.idempotency_key != keys[job.job_id]:
                tries[job.job_id] += 1
                if tries[job.job_id] < _TRIES:
                    again.append(job)
                    continue
                lost = PrefectRefused(f"Prefect made the run of job {job.job_id} and lost it")
                refused[job.job_id] = answer if isinstance(answer, PrefectRefused) else lost
            elif run.final:
                ended.append(job)
            elif run.deployment_id != target.id:
                refused[job.job_id] = _elsewhere(job.job_id, run)
            else:
                good.append((job, run.id))
        again += self._wanted_again(ended, numbers)
        _settle(good, self._api, self._catalogue)
        self._on_sent(len(jobs) - len(again))
        return again, refused

    def _wanted_again(
        self, ended: Sequence[StoredRequest], numbers: dict[str, int]
    ) -> list[StoredRequest]:
        """Return the jobs whose run has ended and that need another: not those sent meanwhile."""
        if not ended:
            return []
        now = self._catalogue.requests_by_id(job.job_id for job in ended)
        for job in ended:
            numbers[job.job_id] += 1
        return [job for job in ended if now[job.job_id].state is JobState.ACCEPTED]

    def _one_by_one(self, jobs: Sequence[StoredRequest]) -> dict[str, QueueError]:
        """Send jobs singly: one of them makes Prefect refuse the whole call."""
        refused: dict[str, QueueError] = {}
        for job in jobs:
            try:
                send(job, api=self._api, catalogue=self._catalogue)
            except (NotFound, PrefectRefused, Refused) as error:
                refused[job.job_id] = error
            self._on_sent(1)
        return refused

    def _place(self, job: StoredRequest) -> datetime:
        return self._places.get(job.job_id, job.accepted_at)


def run_key(job_id: str, number: int) -> str:
    """Return the idempotency key of a job's run; the first run has the job's id."""
    return job_id if number == 1 else f"{job_id}/{number}"


def _settle(
    sent: Sequence[tuple[StoredRequest, str]], api: PrefectApi, catalogue: Catalogue
) -> dict[str, str]:
    """Record the runs of jobs, and set right what was changed while they were made.

    Returns:
        The run of each job that has it now; the others' runs are cancelled.
    """
    if not sent:
        return {}
    now = catalogue.mark_sent_many(sent)
    kept: dict[str, str] = {}
    for stored, run_id in sent:
        row = now.get(stored.job_id)
        if row is None or row.state in ENDED | {JobState.ACCEPTED}:  # accepted: goes elsewhere
            _cancel(api, run_id)
            continue
        kept[stored.job_id] = run_id
        if row.state is JobState.SENT and row.data != stored.data:
            request = row.request
            api.patch_run(
                run_id,
                name=run_name(request.prompt, request.mode.value, request.server, row.job_id),
                parameters=run_parameters(row.job_id, request),
                tags=list(job_tags(request, row.job_id, request.server)),
            )
    return kept


def _run_for(
    stored: StoredRequest,
    api: PrefectApi,
    catalogue: Catalogue,
    place: datetime | None,
    deployment: Deployment,
) -> str:
    """Return the id of a run for the job: one that is new, or has not ended."""
    for number in range(1, MOST_RUNS + 1):
        # A job that is being retried has had its turn: it waits behind those that come before now.
        at = place or (stored.accepted_at if number == 1 else None)
        new = new_run(stored, key=run_key(stored.job_id, number), place=at)
        run = api.create_run(deployment, new)
        if run.was_new or not run.final:
            return run.id
        now = catalogue.request(stored.job_id)
        if now.state is not JobState.ACCEPTED:  # somebody else sent it meanwhile
            return now.flow_run_id
    raise _too_many(stored.job_id)


def _runs(api: PrefectApi, ids: Iterable[str]) -> list[Run]:
    """Return the runs with these ids that there are, some hundred a call."""
    wanted = list(ids)
    return [
        run
        for start in range(0, len(wanted), _LOOKED_UP)
        for run in api.runs(run_filter(ids=wanted[start : start + _LOOKED_UP]))
    ]


def _groups(jobs: Iterable[StoredRequest]) -> list[list[StoredRequest]]:
    """Return jobs by deployment, in their order, those of the one accepted first first."""
    found: dict[str, list[StoredRequest]] = {}
    for job in jobs:
        found.setdefault(job.deployment, []).append(job)
    return list(found.values())


def _too_many(job_id: str) -> PrefectError:
    message = f"job {job_id} has had {MOST_RUNS} runs; queue a new one with: again"
    return PrefectRefused(message)


def _elsewhere(job_id: str, run: Run) -> PrefectError:
    message = f"job {job_id} has a run of another server already (run {run.id}, {run.state_name})"
    return PrefectRefused(f"{message}; cancel it first")


def _cancel(api: PrefectApi, run_id: str) -> None:
    with suppress(NotFound):  # deleted in Prefect's pages
        api.cancel(run_id)


def _nobody(count: int) -> None:
    del count
