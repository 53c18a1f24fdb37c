"""How tasks are tried again: the error knows whether that may help."""

from typing import Any

from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import Task

from stablequeue.errors import QueueError
from stablequeue.flowrun import AWAY
from stablequeue.warm import given

RETRY_DELAYS_S: list[float] = [1, 3, 10, 30]
"""Seconds before each further try; jitter is added so that many jobs do not come at once."""

_TRIES_WHEN_WARM = 2


async def worth_retrying(_task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Say whether the failure in `state` may go away by itself (`error.retryable`).

    Under a warm worker a server that is away is tried once more and then left: the run gives its
    place back and waits outside.
    """
    try:
        await state.aresult()
    except AWAY as error:
        return error.retryable and (given.get() is None or run.run_count < _TRIES_WHEN_WARM)
    except QueueError as error:
        return error.retryable
    except Exception:  # noqa: BLE001 - only asked about; Prefect has the exception in hand
        return False
    return False
