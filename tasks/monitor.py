"""Task `monitor`: progress and stalls, beside `generate`."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.flowrun import Run
from stablequeue.pipeline.monitor import monitor as monitor_job


@task(cache_policy=NO_CACHE, persist_result=False)
async def monitor(run: Run, until: asyncio.Event) -> None:
    """Follow the job's remote jobs until told that there will be no more."""
    await monitor_job(run.job, run.report, until)


@asynccontextmanager
async def monitored(run: Run) -> AsyncGenerator[None]:
    """Run the task `monitor` beside what is inside."""
    until = asyncio.Event()
    beside = asyncio.create_task(monitor(run, until))
    try:
        yield
    except asyncio.CancelledError:
        beside.cancel()  # nothing more to report, and every call delays the end
        raise
    finally:
        until.set()
        await asyncio.gather(beside, return_exceptions=True)
