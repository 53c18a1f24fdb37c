"""Not more requests than a host likes."""

import asyncio
import time
from collections.abc import Callable

from stablequeue.models.sources.patience import Pause


class Pace:
    """A token bucket, shared by everybody in this process who asks one host.

    Args:
        per_s: Requests a second on the average.
        burst: Requests at once after a quiet while.
        clock: Monotonic seconds.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        per_s: float,
        burst: int,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._per_s, self._burst = per_s, burst
        self._clock, self._pause = clock, pause
        self._left, self._at = float(burst), clock()

    async def turn(self) -> None:
        """Return when it is the caller's turn; turns are given in the order they are asked for."""
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s) - 1.0
        self._at = now
        if self._left < 0:
            await self._pause(-self._left / self._per_s)
