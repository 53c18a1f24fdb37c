"""The health of the servers: who is left alone until it answers again, and memory given back."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from itertools import chain, repeat
from typing import Any

from stablequeue.engines import open_engine
from stablequeue.errors import QueueError
from stablequeue.wire import nothing_listens
from stablequeue.worker.knowledge import ServerState

logger = logging.getLogger("stablequeue.worker")

_PROBE_AGAIN_S = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0)


class Health:
    """Looks after servers that had faults.

    Args:
        servers: All of them by alias, as they are now.
        begin: Runs work beside everything else.
        wake: Called when a server may take runs again.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerState],
        begin: Callable[[Coroutine[Any, Any, None]], None],
        wake: Callable[[], None],
    ) -> None:
        self._servers = servers
        self._begin = begin
        self._wake = wake

    async def free_memory(self, alias: str) -> None:
        """Ask a server to give the card's memory back before another one uses it."""
        state = self._servers.get(alias)
        if state is None:
            return
        state.loaded = ()
        try:
            async with asyncio.timeout(15), open_engine(state.config) as engine:
                free = getattr(engine, "free_memory", None)
                if free is not None:
                    await free()
        except (QueueError, TimeoutError) as error:
            logger.warning("%s does not free its memory: %s", alias, error)

    def quarantine(self, server: ServerState, why: str) -> None:
        """Give a server nothing until it answers again.

        Args:
            server: That of the fault.
            why: Shown to people.
        """
        server.faults += 1
        if server.quarantined:
            return
        server.quarantined = why
        logger.warning("%s gets no jobs until it answers again: %s", server.alias, why)
        self._begin(self._probe_until_well(server))

    async def _probe_until_well(self, server: ServerState) -> None:
        for wait in _waits(server.faults):
            await asyncio.sleep(wait)
            if self._servers.get(server.alias) is not server or not server.quarantined:
                return
            try:
                async with asyncio.timeout(10), open_engine(server.config) as engine:
                    await engine.probe()
            except (QueueError, TimeoutError) as error:
                server.quarantined = str(error)
                self._note_silence(server, error)
                continue
            logger.info("%s answers again", server.alias)
            server.silent_since = 0.0
            server.quarantined = ""
            self._wake()
            return

    def _note_silence(self, server: ServerState, error: Exception) -> None:
        """Take note that nothing listens at a server's address: its process has ended."""
        if not nothing_listens(error):
            server.silent_since = 0.0
            return
        server.silent_since = server.silent_since or time.monotonic()
        if server.has_forgotten:
            self._wake()


def _waits(faults: int) -> Iterator[float]:
    """Seconds between looks at an ill server: longer each time, and after each relapse."""
    first = min(max(0, faults - 1), len(_PROBE_AGAIN_S) - 1)
    return chain(_PROBE_AGAIN_S[first:], repeat(_PROBE_AGAIN_S[-1]))
