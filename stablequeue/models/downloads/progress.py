"""How far a download is and how fast."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

_WINDOW_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One observation.

    Attributes:
        received: Bytes that are there, those of earlier processes too; falls when all begins anew.
        total: Bytes of the file; 0: unknown.
        bytes_per_s: Over the last five seconds.
    """

    received: int
    total: int
    bytes_per_s: float


class Meter:
    """Tells a callback now and then how far a download is.

    Args:
        tell: The callback, called in the event loop; must not block.
        every_s: The least time between two calls.
    """

    def __init__(self, tell: Callable[[Progress], None] | None, every_s: float) -> None:
        self._tell, self._every_s = tell, every_s
        self._told_at = float("-inf")
        self._recent = deque([(time.monotonic(), 0)])
        self._came = 0

    def arrived(self, count: int, received: int, total: int) -> None:
        """Note that `count` bytes came."""
        self._came += count
        now = time.monotonic()
        if self._tell is not None and now - self._told_at >= self._every_s:
            self._say(now, received, total)

    def ended(self, received: int, total: int) -> None:
        """Tell the last state, whenever the last call was."""
        if self._tell is not None:
            self._say(time.monotonic(), received, total)

    def _say(self, now: float, received: int, total: int) -> None:
        assert self._tell is not None  # noqa: S101 - both callers looked
        self._told_at = now
        self._recent.append((now, self._came))
        while len(self._recent) > 2 and now - self._recent[1][0] > _WINDOW_S:  # noqa: PLR2004
            self._recent.popleft()
        since, then = self._recent[0]
        speed = (self._came - then) / (now - since) if now > since else 0.0
        self._tell(Progress(received=received, total=total, bytes_per_s=speed))
