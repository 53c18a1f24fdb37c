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
    following = asyncio.create_task(monitor_job(run.job, run.report))
    ending = asyncio.create_task(until.wait())
    try:
        await asyncio.wait({following, ending}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        following.cancel()
        ending.cancel()
        await asyncio.gather(following, ending, return_exceptions=True)


@asynccontextmanager
async def monitored(run: Run) -> AsyncGenerator[None]:
    """Run the task `monitor` beside what is inside."""
    until = asyncio.Event()
    beside = asyncio.create_task(monitor(run, until))
    try:
        yield
    finally:
        until.set()
        await asyncio.gather(beside, return_exceptions=True)
