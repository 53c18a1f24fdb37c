"""One warm process, as its host sees it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from stablequeue.worker.channel import Message, encode


def new_future() -> "asyncio.Future[int]":
    """Return a future of the running loop."""
    return asyncio.get_running_loop().create_future()


@dataclass(eq=False)
class Runner:
    """One warm process.

    Attributes:
        run: Flow run id it works on; empty: none.
        runs: How many it has begun.
        reusable: Whether another run may follow.
        let_go: Whether its host has ended it and hands its run back: no crash.
        exit_code: Once it has ended; negative: by this signal.
    """

    name: str
    reusable: bool = True
    let_go: bool = False
    pid: int = 0
    run: str = ""
    runs: int = 0
    idle_since: float = field(default_factory=time.monotonic)
    exit_code: int | None = None
    ready: "asyncio.Future[int]" = field(default_factory=new_future)
    exited: "asyncio.Future[int]" = field(default_factory=new_future)
    _writer: asyncio.StreamWriter | None = None
    _ended: "asyncio.Future[int] | None" = None
    _stale: bool = False

    @property
    def lives(self) -> bool:
        """Whether the process has not ended, as far as this host knows."""
        return self.exit_code is None

    def say(self, message: Mapping[str, object]) -> None:
        """Send a message; nothing happens when the process is gone."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(encode(message))

    def works_on(self, run: str) -> bool:
        """Whether the process lives and this is the run it works on."""
        return self.lives and self.run == run

    async def perform(self, order: Mapping[str, object]) -> int:
        """Have a run done; return how it ended as an exit code, negative: by a signal.

        Raises:
            StaleRunner: The process has old code and did not begin.
        """
        self.run = str(order["run"]["id"])  # type: ignore[index]
        self.runs += 1
        self._ended = new_future()
        self.say(order)
        await asyncio.wait({self._ended, self.exited}, return_when=asyncio.FIRST_COMPLETED)
        if self._stale:
            raise StaleRunner
        return self._ended.result() if self._ended.done() else self.exited.result()

    def heard(self, message: Message) -> None:
        """Take note of what the process says about itself."""
        if "ready" in message and not self.ready.done():
            self.ready.set_result(int(message["ready"]))
        elif "end" in message or "stale" in message:
            self._stale = "stale" in message
            self.reusable = self.reusable and not message.get("last") and not self._stale
            if self._ended is not None and not self._ended.done():
                self._ended.set_result(int(message.get("code") or 0))

    def gone(self, code: int) -> None:
        """Take note that the process has ended."""
        if self.exit_code is None:
            self.exit_code = code
        if not self.exited.done():
            self.exited.set_result(code)

    def connected(self, pid: int, writer: asyncio.StreamWriter) -> None:
        """Take note of its connection."""
        self.pid, self._writer = pid, writer


class StaleRunner(Exception):
    """The code on disk is newer than the process: it did not begin; another one will."""
