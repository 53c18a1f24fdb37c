"""When to try again, and when to stop."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Protocol

from stablequeue.errors import DownloadError, RateLimited

Pause = Callable[[float], Awaitable[None]]


class Tries(Protocol):
    """How often and how long; `downloads.Limits` says what each number means."""

    @property
    def tries(self) -> int:
        """Failures in a row, the last of which is final."""
        ...

    @property
    def most_failures(self) -> int:
        """Failures in all."""
        ...

    @property
    def first_wait_s(self) -> float:
        """Before the second try; doubled each time."""
        ...

    @property
    def longest_wait_s(self) -> float:
        """Between two tries."""
        ...

    @property
    def patience_s(self) -> float:
        """The longest Retry-After that is waited for."""
        ...


class Patience:
    """Counts the failures of one stream or one request and waits between its tries.

    Args:
        limits: `tries`, `most_failures` and the waits.
        pause: Waits so many seconds.
    """

    def __init__(self, limits: Tries, pause: Pause = asyncio.sleep) -> None:
        self._limits, self._pause = limits, pause
        self._in_a_row = self._in_all = 0

    def progressed(self) -> None:
        """Note that a byte came."""
        self._in_a_row = 0

    async def failed(self, error: DownloadError) -> None:
        """Wait before the next try; the error itself when there is none.

        Raises:
            DownloadError: `error`, when that was the last try, or it names a time too far away.
        """
        self._in_a_row += 1
        self._in_all += 1
        if self._in_a_row >= self._limits.tries or self._in_all >= self._limits.most_failures:
            raise error
        wait = self._limits.first_wait_s * 2 ** (self._in_a_row - 1)
        wait = min(wait, self._limits.longest_wait_s) * random.uniform(0.5, 1.0)  # noqa: S311
        if isinstance(error, RateLimited) and error.retry_at is not None:
            wait = max(wait, (error.retry_at - datetime.now(UTC)).total_seconds())
            if wait > self._limits.patience_s:
                raise error
        await self._pause(wait)
