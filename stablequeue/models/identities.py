"""Every name the world has for the bytes of a model file, computed in one pass over it.

=========  ===================================================================  ==============
name       computed over                                                        written as
=========  ===================================================================  ==============
SHA-256    the whole file; the identity of a file, all others are look-up keys  64 digits
AutoV2     its first 10 digits (A1111's "Model hash" since 2023)                10 digits
AutoV1     SHA-256 of the bytes [0x100000, 0x110000), its first 8 digits        8 digits
AutoV3     SHA-256 of what follows the safetensors header, its first 12 digits  12 digits
CRC32      zlib's CRC-32 of the whole file, bytes in little-endian order        8 digits
BLAKE3     the whole file, 256 bits                                             64 digits
=========  ===================================================================  ==============

All in lower case here; Civitai writes upper case. Sources: Civitai's model scanner and its tests
(2025-01), Civitai's server (2026-08), kohya's sd-scripts for the hash without header. Vectors:
`tests/recordings/civitai/hashes`.
"""

import hashlib
import os
import queue
import stat
import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from io import FileIO
from pathlib import Path
from typing import Protocol, Self

from blake3 import blake3

from stablequeue.errors import FileInUse, NotFound, Stopped, UnreadableFile

BLOCK = 1024 * 1024
"""Bytes read at once."""

_RING = 8
"""Blocks between the reader and the slowest hash."""

_INLINE = 4 * BLOCK
"""Files up to this size are not worth threads."""

_LEGACY = (0x100000, 0x110000)
_LEGACY_SMALLEST = 2 * 1024 * 1024
_LENGTH_BYTES = 8

NOTHING = hashlib.sha256().hexdigest()
"""SHA-256 of no bytes. Broken trainers write it into LoRAs, and asking Civitai for it or for its
beginning finds somebody else's model: it identifies nothing."""

Progress = Callable[[int], None]
"""Called with the bytes done so far, about once a block, from the calling thread."""

