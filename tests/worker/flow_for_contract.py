"""Flows that show what a worker promises its runs, whatever it is made of."""

import asyncio
import json
import logging
import os
import signal
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow


def _note(folder: str, what: str, **more: Any) -> None:
    line = json.dumps({"what": what, "pid": os.getpid(), **more})
    with (Path(folder) / "notes").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def on_cancellation(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    del flow
    _note(flow_run.parameters["folder"], "hook: cancellation", state=state.name)


def on_crashed(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    del flow
    _note(flow_run.parameters["folder"], "hook: crashed", state=state.name)


def on_completion(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    del flow
    _note(flow_run.parameters["folder"], "hook: completion", state=state.name)


@task
async def step(number: int) -> int:
    return number


@flow(
    name="contract",
    on_cancellation=[on_cancellation],
    on_crashed=[on_crashed],
    on_completion=[on_completion],
    timeout_seconds=20,
)
async def promise(folder: str, todo: str = "") -> str:
    """Do `todo`, and note what can be seen."""
    names = ("CONTRACT", "LEFT_BEHIND", "PREFECT_LOGGING_LEVEL", "PREFECT__FLOW_RUN_ID")
    _note(folder, "started", variables={name: os.environ.get(name, "") for name in names})
    get_run_logger().info("a line of the run")
    logging.getLogger("somebody.else").info("a line that is nobody's business")
    assert await step(1) == 1
    match todo:
        case "leave a variable":
            os.environ["LEFT_BEHIND"] = "yes"
        case "sleep":
            await asyncio.sleep(600)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "fail":
            message = "as asked"
            raise ValueError(message)
        case _:
            pass
    return "done"


@flow(name="contract-sync", timeout_seconds=20)
def promise_sync(folder: str, todo: str = "") -> str:
    """Do it without an event loop."""
    del todo
    get_run_logger().info("a line of the run")
    _note(folder, "started", variables={"CONTRACT": os.environ.get("CONTRACT", "")})
    return "done"


@flow(name="contract-quick", timeout_seconds=1)
async def promise_quick(folder: str, todo: str = "") -> str:
    """Take longer than it may."""
    del todo
    _note(folder, "started")
    await asyncio.sleep(60)
    return "never"
