"""Input pictures, copied at submission and kept by their hash.

A request then names a picture as `sha256:HEX`: the file may be moved or changed afterwards, every
retry sees the same bytes, and no picture travels inside parameters.
"""

import io
import os
import stat
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from stablequeue.engines.base import Kind
from stablequeue.errors import (
    BadRequest,
    NotFound,
    QueueError,
    StoreUnavailable,
    UnreadableFile,
)
from stablequeue.storage.atomic import appearing
from stablequeue.storage.decoding import load_picture
from stablequeue.storage.sniffing import SUFFIXES, sniff

PREFIX = "sha256:"
LARGEST_INPUT = 128 * 1024 * 1024
"""Bytes of one input picture."""

_HEX_LENGTH = 64
_PICTURE_SUFFIXES = tuple(
    suffix for mime, suffix in SUFFIXES.items() if mime.startswith("image/") and suffix != ".svg"
)


class InputStore:
    """Pictures by hash below one folder; safe to use from several processes."""

    def __init__(self, folder: Path, *, largest: int = LARGEST_INPUT) -> None:
        self._folder = folder
        self._largest = largest

    def ingest(
        self,
        source: Path | bytes,
        *,
        allowed: Sequence[Path] | None = None,
        field: str = "init_image",
    ) -> str:
        """Keep a copy of a picture, its bytes unchanged, and return its `sha256:` reference.

        Args:
            source: A file, or its content.
            allowed: Folders the file must lie in, links followed. None: it may be anywhere.
            field: The request's field, for error messages.

        Raises:
            BadRequest: It is not there, not allowed, too large, or no readable picture.
            StoreUnavailable: It cannot be kept: disk full or no permission.
        """
        content = source if isinstance(source, bytes) else self._read(source, allowed, field)
        if len(content) > self._largest:
            raise BadRequest(field, f"the picture is larger than {self._largest} bytes")
        try:
            suffix = _picture_suffix(content)
        except QueueError as error:
            raise BadRequest(field, str(error)) from error
        digest = sha256(content).hexdigest()
        target = self._place(digest, suffix)
        try:
            if not target.is_file():
                with appearing(target) as temporary, temporary.open("wb") as writer:
                    writer.write(content)
                    writer.flush()
                    os.fsync(writer.fileno())
        except OSError as error:
            if target.is_file():  # another process was first, and Windows guards a file in use
                return PREFIX + digest
            raise StoreUnavailable(
                "inputs", f"cannot write in {self._folder}: {error.strerror}. Look at that disk."
            ) from error
        return PREFIX + digest

    def path(self, reference: str) -> Path:
        """Return the file of a reference; it is not to be changed.

        Raises:
            NotFound: It is no reference, or no such picture is kept here.
        """
        digest = reference.removeprefix(PREFIX)
        if (
            reference.startswith(PREFIX)
            and len(digest) == _HEX_LENGTH
            and all(letter in "0123456789abcdef" for letter in digest)
        ):
            for suffix in _PICTURE_SUFFIXES:
                path = self._place(digest, suffix)
                if path.is_file():
                    return path
        raise NotFound(
            f"there is no input picture {reference[:80]!r} here; submit the job with the file again"
        )

    def check(self, reference: str, *, field: str = "init_image") -> None:
        """Make sure that a reference leads to a picture.

        Raises:
            BadRequest: It does not.
        """
        try:
            self.path(reference)
        except NotFound as error:
            raise BadRequest(field, str(error)) from error

    def _place(self, digest: str, suffix: str) -> Path:
        return self._folder / digest[:2] / (digest + suffix)

    def _read(self, source: Path, allowed: Sequence[Path] | None, field: str) -> bytes:
        try:
            real = source.expanduser().resolve(strict=True)
            if allowed is not None:
                _check_inside(real, allowed, field)
            with _open_plain(real, field) as stream:
                # A link swapped in since then would show here: same file, still at that place.
                now = source.expanduser().resolve(strict=True)
                if now != real or not os.path.samestat(os.fstat(stream.fileno()), real.stat()):
                    raise BadRequest(field, "the file changed while it was being read")
                return stream.read(self._largest + 1)
        except (OSError, RuntimeError, ValueError) as error:
            # RuntimeError: a loop of links, or no home folder; ValueError: a NUL in the name.
            reason = getattr(error, "strerror", None) or "no usable path"
            raise BadRequest(
                field, f"{ascii(str(source))[:200]} cannot be read: {reason}"
            ) from error


def _check_inside(real: Path, allowed: Sequence[Path], field: str) -> None:
    for folder in allowed:
        if real.is_relative_to(folder.expanduser().resolve()):
            return
    raise BadRequest(
        field,
        "the picture lies outside the folders that pictures may be taken from (input_folders)",
        [str(folder) for folder in allowed],
    )


def _open_plain(path: Path, field: str) -> BinaryIO:
    """Open a regular file; never wait for a pipe, never follow a link at the end."""
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
    stream = os.fdopen(descriptor, "rb")
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        stream.close()
        raise BadRequest(field, f"{path.name} is not a file")
    return stream


def _picture_suffix(content: bytes) -> str:
    found = sniff(content)
    if found.kind is not Kind.IMAGE:
        raise UnreadableFile(f"this is {found.mime}, not a picture")
    load_picture(io.BytesIO(content))
    return found.suffix
