"""Give an accepted job its flow run in Prefect; safe to repeat, from several processes at once."""

from stablequeue.catalogue import Catalogue, StoredRequest
from stablequeue.errors import PrefectRefused
from stablequeue.ids import run_name
from stablequeue.prefect_api import NewRun, PrefectApi, Run
from stablequeue.request import GenerationRequest
from stablequeue.views import JOB_TAG

MOST_RUNS = 1000
"""Runs one job may have had, each after the one before had ended."""


def send(stored: StoredRequest, *, api: PrefectApi, catalogue: Catalogue) -> str:
    """Create the job's flow run, or find the one it has, and record it.

    The idempotency key is the job id, so whoever comes second gets the first one's run. Where that
    run has ended (the job is being retried), the next free key with a number is taken.

    Returns:
        The flow run's id; empty when the job was cancelled meanwhile, and so was the run.

    Raises:
        NotFound: Its server has no deployment (yet).
        PrefectUnreachable: Retryable; a later call finishes what this one began.
        PrefectRefused: Prefect does not take it.
    """
    run = _run_for(stored, api)
    if catalogue.mark_sent(stored.job_id, run.id):
        return run.id
    api.cancel(run.id)
    return ""


def new_run(stored: StoredRequest, *, key: str) -> NewRun:
    """Return what Prefect is asked for: parameters, tags, queue and name say the same thing."""
    request = stored.request
    return NewRun(
        parameters={"request": request.dumped(), "job_id": stored.job_id},
        idempotency_key=key,
        name=run_name(request.prompt, request.mode.value, request.server, stored.job_id),
        tags=job_tags(request, stored.job_id, request.server),
        queue=request.tier.value,
    )


def job_tags(request: GenerationRequest, job_id: str, server: str) -> tuple[str, ...]:
    """Return the tags of a job's run: what it is, where it runs, and the request's own."""
    ours = (f"{JOB_TAG}{job_id}", f"server:{server}", f"tier:{request.tier.value}")
    return tuple(dict.fromkeys((*ours, *request.tags)))


def _run_for(stored: StoredRequest, api: PrefectApi) -> Run:
    deployment = api.deployment(stored.deployment)
    for number in range(1, MOST_RUNS + 1):
        key = stored.job_id if number == 1 else f"{stored.job_id}/{number}"
        run = api.create_run(deployment, new_run(stored, key=key))
        if run.was_new or not run.final:
            return run
    message = f"job {stored.job_id} has had {MOST_RUNS} runs; queue a new one with: again"
    raise PrefectRefused(message)
