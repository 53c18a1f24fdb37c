"""Run jobs below Prefect in forked processes that die at a chosen point: `python jobrun.py`.

Reads one JSON command a line on stdin and answers one line each. Everything is imported once and
each job runs in a fork, so that hundreds of deaths take seconds. A point is a moment before or
after an HTTP call to the engine, a commit of the catalogue, or a rename.
"""

import asyncio
import gc
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import Engine, event

from stablequeue.catalogue import JobState, Outcome, open_catalogue
from stablequeue.engines.comfyui import following as comfyui_following
from stablequeue.engines.forge import doorman as forge_doorman
from stablequeue.engines.forge import following as forge_following
from stablequeue.engines.forge import submission as forge_submission
from stablequeue.engines.forge import watching as forge_watching
from stablequeue.errors import QueueError
from stablequeue.pipeline.accept import accept, begin
from stablequeue.pipeline.generate import generate
from stablequeue.pipeline.job import open_job
from stablequeue.pipeline.resolve import resolve
from stablequeue.pipeline.storing import store
from stablequeue.servers import ServerConfig
from stablequeue.settings import load
from stablequeue.storage import open_store


class Points:
    """Counts the moments at which a process could die, and dies at one of them."""

    def __init__(self, die_at: int, trace: Path) -> None:
        self.die_at = die_at
        self.trace = trace.open("a", encoding="utf-8")
        self.count = 0

    def reached(self, what: str) -> None:
        self.trace.write(f"{self.count} {what}\n")
        self.trace.flush()
        if self.count == self.die_at:
            os.kill(os.getpid(), signal.SIGKILL)
        self.count += 1

    def around(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.reached(f"before {what}")
            result = call(*args, **kwargs)
            self.reached(f"after {what}")
            return result

        return wrapped

    def install(self) -> None:
        send = httpx.AsyncClient.send

        async def counted(client: httpx.AsyncClient, request: httpx.Request, **options: Any) -> Any:
            what = f"{request.method} {request.url.path}"
            self.reached(f"before {what}")
            response = await send(client, request, **options)
            self.reached(f"after {what}")
            return response

        httpx.AsyncClient.send = counted  # type: ignore[method-assign]
        for name in ("replace", "rename", "link"):
            setattr(os, name, self.around(f"os.{name}", getattr(os, name)))
        do_commit = None

        @event.listens_for(Engine, "engine_connect")
        def _wrap(connection: Any) -> None:
            nonlocal do_commit
            dialect = connection.dialect
            if getattr(dialect, "_points", None) is None:
                dialect._points = True
                dialect.do_commit = self._commit(dialect.do_commit)

    def _commit(self, commit: Callable[[Any], None]) -> Callable[[Any], None]:
        def counted(connection: Any) -> None:
            changed = getattr(connection, "in_transaction", True)
            if changed:
                self.reached("before commit")
            commit(connection)
            if changed:
                self.reached("after commit")

        return counted


async def run_job(command: dict[str, Any]) -> str:
    """Run one job to its end as the flow does, without Prefect."""
    settings = load({"home": command["home"]})
    server = ServerConfig.model_validate(command["server"])
    catalogue = open_catalogue(settings.catalogue)
    job_id = command["job_id"]
    accept(command["request"], settings=settings, catalogue=catalogue, job_id=job_id)
    stored = begin(
        command["request"],
        settings=settings,
        catalogue=catalogue,
        job_id=job_id,
        server=server.alias,
        flow_run_id="run",
    )
    pictures = open_store(settings)
    async with open_job(
        stored, server, settings=settings, catalogue=catalogue, store=pictures
    ) as job:
        await resolve(job)
        failures = await generate(job)
        if failures:
            raise failures[0].error
        done = await store(job)
    catalogue.finish(job_id, Outcome(state=JobState.COMPLETED))
    catalogue.close()
    return f"{len(done.assets)} stored"


def hurry() -> None:
    """Shorten pauses that are there for slow networks; they would be most of the time."""
    comfyui_following.TWICE_S = 0.1
    comfyui_following.POLL_WITHOUT_PUSH_S = 0.1
    forge_following.TWICE_S = 0.2
    forge_submission.LOOK_EVERY_S = 0.05
    forge_watching.POLL_S = 0.1
    forge_doorman.LEAKED_AFTER_S = 1.0


def child(command: dict[str, Any], answer: int) -> None:
    points = Points(command.get("die_at", -1), Path(command["trace"]))
    points.install()
    result: dict[str, Any] = {}
    try:
        result = {"ok": True, "message": asyncio.run(run_job(command)), "points": points.count}
    except QueueError as error:
        result = {"ok": False, "code": error.code, "message": str(error)}
    except BaseException:  # noqa: BLE001 - reported to the test, which fails
        result = {"ok": False, "code": "traceback", "message": traceback.format_exc()}
    os.write(answer, json.dumps(result).encode())
    os._exit(0)


def warm_up(command: dict[str, Any]) -> dict[str, Any]:
    """Run a job in this process: what is slow once, forks then find done."""
    message = asyncio.run(run_job(command))
    gc.freeze()  # a fork then copies fewer pages
    return {"ok": True, "message": message}


def main() -> None:
    hurry()
    for line in sys.stdin:
        command = json.loads(line)
        if command["here"]:
            print(json.dumps(warm_up(command)), flush=True)  # noqa: T201 - its answer
            continue
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(read)
            child(command, write)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(pid, 0)
        died = os.WIFSIGNALED(status)
        answer: dict[str, Any] = json.loads(said) if said else {}
        print(json.dumps({**answer, "died": died}), flush=True)  # noqa: T201 - its answer


if __name__ == "__main__":
    main()
