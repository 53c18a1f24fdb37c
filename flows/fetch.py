"""Flow `fetch-model`: one model file from its source into the library."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State

from stablequeue.settings import load
from tasks.fetch import Ended, FetchRefused, bring, enrol, open_fetch


@flow(name="fetch-model", persist_result=False)
async def fetch(offer: dict[str, Any], target: dict[str, Any]) -> State[Any]:
    """Fetch one file that a source offers; jobs that wait for it are woken.

    Args:
        offer: What a source offers; made by StableQueue.
        target: Where in the library it goes: kind, root and name.
    """
    ended = Ended()
    try:
        async with open_fetch(offer, target, load(), ended) as run:
            await bring(run)
            await enrol(run)
    except FetchRefused:
        pass
    return ended.state
