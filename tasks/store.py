"""Task `store`: files, thumbnails and the catalogue."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.flowrun import Run
from stablequeue.pipeline.storing import store as store_job
from tasks.policy import RETRY_DELAYS_S, worth_retrying


@task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def store(run: Run) -> None:
    """Store what lies in the spool; doing it again stores nothing twice."""
    await run.phase("Storing")
    run.stored = await store_job(run.job)
    await run.show_pictures(run.stored.assets)
