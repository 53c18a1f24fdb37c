"""When a job may be sent: only while nobody else uses the server.

A waiting request cannot be withdrawn, holds one of the server's 40 threads, and dropping its
connection changes nothing (recordings `client_drop_sdapi`, `thread_starvation_*`). So ours never
wait there. Between our look and our request somebody else may be faster: then ours runs after
theirs, which cannot be avoided with this API.

What does not show: Gradio's own queue, whose jobs appear only as they start.
"""

import time

from stablequeue.engines.forge.boot import Boot
from stablequeue.engines.forge.client import ForgeClient

LEAKED_AFTER_S = 2.0
"""Waiting ids that stay while nothing runs or changes for so long will never run.

A job refused while its pictures are decoded leaves its id behind (recording
`bad_init_image_leaks_pending`)."""


class Doorman:
    """Watches one server for one session."""

    def __init__(self, client: ForgeClient) -> None:
        self._client = client
        self._still: tuple[tuple[str, int, tuple[str, ...]], float] | None = None

    async def ahead(self, boot: Boot) -> int:
        """Return how many jobs run and wait there; 0 means that one may be sent now."""
        # In this order: a job that starts in between is seen running, not overlooked.
        pending = await self._client.pending()
        state = await self._client.state()
        waiting = tuple(task for task in pending or () if task not in boot.leaked)
        if not state.idle:
            self._still = None
            return 1 + len(waiting)
        if not waiting:
            self._still = None
            return 0
        picture = (state.job_timestamp, state.job_no, waiting)
        now = time.monotonic()
        if self._still is None or self._still[0] != picture:
            self._still = (picture, now)
        elif now - self._still[1] >= LEAKED_AFTER_S:
            boot.leaked.update(waiting)
            self._still = None
            return 0
        return len(waiting)
