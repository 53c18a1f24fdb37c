"""Flow `check-models`: newer versions of the library's models, on a schedule."""

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.states import Completed

from tasks.updates import look


@flow(name="check-models", persist_result=False)
async def updates() -> State[str]:
    """Report which models have newer versions on Civitai; nothing is fetched."""
    return Completed(message=await look())