Stop = Callable[[], bool]
"""Asked once a block, from the calling thread, whether to stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identities:
    """What identifies the bytes of one file; digits in lower case.

    Attributes:
        size: In bytes.
        autov1: "" for files of less than 2 MiB, which Civitai gives none.
        tensors_sha256: All 64 digits of which AutoV3 has 12: SHA-256 of what follows the
            safetensors header (kohya's `sshs_model_hash`). For files of other formats the same
            reading is done blindly, as Civitai's scanner does. "" where nothing follows.
    """

    size: int
    sha256: str
    autov1: str
    tensors_sha256: str
    crc32: str
    blake3: str

    @property
    def autov2(self) -> str:
        """The first 10 digits of the SHA-256."""
        return self.sha256[:10]

    @property
    def autov3(self) -> str:
        """The first 12 digits of the hash without header."""
        return self.tensors_sha256[:12]

    def to_json(self) -> dict[str, str | int]:
        """Return plain data, derived names included."""
        return {**asdict(self), "autov2": self.autov2, "autov3": self.autov3}


def is_nothing(digits: str) -> bool:
    """Say whether a hash is that of no bytes, or the beginning of it."""
    return bool(digits) and NOTHING.startswith(digits.lower())


def identify(
    path: Path, *, progress: Progress | None = None, stop: Stop | None = None
) -> Identities:
    """Compute all identities of a file, reading it once.

    Args:
        path: A finished model file.
        progress: Told the bytes done.
        stop: When it returns True the work ends with `Stopped` within a block.

    Raises:
        NotFound: There is no such file, or it cannot be read.
        UnreadableFile: It is no regular file.
        FileInUse: It changed while it was read; retryable once it is finished.
        Stopped: As `stop` wished.
    """
    with _opened(path) as file:
        digests = (_Sha256(), _Tensors(file.size), _Legacy(file.size), _Crc32(), _Blake3())
        every: tuple[_Digest, ...] = digests
        if file.size <= _INLINE:
            for block in file.blocks(bytearray(BLOCK), progress, stop):
                for digest in every:
                    digest.update(block)
        else:
            _in_threads(file, every, progress, stop)
        file.check_unchanged()
    sha256, tensors, legacy, crc32, whole = digests
    return Identities(
        size=file.size,
        sha256=sha256.hexdigest(),
        autov1=legacy.hexdigest(),
        tensors_sha256=tensors.hexdigest(),
        crc32=crc32.hexdigest(),
        blake3=whole.hexdigest(),
    )


def sha256_of(path: Path, *, progress: Progress | None = None, stop: Stop | None = None) -> str:
    """Compute the SHA-256 alone, 64 digits in lower case.

    Arguments and errors as for `identify`.
    """
    with _opened(path) as file:
        digest = hashlib.sha256()
        for block in file.blocks(bytearray(BLOCK), progress, stop):
            digest.update(block)
        file.check_unchanged()
    return digest.hexdigest()


class _opened:  # noqa: N801  # reads as what it does
    """A file open for reading, its size, and whether it is still what it was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            try:
                self._stream: FileIO = stack.enter_context(_open_regular(self.path))
            except OSError as error:
                raise NotFound(f"{self.path.name} cannot be read: {error.strerror}") from error
            self._before = os.fstat(self._stream.fileno())
            self.size = self._before.st_size
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._stack.close()

    def blocks(
        self, buffer: bytearray, progress: Progress | None, stop: Stop | None
    ) -> Iterator[memoryview]:
        """Yield the file's blocks, each valid until the next is asked for."""
        view = memoryview(buffer)
        done = 0
        while length := self.read_into(view):
            yield view[:length]
            done += length
            told(done, progress, stop, self.path)

    def read_into(self, view: memoryview) -> int:
        """Fill a block as far as the file goes; return its length in bytes."""
        filled = 0
        try:
            while filled < len(view):
                length = self._stream.readinto(view[filled:])
                if not length:
                    break
                filled += length
        except OSError as error:
            message = f"{self.path.name} cannot be read: {error.strerror}; check the disk"
            raise UnreadableFile(message) from error
        return filled

    def check_unchanged(self) -> None:
        """Raise FileInUse if somebody wrote to the file, or put another in its place."""
        now = os.fstat(self._stream.fileno())
        try:
            named = self.path.stat()
        except OSError:
            named = None
        before = self._before
        if (
            named is None
            or (now.st_size, now.st_mtime_ns) != (before.st_size, before.st_mtime_ns)
            or (named.st_dev, named.st_ino) != (before.st_dev, before.st_ino)
        ):
            message = f"{self.path.name} changed while it was read; try again when it is finished"
            raise FileInUse(message)


def told(done: int, progress: Progress | None, stop: Stop | None, path: Path) -> None:
    """Tell how far the work is, and end it if that is wished.

    Raises:
        Stopped: As `stop` wished.
    """
    if progress is not None:
        progress(done)
    if stop is not None and stop():
        raise Stopped(f"reading {path.name} was stopped")


def _open_regular(path: Path) -> FileIO:
    # Without O_NONBLOCK a FIFO would block here.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    stream = os.fdopen(os.open(path, flags), "rb", buffering=0)
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise UnreadableFile(f"{path.name} is no file")
    return stream


class _Digest(Protocol):
    """Something that is fed the whole file in order."""

    def update(self, block: memoryview) -> None: ...
    def hexdigest(self) -> str: ...


class _Sha256:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def update(self, block: memoryview) -> None:
        self._digest.update(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class _Tensors:
    """What follows the length of a safetensors header and the header."""

    def __init__(self, size: int) -> None:
        self._digest = hashlib.sha256()
        self._size = size
        self._at = 0
        self._start = 0

    def update(self, block: memoryview) -> None:
        if self._at == 0:
            length = int.from_bytes(block[:_LENGTH_BYTES], "little")
            fits = length <= self._size - _LENGTH_BYTES
            self._start = _LENGTH_BYTES + (length if fits else 0)
        end = self._at + len(block)
        if end > self._start:
            self._digest.update(block[max(0, self._start - self._at) :])
        self._at = end

    def hexdigest(self) -> str:
        return self._digest.hexdigest() if self._at > max(self._start, _LENGTH_BYTES) else ""


class _Legacy:
    def __init__(self, size: int) -> None:
        self._digest = hashlib.sha256()
        self._size = size
        self._at = 0

    def update(self, block: memoryview) -> None:
        first, last = _LEGACY
        if self._at < last:
            self._digest.update(block[max(0, first - self._at) : max(0, last - self._at)])
        self._at += len(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()[:8] if self._size >= _LEGACY_SMALLEST else ""


class _Crc32:
    def __init__(self) -> None:
        self._value = 0

    def update(self, block: memoryview) -> None:
        self._value = zlib.crc32(block, self._value)

    def hexdigest(self) -> str:
        return self._value.to_bytes(4, "little").hex()


class _Blake3:
    def __init__(self) -> None:
        self._digest = blake3()

    def update(self, block: memoryview) -> None:
        self._digest.update(block)

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


class _Lane(threading.Thread):
    """One digest in a thread of its own, fed by a queue; hashing releases the interpreter."""

    def __init__(self, digest: _Digest, done: Callable[[int], None]) -> None:
        super().__init__(name="hash", daemon=True)
        self._digest = digest
        self._done = done
        self.blocks: queue.SimpleQueue[tuple[int, memoryview] | None] = queue.SimpleQueue()
        self.error: Exception | None = None

    def run(self) -> None:
        while (item := self.blocks.get()) is not None:
            slot, block = item
            if self.error is None:
                try:
                    self._digest.update(block)
                except Exception as error:  # noqa: BLE001  # raised again where the file is read
                    self.error = error
            self._done(slot)


class _Ring:
    """Blocks that are filled in turn, each free again when every digest has had it."""

    def __init__(self, users: int) -> None:
        self._users = users
        self._blocks = [memoryview(bytearray(BLOCK)) for _ in range(_RING)]
        self._left = [0] * _RING
        self._lock = threading.Lock()
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(_RING):
            self._free.put(slot)

    def take(self) -> tuple[int, memoryview]:
        """Wait for a free block."""
        slot = self._free.get()
        self._left[slot] = self._users
        return slot, self._blocks[slot]

    def done(self, slot: int) -> None:
        """Note that one digest has had a block."""
        with self._lock:
            self._left[slot] -= 1
            last = self._left[slot] == 0
        if last:
            self._free.put(slot)


def _in_threads(
    file: _opened, digests: tuple[_Digest, ...], progress: Progress | None, stop: Stop | None
) -> None:
    """Read the file into a ring of blocks, each of which every digest has in its own time."""
    ring = _Ring(len(digests))
    lanes = [_Lane(digest, ring.done) for digest in digests]
    for lane in lanes:
        lane.start()
    try:
        _feed(file, ring, lanes, progress, stop)
    finally:
        for lane in lanes:
            lane.blocks.put(None)
        for lane in lanes:
            lane.join()
    for lane in lanes:
        if lane.error is not None:
            raise lane.error


def _feed(
    file: _opened, ring: _Ring, lanes: list[_Lane], progress: Progress | None, stop: Stop | None
) -> None:
    read = 0
    while True:
        slot, block = ring.take()
        length = file.read_into(block)
        if not length:
            return
        for lane in lanes:
            lane.blocks.put((slot, block[:length]))
        read += length
        told(read, progress, stop, file.path)
