"""Task `download`: what the job needs and the server lacks."""

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue.errors import DownloadError, ModelMissing
from stablequeue.flowrun import Run
from stablequeue.modelwait import ModelWait, earlier, refuse_what_failed
from stablequeue.pipeline.obtaining import plan, use
from tasks.policy import RETRY_DELAYS_S, worth_retrying

_ROUNDS = 3
"""What a server lacks is known at once; only a change of its files meanwhile needs a second look"""


async def download(run: Run) -> None:
    """See that the server has every model the job names, or have the missing ones fetched.

    Raises:
        ModelMissing: One is known nowhere; nothing else is used instead.
        NotDelivered: One does not reach the server; says what to set.
        NotFetched: A source does not give one away, or its download failed; says why.
        ModelWait: The job gives its place back until its models are there.
    """
    await obtain(run)
    if run.wait is not None:
        raise run.wait


@task(
    name="download",
    retries=len(RETRY_DELAYS_S),
    retry_delay_seconds=RETRY_DELAYS_S,
    retry_jitter_factor=0.3,
    retry_condition_fn=worth_retrying,
    cache_policy=NO_CACHE,
    persist_result=False,
)
async def obtain(run: Run) -> None:
    """Use what is in the library; leave in `run.wait` what has to be fetched first."""
    again = False
    for _ in range(_ROUNDS):
        if (missing := run.missing) is None:
            return
        await run.phase("Downloading", "looking for models")
        try:
            found = await plan(run.job, missing, earlier(run))
        except DownloadError as error:
            run.wait = ModelWait.for_source(error)
            return
        if found.fetch:
            if await refuse_what_failed(run, found.fetch, looked_again=again):
                again = True
                continue
            run.wait = ModelWait(found.fetch)
            return
        try:
            await use(run.job, found.here)
        except ModelMissing as more:
            run.missing = more
        else:
            run.missing = None
    if run.missing is not None:
        raise run.missing
