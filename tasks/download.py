"""Task `download`: what the job needs and the server lacks."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.flowrun import Run


@task(cache_policy=NO_CACHE, persist_result=False)
async def download(run: Run) -> None:
    """Refuse the job when the server lacks a model it names; nothing else is used instead.

    Raises:
        ModelMissing: Says which model, on which server, and what is alike there.
    """
    if run.missing is not None:
        raise run.missing
