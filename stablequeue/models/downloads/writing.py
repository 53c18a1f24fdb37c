"""Writing and hashing in a thread, so that the event loop only receives.

One thread a download: pieces are written where they belong, in whatever order they come, and
hashed in the order of the file: a piece that comes in order straight from memory, the others from
the file when there is nothing to write. Both release the interpreter's lock.
"""

import asyncio
import contextlib
import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from io import FileIO
from typing import TypeVar

from stablequeue.models.downloads.spans import Span, Spans
from stablequeue.uninterrupted import uninterrupted

T = TypeVar("T")

_BLOCK = 1024 * 1024


class Writer:
    """The thread of one part file; made and used in one event loop.

    Args:
        file: The part file, open for reading and writing without buffer; stays the caller's.
        there: What it holds already; hashed again from the file, since a hash under way cannot be
            stored.
        note: Called in the thread with what is written, every `every_s` seconds and at the end.
        every_s: Seconds between two notes.
        most: Bytes that may wait to be written.
    """

    def __init__(
        self,
        file: FileIO,
        there: list[Span],
        note: Callable[[list[Span]], None],
        *,
        every_s: float,
        most: int,
    ) -> None:
        self._file = file
        self._written = Spans(there)
        self._note, self._every_s, self._most = note, every_s, most
        self._loop = asyncio.get_running_loop()
        self._hash, self._hashed = hashlib.sha256(), 0
        self._queue: deque[tuple[int, bytes] | Callable[[], None]] = deque()
        self._waiting = 0
        self._changed = threading.Condition()
        self._closing = False
        self._failure: OSError | None = None
        self._room: asyncio.Event = asyncio.Event()
        self._noted_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="model-writer", daemon=True)
        self._thread.start()

    async def write(self, offset: int, data: bytes) -> None:
        """Hand over a piece; waits only when too much waits to be written already.

        Raises:
            OSError: An earlier piece could not be written.
        """
        with self._changed:
            if self._failure is not None:
                raise self._failure
            self._queue.append((offset, data))
            self._waiting += len(data)
            full = self._waiting > self._most
            if full:
                self._room.clear()
            self._changed.notify()
        if full:
            await self._room.wait()

    async def ask(self, work: Callable[[], T]) -> T:
        """Run `work` in the thread, behind everything handed over so far; return its result."""
        answer: asyncio.Future[T] = self._loop.create_future()

        def run() -> None:
            try:
                if self._failure is not None:
                    raise self._failure
                found = work()
            except (OSError, EOFError) as error:
                self._tell(lambda error=error: answer.done() or answer.set_exception(error))
            else:
                self._tell(lambda: answer.done() or answer.set_result(found))

        with self._changed:
            self._queue.append(run)
            self._changed.notify()
        return await answer

    async def restart(self) -> None:
        """Forget everything written; the file is emptied."""

        def empty() -> None:
            self._file.truncate(0)
            self._written.clear()
            self._hash, self._hashed = hashlib.sha256(), 0
            self._note([])

        await self.ask(empty)

    async def finish(self, *, flush: bool) -> tuple[int, str]:
        """Return how many bytes stand there without a gap, and their SHA-256 in lower case hex."""

        def complete() -> tuple[int, str]:
            while not self._closing and self._hash_more():
                pass
            if self._closing:
                raise EOFError
            if flush:
                os.fsync(self._file.fileno())
            return self._hashed, self._hash.hexdigest()

        return await self.ask(complete)

    async def close(self) -> None:
        """End the thread: what was handed over is written and noted first."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        await uninterrupted(asyncio.to_thread(self._thread.join))

    def _run(self) -> None:
        while (item := self._next()) is not None:
            if callable(item):
                item()
                continue
            offset, data = item
            if self._failure is None:
                try:
                    self._put(offset, data)
                except OSError as error:
                    self._failure = error
            with self._changed:
                self._waiting -= len(data)
                if self._waiting <= self._most // 2 or self._failure is not None:
                    self._tell(self._room.set)
        if self._failure is None:
            with contextlib.suppress(OSError):  # what is not noted is fetched again
                self._note(self._written.to_list())

    def _next(self) -> tuple[int, bytes] | Callable[[], None] | None:
        """Return what to do next, hashing while there is nothing; None at the end."""
        while True:
            with self._changed:
                if self._queue:
                    return self._queue.popleft()
                if self._closing:
                    return None
            if self._failure is None and self._hash_more():
                continue
            with self._changed:
                if not self._queue and not self._closing:
                    self._changed.wait()

    def _put(self, offset: int, data: bytes) -> None:
        view, position = memoryview(data), offset
        self._file.seek(offset)
        while view:
            count = self._file.write(view)
            view, position = view[count:], position + count
        self._written.add(offset, position)
        if offset == self._hashed:
            self._hash.update(data)
            self._hashed = position
        if time.monotonic() - self._noted_at >= self._every_s:
            self._note(self._written.to_list())
            self._noted_at = time.monotonic()

    def _hash_more(self) -> bool:
        """Hash the next block that stands in the file; False if there is none."""
        behind = self._written.prefix - self._hashed
        if behind <= 0:
            return False
        try:
            self._file.seek(self._hashed)
            block = self._file.read(min(behind, _BLOCK))
        except OSError as error:
            self._failure = error
            return False
        if not block:  # somebody cut the file
            self._written.clear()
            return False
        self._hash.update(block)
        self._hashed += len(block)
        return True

    def _tell(self, what: Callable[[], object]) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
            self._loop.call_soon_threadsafe(what)
