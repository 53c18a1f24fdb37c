"""Task `resolve`: the server's exact names, or what it lacks."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.errors import ModelMissing
from stablequeue.flowrun import Run
from stablequeue.pipeline.resolve import resolve as resolve_job
from tasks.policy import RETRY_DELAYS_S, worth_retrying


@task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def resolve(run: Run) -> None:
    """Ask the server what it is and for its exact names; check that the store takes pictures.

    A model the server lacks is left in `run.missing` for the task `download`.
    """
    await run.phase("Resolving")
    try:
        await resolve_job(run.job)
    except ModelMissing as missing:
        run.missing = missing
