"""Which bytes of a file are there, on their way, and missing. Pure bookkeeping."""

from collections.abc import Iterable
from dataclasses import dataclass

Span = tuple[int, int]
"""From the first byte to the one behind the last."""


class Spans:
    """A set of bytes, as sorted spans that neither touch nor overlap."""

    def __init__(self, spans: Iterable[Span] = ()) -> None:
        self._spans: list[Span] = []
        for start, end in spans:
            self.add(start, end)

    def add(self, start: int, end: int) -> None:
        """Add the bytes from `start` to before `end`."""
        if end <= start:
            return
        kept: list[Span] = []
        for a, b in self._spans:
            if b < start or a > end:
                kept.append((a, b))
            else:
                start, end = min(a, start), max(b, end)
        kept.append((start, end))
        kept.sort()
        self._spans = kept

    def clear(self) -> None:
        """Forget all."""
        self._spans = []

    @property
    def total(self) -> int:
        """How many bytes."""
        return sum(b - a for a, b in self._spans)

    @property
    def prefix(self) -> int:
        """How many bytes from the first on, without a gap."""
        return self._spans[0][1] if self._spans and self._spans[0][0] == 0 else 0

    def gaps(self, size: int) -> list[Span]:
        """Return what is missing of a file of `size` bytes."""
        found: list[Span] = []
        position = 0
        for a, b in self._spans:
            if a > position:
                found.append((position, min(a, size)))
            position = b
        if position < size:
            found.append((position, size))
        return found

    def to_list(self) -> list[Span]:
        """Return the spans."""
        return list(self._spans)


@dataclass(slots=True, eq=False)
class Segment:
    """What one stream is fetching: next byte, and the one behind its last.

    `end` may move towards `position` while it works: another stream took the rest over.
    """

    position: int
    end: int


UNKNOWN = 1 << 62
"""The size of a file whose size nobody tells."""


class Board:
    """Deals out what is missing to streams.

    Args:
        size: Of the whole file; None: unknown.
        there: What an earlier process left.
    """

    def __init__(self, size: int | None, there: Iterable[Span] = ()) -> None:
        self.size = size
        self._received = Spans(there)
        self._active: list[Segment] = []

    @property
    def received(self) -> int:
        """Bytes that are there."""
        return self._received.total

    @property
    def complete(self) -> bool:
        """Whether all is there."""
        return self.size is not None and not self._received.gaps(self.size)

    @property
    def busy(self) -> int:
        """How many streams are at work."""
        return len(self._active)

    def take(self, least: int) -> Segment | None:
        """Return something to fetch: the first gap nobody works on, else half of another's rest.

        Args:
            least: Nothing smaller is split off.
        """
        claimed = Spans(self._received.to_list())
        for segment in self._active:
            claimed.add(segment.position, segment.end)
        gaps = claimed.gaps(self.size if self.size is not None else UNKNOWN)
        if gaps:
            return self._started(Segment(*gaps[0]))
        if self.size is None or not self._active:
            return None
        longest = max(self._active, key=lambda one: one.end - one.position)
        rest = longest.end - longest.position
        if rest < 2 * least:
            return None
        middle = longest.position + rest // 2
        taken = Segment(middle, longest.end)
        longest.end = middle
        return self._started(taken)

    def advance(self, segment: Segment, count: int) -> None:
        """Note that a stream received `count` bytes."""
        self._received.add(segment.position, segment.position + count)
        segment.position += count

    def release(self, segment: Segment) -> None:
        """Note that a stream ended, done or not.

        What it took from another's rest and did not begin goes back to that one, whose answer may
        well bring it.
        """
        if segment not in self._active:
            return
        self._active.remove(segment)
        for other in self._active:
            if other.position < other.end == segment.position < segment.end:
                other.end = segment.end
                return

    def learn(self, size: int) -> None:
        """Note the size, once it is known; what streams work on ends there at the latest."""
        self.size = size
        for segment in self._active:
            segment.end = min(segment.end, size)

    def restart(self, segment: Segment | None = None) -> None:
        """Forget all that came; `segment` alone goes on, from the first byte to the last."""
        self._received.clear()
        self._active = []
        if segment is not None:
            segment.position = 0
            segment.end = self.size if self.size is not None else UNKNOWN
            self._active = [segment]

    def _started(self, segment: Segment) -> Segment:
        self._active.append(segment)
        return segment
