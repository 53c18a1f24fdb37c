"""Task `generate`: every picture of the job into the spool, none twice."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.flowrun import Run
from stablequeue.pipeline.generate import generate as generate_job
from tasks.policy import RETRY_DELAYS_S, worth_retrying


@task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def generate(run: Run) -> None:
    """Make what is not made yet; what an earlier run or try began is looked up first."""
    await run.phase("Generating")
    run.failures = await generate_job(run.job)
