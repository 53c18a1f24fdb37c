"""The warm processes of a worker host: started, lent to one run at a time, replaced.

One more than there are runs stands ready. On Linux they are forked from a template; elsewhere, and
for runs with an environment or a project of their own, each is a new Python.
"""

import asyncio
import itertools
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any

from stablequeue.errors import Refused
from stablequeue.project import project_dir
from stablequeue.worker.channel import (
    HOST,
    LARGEST,
    PORT_VARIABLE,
    TOKEN_VARIABLE,
    Message,
    decode,
    new_token,
)
from stablequeue.worker.forking import READY_WITHIN_S, Template, TemplateGone
from stablequeue.worker.presence import kill
from stablequeue.worker.warm_process import Runner

logger = logging.getLogger("stablequeue.worker")

MOST_RUNS = 500
"""After so many runs a process is replaced, whatever flows of other people leaked in it."""

CAN_FORK = sys.platform == "linux"
_EXIT_TOLD_WITHIN_S = 2.0
_IDLE_S = 60.0
_LOST = -int(getattr(signal, "SIGKILL", 9))

Hear = Callable[[Runner, Message], None]


class Runners:
    """All warm processes of this host.

    Args:
        hear: Gets what a process says that concerns its run (the card, measurements).
        spare: How many stand ready beside those that work.
        most_runs: After so many runs a process is replaced; 1: one process a run.
        fork: Whether to fork from a template.
    """

    def __init__(
        self,
        hear: Hear,
        *,
        spare: int = 1,
        most_runs: int = MOST_RUNS,
        fork: bool = CAN_FORK,
    ) -> None:
        self._hear = hear
        self._spare = spare
        self._most_runs = most_runs
        self._fork = fork
        self._token = new_token()
        self._names = itertools.count(1)
        self._all: dict[str, Runner] = {}
        self._idle: list[Runner] = []
        self._wanted: list[asyncio.Future[Runner]] = []
        self._template: Template | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._filling = asyncio.Lock()
        self._templating = asyncio.Lock()

    @property
    def all(self) -> list[Runner]:
        """Every process that has not ended."""
        return [runner for runner in self._all.values() if runner.lives]

    @property
    def template_pid(self) -> int:
        """The process that others are forked from; 0: there is none now."""
        return self._template.pid if self._template is not None else 0

    async def start(self) -> None:
        """Listen, and have the first process made ready."""
        self._server = await asyncio.start_server(self._connected, HOST, 0, limit=LARGEST)
        self._in_background(self._fill())
        self._in_background(self._retire_idle())

    async def close(self) -> None:
        """End every process: those that work at once, the others by themselves."""
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for runner in self.all:
            if runner.run:
                kill(runner.pid)
            else:
                runner.say({"stop": True})
        waits = [runner.exited for runner in self.all]
        if waits:
            await asyncio.wait(waits, timeout=_EXIT_TOLD_WITHIN_S)
        for runner in self.all:
            kill(runner.pid)
        if self._template is not None:
            await self._template.close()
        if self._server is not None:
            self._server.close()

    async def take(self, environment: Mapping[str, str] | None = None) -> Runner:
        """Return an idle process, for one run.

        Args:
            environment: Variables of its own; then, or with an empty mapping, it is a new
                Python without our project's flows, and ends after the run. None: a shared one.

        Raises:
            Refused: It cannot be started.
        """
        if environment is not None:
            runner = await self._start_python(environment, reusable=False)
            await self._wait_ready(runner)
            return runner
        while self._idle:
            runner = self._idle.pop()
            if runner.lives:
                self._in_background(self._fill())
                return runner
        return await self._next_ready()

    async def _next_ready(self) -> Runner:
        """Return whichever process is free first: one being started, or one that has ended a run.

        Raises:
            Refused: It cannot be started, and none became free until then.
        """
        wanted: asyncio.Future[Runner] = asyncio.get_running_loop().create_future()
        self._wanted.append(wanted)
        self._in_background(self._start_for(wanted))
        try:
            runner = await wanted
        except asyncio.CancelledError:
            if wanted.done() and not wanted.cancelled():
                self._offer(wanted.result())
            raise
        finally:
            self._wanted.remove(wanted)
        self._in_background(self._fill())
        return runner

    async def _start_for(self, wanted: "asyncio.Future[Runner]") -> None:
        try:
            runner = await self._start_one()
            await self._wait_ready(runner)
        except (Refused, OSError) as error:
            if not wanted.done():
                wanted.set_exception(error)
        else:
            self._offer(runner)

    def _offer(self, runner: Runner) -> None:
        """Lend an idle process to who has waited longest for one, or keep it."""
        for wanted in self._wanted:
            if not wanted.done():
                wanted.set_result(runner)
                return
        self._idle.append(runner)

    def give_back(self, runner: Runner) -> None:
        """Take a process back after its run; it is kept, or ends."""
        runner.run = ""
        if not runner.lives or self._closing:
            return
        if not runner.reusable or runner.runs >= self._most_runs:
            runner.say({"stop": True})
            self._in_background(self._see_off(runner))
            self._in_background(self._fill())
            return
        runner.idle_since = time.monotonic()
        self._offer(runner)

    async def _see_off(self, runner: Runner) -> None:
        """Kill a process that was told to end and does not (a thread of its flow is stuck)."""
        await asyncio.wait({runner.exited}, timeout=10 * _EXIT_TOLD_WITHIN_S)
        if runner.lives:
            logger.warning("process %d does not end by itself; killed", runner.pid)
            kill(runner.pid)

    async def _fill(self) -> None:
        """Have as many idle processes as wished."""
        async with self._filling:
            while not self._closing and len(self._idle) < self._spare:
                try:
                    runner = await self._start_one()
                    await self._wait_ready(runner)
                except (Refused, OSError) as error:
                    logger.warning("no warm process: %s", error)
                    return
                self._offer(runner)

    async def _retire_idle(self) -> None:
        """Give memory back some time after a busy one."""
        while True:
            await asyncio.sleep(_IDLE_S / 4)
            longest = sorted(self._idle, key=lambda runner: runner.idle_since)
            for runner in longest[: max(0, len(longest) - self._spare)]:
                if time.monotonic() - runner.idle_since > _IDLE_S:
                    self._idle.remove(runner)
                    runner.say({"stop": True})
                    self._in_background(self._see_off(runner))

    async def _start_one(self) -> Runner:
        if not self._fork:
            return await self._start_python({}, reusable=True)
        while True:
            template = await self._ready_template()
            runner = self._new(reusable=True)
            try:
                await template.fork(runner)
            except TemplateGone as error:
                self._all.pop(runner.name, None)
                if self._template is template:
                    self._template = None
                if error.stale:
                    self._retire_old()
                await template.close()
                continue
            return runner

    async def _ready_template(self) -> Template:
        """Return the process to fork from, started if there is none.

        Raises:
            Refused: It does not start.
        """
        async with self._templating:
            if self._template is None or not self._template.lives:
                template = Template()
                self._template = template
                try:
                    await template.start(self._environment())
                except BaseException:
                    self._template = None
                    raise
            return self._template

    def _retire_old(self) -> None:
        """The code changed: idle processes have the old one."""
        old, self._idle = self._idle, []
        for runner in old:
            runner.say({"stop": True})

    async def _start_python(self, environment: Mapping[str, str], *, reusable: bool) -> Runner:
        runner = self._new(reusable=reusable)
        from stablequeue.worker.runner import NAME_VARIABLE  # noqa: PLC0415

        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "stablequeue.worker.runner",
            env={**self._environment(), **environment, NAME_VARIABLE: runner.name},
            cwd=project_dir(),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=os.name == "posix",
        )
        runner.pid = process.pid

        async def wait() -> None:
            runner.gone(await process.wait())
            self._forget(runner)

        self._in_background(wait())
        return runner

    def _new(self, *, reusable: bool) -> Runner:
        runner = Runner(f"runner-{next(self._names)}", reusable=reusable)
        self._all[runner.name] = runner
        return runner

    def _forget(self, runner: Runner) -> None:
        self._all.pop(runner.name, None)
        if runner in self._idle:
            self._idle.remove(runner)
            self._in_background(self._fill())

    async def _wait_ready(self, runner: Runner) -> None:
        waits = {runner.ready, runner.exited}
        await asyncio.wait(waits, timeout=READY_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
        if runner.ready.done() and runner.lives:
            return
        kill(runner.pid)
        message = "a process for flow runs did not start; the lines above say why"
        raise Refused(message)

    def _environment(self) -> dict[str, str]:
        if self._server is None:
            message = "the worker host is not started"
            raise Refused(message)
        port = self._server.sockets[0].getsockname()[1]
        return {**os.environ, PORT_VARIABLE: str(port), TOKEN_VARIABLE: self._token}

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            hello = decode(await reader.readline())
            if hello.get("token") != self._token:
                return
            if hello.get("hello") == "template":
                await self._serve_template(reader, writer)
            elif (runner := self._all.get(str(hello.get("name")))) is not None:
                runner.connected(int(hello["pid"]), writer)
                await self._serve_runner(runner, reader)
        except (OSError, ValueError, asyncio.IncompleteReadError) as error:
            logger.debug("a process's connection ended: %s", error)
        except asyncio.CancelledError:  # asyncio's streams would log that as an error
            if not self._closing:
                raise
        finally:
            writer.close()

    async def _serve_template(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        template = self._template
        if template is None:
            return
        template.writer = writer
        async for message in _messages(reader):
            if "exited" in message:
                if (runner := self._all.get(message["exited"])) is not None:
                    runner.gone(int(message["code"]))
                    self._forget(runner)
            else:
                template.heard(message)
        template.heard({"gone": True})
        if template is self._template and not self._closing:
            logger.warning("the process that flow runs are forked from has died; it starts again")
            self._in_background(self._fork_again())

    async def _fork_again(self) -> None:
        """Start another template now: when the next process is needed, it would be waited for."""
        try:
            await self._ready_template()
        except (Refused, OSError) as error:
            logger.warning("no warm process: %s", error)

    async def _serve_runner(self, runner: Runner, reader: asyncio.StreamReader) -> None:
        async for message in _messages(reader):
            if "card" in message or "told" in message:
                self._hear(runner, message)
            else:
                runner.heard(message)
        # The end of the process is told by whoever started it, unless that died first.
        await asyncio.wait({runner.exited}, timeout=_EXIT_TOLD_WITHIN_S)
        if not runner.exited.done():
            kill(runner.pid)
            runner.gone(_LOST)
        self._forget(runner)

    def _in_background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _messages(reader: asyncio.StreamReader) -> AsyncGenerator[Message]:
    """Give what a process says until its connection ends, in whatever way.

    One that dies before it has read everything resets it: that is its end like any other.
    """
    try:
        async for line in reader:
            yield decode(line)
    except (OSError, ValueError) as error:
        logger.debug("a process's connection broke: %s", error)
