"""SHA-256 of files and streams, in one pass and bounded memory."""

import hashlib
from pathlib import Path
from typing import BinaryIO

BLOCK = 1024 * 1024
"""Bytes read at once."""


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, lower case hex.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb", buffering=0) as stream:
        return stream_sha256(stream)


def stream_sha256(stream: BinaryIO) -> str:
    """Return the SHA-256 of the rest of a stream, lower case hex."""
    digest = hashlib.sha256()
    while block := stream.read(BLOCK):
        digest.update(block)
    return digest.hexdigest()
