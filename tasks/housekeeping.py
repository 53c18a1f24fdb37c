"""Task `tidy`: what the flow `housekeeping` does."""

import asyncio

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE

from stablequeue.catalogue import open_catalogue
from stablequeue.pipeline.housekeeping import Tidied
from stablequeue.pipeline.housekeeping import tidy as tidy_up
from stablequeue.prefect_api import open_prefect
from stablequeue.settings import load
from stablequeue.storage import DEFAULT_STORE, Store, open_store
from stablequeue.store_blocks import saved_store
from tasks.policy import RETRY_DELAYS_S, worth_retrying


@task(
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def tidy() -> str:
    """Tidy once; say what was removed."""
    done = await asyncio.to_thread(_tidy)
    said = f"{done.files} files and {done.spooled} leftovers removed"
    get_run_logger().info(said)
    return said


def _tidy() -> Tidied:
    settings = load()
    catalogue = open_catalogue(settings.catalogue)

    def named(name: str) -> Store:
        if name == DEFAULT_STORE:
            return open_store(settings)
        with open_prefect(settings) as api:
            return open_store(saved_store(api, name))

    try:
        return tidy_up(settings, catalogue, named)
    finally:
        catalogue.close()
