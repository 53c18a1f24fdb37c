"""A flow the worker's tests deploy: it notes what happens to it and does as it is told."""

import asyncio
import json
import logging
import os
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.exceptions import Abort
from prefect.runtime import flow_run
from prefect.states import Scheduled


@flow(name="for-worker-tests")
async def work(notes: str, todo: str = "", seconds: float = 0.0, job_id: str = "") -> str:
    """Note the start, then do `todo` for `seconds`; note whether that was cut short."""

    def note(event: str) -> None:
        line = {"event": event, "cwd": os.getcwd(), "pid": os.getpid(), "path": sys.path}  # noqa: PTH109
        with Path(notes).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    del job_id  # only for the worker's log
    note("started")
    if todo == "put off once" and int(flow_run.run_count or 0) < 2:
        async with get_client() as client:
            later = Scheduled(
                scheduled_time=datetime.now(UTC) + timedelta(seconds=seconds),
                name="Waiting for model",
            )
            await client.set_flow_run_state(flow_run.id, later)
        message = "waiting for a model"
        raise Abort(message)
    if todo == "speak":
        logging.getLogger("stablequeue.wire").info("[SERVER→COMFYUI] said to a server")
        logging.getLogger("stablequeue.wire").debug("[SERVER→COMFYUI] a look at a server")
    try:
        if todo == "block a thread":
            await asyncio.to_thread(time.sleep, seconds)
        else:
            await asyncio.sleep(seconds)
    except asyncio.CancelledError:
        note("cancelled")
        raise
    note("ended")
    return "done"
