"""The streams of one download: each takes a segment, fetches it, and takes the next.

A stream that fails gives its segment back and tries again by itself; the others go on. A stream
that a server does not want (no ranges, too many connections) retires while others work.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import cast

from stablequeue.errors import DownloadError, SourceUnreachable, WrongBytes
from stablequeue.models.downloads.checking import HEAD, check_head
from stablequeue.models.downloads.limits import Limits
from stablequeue.models.downloads.opening import Changed, Door, Opened, TryAgain
from stablequeue.models.downloads.parts import Note
from stablequeue.models.downloads.progress import Meter
from stablequeue.models.downloads.spans import UNKNOWN, Board, Segment
from stablequeue.models.downloads.writing import Writer
from stablequeue.models.sources.offer import Offer
from stablequeue.models.sources.patience import Patience, Pause

logger = logging.getLogger("stablequeue.models")

_SIZE_TRIES = 2


class Fetching:
    """Brings everything that is missing into a part file.

    Args:
        offer: What is fetched.
        door: Opens it.
        writer: Of the part file.
        note: What the part file holds; what is learned about the file is put into it.
        limits: How eager and how patient.
        meter: Tells others how far it is.
        size_known: Told once the size is known; may refuse it (no room).
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        offer: Offer,
        door: Door,
        writer: Writer,
        note: Note,
        limits: Limits,
        *,
        meter: Meter,
        size_known: Callable[[int], None],
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._offer, self._door, self._writer, self._note = offer, door, writer, note
        self._limits, self._pause = limits, pause
        self._meter, self._size_known = meter, size_known
        self.board = Board(note.size or None, note.spans)
        self._head = b""
        self._ranges = asyncio.Event()  # the first answer was a range: more streams may start
        self._single = limits.streams <= 1
        self._odd_sizes = 0

    async def run(self) -> None:
        """Return when all bytes are handed to the writer.

        Raises:
            DownloadError: It cannot be had, or not now (`retryable`).
            OSError: The part file cannot be written.
        """
        for _ in range(self._limits.restarts):
            try:
                await self._all_streams()
            except Changed:
                await self._restart()
            else:
                self._meter.ended(self.board.received, self.board.size or 0)
                return
        raise SourceUnreachable(
            self._door.name, "the file there changes while it is fetched; try again later"
        )

    async def _all_streams(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                first = group.create_task(self._stream())
                if not self._single:
                    await self._first_or(first, self._ranges.wait())
                    for _ in range(self._limits.streams - 1):
                        if self.board.complete or self._single or first.done():
                            break
                        group.create_task(self._stream())
        except BaseExceptionGroup as errors:
            raise _most_telling(errors) from None
        if not self.board.complete:  # every stream retired for another's sake
            self._single = True
            await self._stream()

    async def _first_or(self, first: "asyncio.Task[None]", other: Awaitable[object]) -> None:
        waiting = asyncio.ensure_future(other)
        try:
            await asyncio.wait({first, waiting}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()

    async def _stream(self) -> None:
        patience = Patience(self._limits, self._pause)
        while True:
            if self._single and self.board.busy:
                return  # one stream brings the whole file; a second would take from it
            segment = self.board.take(self._limits.least_split)
            if segment is None:
                return
            retire = False
            try:
                await self._pull(segment, patience)
            except TryAgain as again:
                self.board.release(segment)
                logger.info("%s, at byte %d: %s", self._offer.name, segment.position, again.error)
                if again.at_once:
                    continue
                try:
                    await patience.failed(again.error)
                except DownloadError:
                    if not self.board.busy:
                        raise
                    retire = True
            except _Unwanted:
                retire = True
            finally:
                self.board.release(segment)
            if retire:
                return

    async def _pull(self, segment: Segment, patience: Patience) -> None:
        end = None if segment.end >= UNKNOWN else segment.end
        if segment.position == 0:
            end = None  # an answer of 200 is as good, and the size is learned in any case
        async with self._door.open(segment.position, end, self._note.validator) as opened:
            await self._accept(opened, segment)
            await self._receive(opened, segment, patience)
        if segment.position >= segment.end or segment.position == opened.end:
            return  # all that was asked for came, even if there is more to do by now
        if self.board.size is None and not opened.end:
            self._learn_size(segment.position)  # it told no size: where it ends is the end
            return
        raise self._door.broken("it ended before the end")

    async def _receive(self, opened: Opened, segment: Segment, patience: Patience) -> None:
        loop = asyncio.get_running_loop()
        since, came = loop.time(), 0
        async for data in opened.response.aiter_raw():
            room = segment.end - segment.position
            piece = data if len(data) <= room else data[:room]
            if segment.position < HEAD:
                self._look(segment.position, piece)
            # First the books, then the wait: meanwhile another stream may take over the rest.
            position = segment.position
            self.board.advance(segment, len(piece))
            before = loop.time()
            await self._writer.write(position, piece)
            since += loop.time() - before  # a slow disk is not a slow server
            self._meter.arrived(len(piece), self.board.received, self.board.size or 0)
            patience.progressed()
            came += len(piece)
            if segment.position >= segment.end and opened.end != segment.end:
                return  # the rest of this answer is another stream's; its connection is given up
            now = loop.time()
            if now - since > self._limits.stall_s:
                if came < self._limits.least_bytes:
                    raise self._door.broken("it hardly sends anything")
                since, came = now, 0

    async def _accept(self, opened: Opened, segment: Segment) -> None:
        """Compare an answer with what is known of the file.

        Raises:
            Changed: It is another file.
            _Unwanted: It is the whole file, and other streams bring that already.
            DownloadError: It has not the promised size.
        """
        known = self._note.validator
        differs = bool(known and opened.validator and known != opened.validator)
        if opened.ranged and differs:
            raise Changed
        if opened.size and self._offer.size and opened.size != self._offer.size:
            self._odd_sizes += 1
            error = WrongBytes(
                self._door.name,
                f"{self._offer.size} bytes were promised, its storage has {opened.size};"
                " the file was replaced, or its entry is wrong",
            )
            raise TryAgain(error) if self._odd_sizes < _SIZE_TRIES else error
        if not opened.ranged:
            if self.board.busy > 1:
                if differs:
                    raise Changed
                raise _Unwanted
            # Ranges are ignored, or If-Range found another file: this answer is all of it.
            self._single = True
            if segment.position > 0 or self.board.received:
                await self._restart(segment)
            self._note.validator = opened.validator
            self._note.size = 0
            self.board.size = None
            if size := opened.size or self._offer.size:
                self._learn_size(size)
            return
        if self._note.size and opened.size and opened.size != self._note.size:
            raise Changed
        self._note.validator = known or opened.validator
        if opened.size and not self.board.size:
            self._learn_size(opened.size)
        self._ranges.set()

    def _learn_size(self, size: int) -> None:
        self._size_known(size)
        self._note.size = size
        self.board.learn(size)

    def _look(self, position: int, piece: bytes) -> None:
        """Refuse a page or a wrong kind of file as soon as its first bytes are there."""
        if position != len(self._head):
            self._head = b"" if position else self._head
            if position:
                return  # the beginning came earlier; all of it is looked at before the end
        self._head = (self._head[:position] + piece)[:HEAD]
        if len(self._head) == HEAD:
            check_head(self._door.name, self._offer.name, self._head, self.board.size or 0)

    async def _restart(self, segment: Segment | None = None) -> None:
        self._note.size = self._offer.size
        self._note.validator = ""
        self._note.spans = []
        self.board.restart(segment)
        self.board.size = self._offer.size or None
        if segment is not None and self.board.size is None:
            segment.end = UNKNOWN
        self._head = b""
        self._ranges.clear()
        await self._writer.restart()


class _Unwanted(Exception):
    """This stream is not needed."""


def _most_telling(errors: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the one of several streams' errors that helps most."""
    found = [
        _most_telling(cast("BaseExceptionGroup[BaseException]", error))
        if isinstance(error, BaseExceptionGroup)
        else error
        for error in errors.exceptions
    ]
    for kind in (OSError, DownloadError, Changed):
        for error in found:
            if isinstance(error, kind) and not getattr(error, "retryable", False):
                return error
    return found[0]
