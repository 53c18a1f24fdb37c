"""How tasks are tried again: the error knows whether that may help."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from stablequeue.errors import QueueError

RETRY_DELAYS_S: list[float] = [1, 3, 10, 30]
"""Seconds before each further try; jitter is added so that many jobs do not come at once."""


async def worth_retrying(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Say whether the failure in `state` may go away by itself (`error.retryable`)."""
    try:
        await state.aresult()
    except QueueError as error:
        return error.retryable
    except Exception:  # noqa: BLE001 - only asked about; Prefect has the exception in hand
        return False
    return False
