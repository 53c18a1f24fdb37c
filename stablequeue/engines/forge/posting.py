"""A job's one request, running in the background: its answer is the result."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any

import httpx

from stablequeue.engines.forge.client import ForgeClient

_WRITTEN = "send_request_body.complete"  # httpcore's event, after "http11." or "http2."


class Post:
    """One request for one task id. Belongs to its session; ends with it.

    Attributes:
        answer: Awaits the reply; raises EngineUnreachable if the connection broke.
        sent: Set once the whole request was written. Before that the server cannot have begun.
        interrupted: We asked the server to stop it.
        stopped_stamps: `job_timestamp`s for which somebody was seen interrupting or skipping.
    """

    def __init__(self, client: ForgeClient, path: str, body: bytes) -> None:
        self.sent = asyncio.Event()
        self.interrupted = False
        self.stopped_stamps: set[str] = set()
        self.answer: asyncio.Task[httpx.Response] = asyncio.create_task(
            client.run(path, body, self._trace)
        )
        self.answer.add_done_callback(_retrieved)

    @property
    def in_flight(self) -> bool:
        """Whether no reply came yet."""
        return not self.answer.done()

    @property
    def broken(self) -> bool:
        """Whether the connection ended without a reply."""
        return self.answer.done() and (
            self.answer.cancelled() or self.answer.exception() is not None
        )

    async def until_sent(self) -> None:
        """Wait until the request is written, or cannot be."""
        sending = asyncio.create_task(self.sent.wait())
        try:
            await asyncio.wait({sending, self.answer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            sending.cancel()

    async def until_done(self, timeout_s: float | None = None) -> bool:
        """Wait for the reply, at most for a time; whether it came or cannot come any more."""
        await asyncio.wait({self.answer}, timeout=timeout_s)
        return self.answer.done()

    async def give_up(self) -> None:
        """Close the connection. What runs on the server goes on."""
        self.answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait({self.answer})

    async def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        del info
        if event.endswith(_WRITTEN):
            self.sent.set()


def _retrieved(task: "asyncio.Task[httpx.Response]") -> None:
    """Look at the outcome, so that a failure nobody collects is not reported by the loop."""
    if not task.cancelled():
        task.exception()
