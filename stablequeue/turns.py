"""Taking turns in an event loop, in the order people came."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from weakref import WeakKeyDictionary


class Turns:
    """Lets one task of each event loop at a time have what it waits for."""

    def __init__(self) -> None:
        self._locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            WeakKeyDictionary()
        )

    @contextlib.asynccontextmanager
    async def one(self, *, patience_s: float) -> AsyncGenerator[None]:
        """Hold the turn inside; after `patience_s` seconds go on without it."""
        lock = self._locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())
        held = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience_s):
                held = await lock.acquire()
        try:
            yield
        finally:
            if held:
                lock.release()
