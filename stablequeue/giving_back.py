"""How a run gives its place back without an end: it waits again, and Prefect is told to let go."""

import asyncio
import logging
import os
import time
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Abort, ObjectNotFound

from stablequeue.flowshow import is_over
from stablequeue.warm import given

_WRITTEN_WITHIN_S = 2.0
"""A worker that has not written by then which process a run is in does so no more: it is dead."""
_LOOK_EVERY_S = 0.05


class _NoEnd(logging.Filter):
    """Leaves out what Prefect logs as an error where a run is let go while it counts as running."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Finished in state Running(")


_no_end = _NoEnd()


def given_back(why: str) -> Abort:
    """Return what a flow raises once its run waits again; `why` is for the log."""
    # Nothing ended, and what is red in the log of a job looks like a failure to people.
    logging.getLogger("prefect.flow_runs").addFilter(_no_end)
    return Abort(why)


async def back_to_scheduled(client: PrefectClient, flow_run_id: UUID, state: State[Any]) -> bool:
    """Let a run wait again, from inside it; False if it was cancelled or deleted meanwhile.

    The process on record is forgotten: Prefect would send a later cancel to it, and wait.

    Args:
        client: Open.
        flow_run_id: This run.
        state: Of type SCHEDULED.
    """
    try:
        await _until_on_record(client, flow_run_id)
        await client.request(
            "PATCH",
            "/flow_runs/{id}",
            path_params={"id": flow_run_id},
            json={"infrastructure_pid": None},
        )
        answer = await client.set_flow_run_state(flow_run_id, state)
    except ObjectNotFound:
        return False
    return answer.status is SetStateStatus.ACCEPT or not await is_over(client, flow_run_id)


async def _until_on_record(client: PrefectClient, flow_run_id: UUID) -> None:
    """Wait for the worker to write our process down: it does so while a warm run is at work."""
    patience = time.monotonic() + _WRITTEN_WITHIN_S
    while given.get() is not None and time.monotonic() < patience:
        written = (await client.read_flow_run(flow_run_id)).infrastructure_pid or ""
        if written.rpartition(":")[2] == str(os.getpid()):
            return
        await asyncio.sleep(_LOOK_EVERY_S)
