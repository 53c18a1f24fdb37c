"""Flow `generate`: one job from a request to stored pictures."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from stablequeue.request import GenerationRequest
from tasks.download import download
from tasks.generate import generate as make
from tasks.monitor import monitored
from tasks.resolve import resolve
from tasks.run import Ending, open_run, parameter_now
from tasks.store import store


@flow(
    name="generate",
    validate_parameters=False,  # the first step does, with the same words for every way in
    persist_result=False,
)
async def generate(request: GenerationRequest, job_id: str = "") -> State[Any]:
    """Make the pictures a request asks for and store them.

    Args:
        request: What to make, with what, where.
        job_id: Filled in by StableQueue's own client. Leave empty.
    """
    request = parameter_now("request", request)
    async with Ending() as ending, open_run(request, job_id, ending) as run:
        await resolve(run)
        await download(run)
        async with monitored(run):
            await make(run)
        await store(run)
    return ending.state
