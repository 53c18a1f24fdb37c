"""What Prefect does around every flow run and a warm process can be spared.

`observe_flow_run_suspension` opens a thread, an HTTP client and a websocket for each run, holds
the flow back until they stand (0.1 s), and again at its end until they are gone (up to 0.3 s): all
to hear of a suspension from outside. The worker host hears of it anyway and tells.

The default result storage is asked for over a new connection, also for a flow that keeps no
results. Every task tells that it is Pending a millisecond before it tells that it runs, and
Prefect's server takes 20 ms to write that down.

What Prefect's release does not have under these names stays as it is.
"""

import contextlib
import logging
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from prefect import flow_engine, results, task_engine
from prefect._flow_run_suspension import mark_flow_run_suspension_requested
from prefect.client.schemas.objects import State, StateType

logger = logging.getLogger("stablequeue.worker")

SUSPENDED = "Suspended"
"""Name of the state of a suspended run."""

runs_ours: ContextVar[bool] = ContextVar("runs_ours", default=False)
"""Whether the flow that runs is one of ours: they keep no results."""

_OBSERVE = "observe_flow_run_suspension"
_EMIT = "emit_task_run_state_change_event"
_STORAGES = (
    "_read_server_default_result_storage_block_id",
    "_aread_server_default_result_storage_block_id",
)


def spare() -> None:
    """Spare it in this process from now on; may be called again."""
    if hasattr(flow_engine, _OBSERVE):
        setattr(flow_engine, _OBSERVE, _told_by_the_host)
    emit: Callable[..., Any] | None = getattr(task_engine, _EMIT, None)
    if emit is not None and not hasattr(emit, "spared"):
        setattr(task_engine, _EMIT, _told_when_it_runs(emit))
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


def _told_when_it_runs(emit: Callable[..., Any]) -> Callable[..., Any]:
    def spared(
        *, initial_state: State[Any] | None, validated_state: State[Any], **more: Any
    ) -> Any:
        if initial_state is None and validated_state.is_pending() and runs_ours.get():
            return None
        return emit(initial_state=initial_state, validated_state=validated_state, **more)

    setattr(spared, "spared", True)  # noqa: B010  a function has no such attribute by itself
    return spared


def _unless_needless(read: Callable[[], Any], *, waits: bool) -> Callable[[], Any]:
    async def later() -> UUID | None:
        return None if runs_ours.get() else await read()

    def at_once() -> UUID | None:
        return None if runs_ours.get() else read()

    spared: Callable[[], Any] = later if waits else at_once
    setattr(spared, "spared", True)  # noqa: B010  a function has no such attribute by itself
    return spared
