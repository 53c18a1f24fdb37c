"""The template process, as its host sees it: started, asked to fork, replaced when it is old."""

import asyncio
import sys
from collections.abc import Mapping

from stablequeue.errors import Refused
from stablequeue.project import project_dir
from stablequeue.worker.channel import Message, encode
from stablequeue.worker.presence import kill
from stablequeue.worker.warm_process import Runner, new_future

READY_WITHIN_S = 60.0
"""Importing everything takes 3 s on an idle machine."""


class TemplateGone(Exception):
    """It does not fork any more.

    Args:
        message: Why.
        stale: Its code is not that on disk any more.
    """

    def __init__(self, message: str, *, stale: bool = False) -> None:
        super().__init__(message)
        self.stale = stale


class Template:
    """The process that forks."""

    def __init__(self) -> None:
        self.writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._ready: asyncio.Future[int] = new_future()
        self._asked: dict[str, asyncio.Future[int]] = {}
        self._gone = False

    @property
    def pid(self) -> int:
        """Its process id while it lives and is ready, else 0."""
        return self._ready.result() if self._ready.done() and self.lives else 0

    @property
    def lives(self) -> bool:
        """Whether it can be asked."""
        return not self._gone and self._process is not None and self._process.returncode is None

    async def start(self, environment: Mapping[str, str]) -> None:
        """Start it and wait until it has imported everything.

        Raises:
            Refused: It did not; its own lines say why.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "stablequeue.worker.template",
            env=environment,
            cwd=project_dir(),  # whatever lies where the worker was started
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
        ended = asyncio.ensure_future(self._process.wait())
        await asyncio.wait(
            {self._ready, ended},
            timeout=READY_WITHIN_S,
            return_when=asyncio.FIRST_COMPLETED,
        )
        if not self._ready.done():
            ended.cancel()
            await self.close()
            message = "the process that flow runs are forked from did not start"
            raise Refused(message)

    async def fork(self, runner: Runner) -> None:
        """Have a warm process forked.

        Raises:
            TemplateGone: It died, or its code is old.
        """
        answer: asyncio.Future[int] = new_future()
        self._asked[runner.name] = answer
        if self.writer is None or not self.lives:
            message = "the process that flow runs are forked from has died"
            raise TemplateGone(message)
        self.writer.write(encode({"fork": runner.name}))
        runner.pid = await answer

    def heard(self, message: Message) -> None:
        """Take note of what it says."""
        if "ready" in message and not self._ready.done():
            self._ready.set_result(int(message["ready"]))
        elif "forked" in message:
            self._asked.pop(message["forked"]).set_result(int(message["pid"]))
        elif "stale" in message:
            self._gone = True
            answer = self._asked.pop(message["stale"])
            answer.set_exception(TemplateGone("its code has changed", stale=True))
        elif "gone" in message:
            self._gone = True
            for answer in self._asked.values():
                if not answer.done():
                    answer.set_exception(TemplateGone("it died"))
            self._asked.clear()

    async def close(self) -> None:
        """End it; its children end by themselves."""
        self._gone = True
        if self.writer is not None:
            self.writer.close()
        if self._process is not None and self._process.returncode is None:
            kill(self._process.pid)
            await self._process.wait()
