"""What Prefect does around every flow run and a warm process can be spared.

`observe_flow_run_suspension` opens a thread, an HTTP client and a websocket for each run, holds
the flow back until they stand (0.1 s), and again at its end until they are gone (up to 0.3 s): all
to hear of a suspension from outside. The worker host hears of it anyway and tells.

The default result storage is asked for over a new connection, also for a flow that keeps no
results. What Prefect's release does not have under these names stays as it is.
"""

import contextlib
import logging
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect import flow_engine, results
from prefect._flow_run_suspension import mark_flow_run_suspension_requested
from prefect.client.schemas.objects import State, StateType

logger = logging.getLogger("stablequeue.worker")

SUSPENDED = "Suspended"
"""Name of the state of a suspended run."""

keeps_no_results: ContextVar[bool] = ContextVar("keeps_no_results", default=False)
"""Whether the flow that runs is one of ours that never keeps a result."""

_OBSERVE = "observe_flow_run_suspension"
_STORAGES = (
    "_read_server_default_result_storage_block_id",
    "_aread_server_default_result_storage_block_id",
)


def spare() -> None:
    """Spare it in this process from now on; may be called again."""
    if hasattr(flow_engine, _OBSERVE):
        setattr(flow_engine, _OBSERVE, _told_by_the_host)
    for name in _STORAGES:
        read: Callable[[], Any] | None = getattr(results, name, None)
        if read is not None and not hasattr(read, "spared"):
            setattr(results, name, _unless_needless(read, waits=name.startswith("_aread")))


def suspend(run_id: str) -> None:
    """Have a run of this process stop before its next step, as suspended from outside."""
    state: State[Any] = State(type=StateType.PAUSED, name=SUSPENDED)
    mark_flow_run_suspension_requested(UUID(run_id), state)


@contextlib.contextmanager
def _told_by_the_host(*_: Any, **__: Any) -> Generator[None]:
    yield


def _unless_needless(read: Callable[[], Any], *, waits: bool) -> Callable[[], Any]:
    async def later() -> UUID | None:
        return None if keeps_no_results.get() else await read()

    def at_once() -> UUID | None:
        return None if keeps_no_results.get() else read()

    spared: Callable[[], Any] = later if waits else at_once
    setattr(spared, "spared", True)  # noqa: B010  a function has no such attribute by itself
    return spared
