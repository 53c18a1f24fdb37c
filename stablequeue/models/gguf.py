"""Headers of GGUF files: metadata and the shapes of the tensors.

::

    `GGUF`  u32 version  u64 tensors  u64 pairs
    pairs    text key, u32 type, value
    tensors  text name, u32 dimensions, u64 each (innermost first), u32 type, u64 offset
    padding to `general.alignment` (32), then the tensors; offsets count from there

A text is a u64 length and as many bytes. Source: ggml's `docs/gguf.md` and `gguf-py/constants.py`
(versions 2 and 3; all numbers little-endian, big-endian files of version 3 are refused).
"""

import struct
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.models.headers import Format, Header, Shape

LARGEST_HEADER = 256 * 1024 * 1024
"""Bytes of the largest header read; vocabularies of text encoders take 10 MB."""

_MAGIC = b"GGUF"
_VERSIONS = {2, 3}
_MOST_PAIRS = 10_000
_MOST_TENSORS = 200_000
_MOST_DIMENSIONS = 8
_LONGEST_NAME = 65_535
_LONGEST_TEXT = 4 * 1024 * 1024
_MOST_ELEMENTS = 4_000_000
_ALIGNMENT = "general.alignment"
_LARGEST_ALIGNMENT = 1 << 20

_NUMBERS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}
_TEXT, _ARRAY = 8, 9

_TYPES: dict[int, tuple[str, int, int]] = {
    # type -> name, elements of a block, bytes of a block
    0: ("F32", 1, 4),
    1: ("F16", 1, 2),
    2: ("Q4_0", 32, 18),
    3: ("Q4_1", 32, 20),
    6: ("Q5_0", 32, 22),
    7: ("Q5_1", 32, 24),
    8: ("Q8_0", 32, 34),
    9: ("Q8_1", 32, 40),
    10: ("Q2_K", 256, 84),
    11: ("Q3_K", 256, 110),
    12: ("Q4_K", 256, 144),
    13: ("Q5_K", 256, 176),
    14: ("Q6_K", 256, 210),
    15: ("Q8_K", 256, 292),
    16: ("IQ2_XXS", 256, 66),
    17: ("IQ2_XS", 256, 74),
    18: ("IQ3_XXS", 256, 98),
    19: ("IQ1_S", 256, 50),
    20: ("IQ4_NL", 32, 18),
    21: ("IQ3_S", 256, 110),
    22: ("IQ2_S", 256, 82),
    23: ("IQ4_XS", 256, 136),
    24: ("I8", 1, 1),
    25: ("I16", 1, 2),
    26: ("I32", 1, 4),
    27: ("I64", 1, 8),
    28: ("F64", 1, 8),
    29: ("IQ1_M", 256, 56),
    30: ("BF16", 1, 2),
}


def read(path: Path) -> Header:
    """Read a file's header, and check that the file holds all its tensors.

    Numbers and texts become metadata; of lists only their length does (a vocabulary has 250,000
    words).

    Raises:
        NotFound: There is no such file, or it cannot be read.
        UnreadableFile: The file is cut off or damaged.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            return _Reader(stream, size, path.name).header()
    except OSError as error:
        raise NotFound(f"{path.name} cannot be read: {error.strerror}") from error


class _Reader:
    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self._stream = stream
        self._left = min(size, LARGEST_HEADER)
        self._size = size
        self._name = name

    def header(self) -> Header:
        if self._take(4) != _MAGIC:
            raise self._damaged("it does not begin as a GGUF file")
        version, count, pairs = struct.unpack("<IQQ", self._take(20))
        if version not in _VERSIONS:
            raise self._damaged("its version is not 2 or 3, or its bytes are in the other order")
        if count > _MOST_TENSORS or pairs > _MOST_PAIRS:
            raise self._damaged("it claims more tensors or pairs than any model has")
        metadata = dict(self._pair() for _ in range(pairs))
        shapes: dict[str, Shape] = {}
        dtypes: Counter[str] = Counter()
        end = 0
        for _ in range(count):
            name, shape, dtype, last = self._tensor()
            shapes[name] = shape
            dtypes[dtype] += 1
            end = max(end, last)
        start = _aligned(self._stream.tell(), self._alignment(metadata))
        if start + end > self._size and count:
            here = max(0, self._size - start)
            message = f"{self._name} is cut off: {here} of {end} bytes of its tensors are there"
            raise UnreadableFile(f"{message}; download it again")
        return Header(
            format=Format.GGUF, shapes=shapes, metadata=metadata, dtypes=dict(dtypes), size=start
        )

    def _alignment(self, metadata: dict[str, str]) -> int:
        text = metadata.get(_ALIGNMENT, "32")
        alignment = int(text) if text.isdecimal() and len(text) < 10 else 0  # noqa: PLR2004
        if not 0 < alignment <= _LARGEST_ALIGNMENT:
            raise self._damaged("its alignment is no sensible number")
        return alignment

    def _pair(self) -> tuple[str, str]:
        key = self._text(_LONGEST_NAME)
        return key, self._value(self._number("I"))

    def _value(self, kind: int) -> str:
        if kind == _TEXT:
            return self._text(_LONGEST_TEXT)
        if kind in _NUMBERS:
            return str(self._number(_NUMBERS[kind]))
        if kind == _ARRAY:
            return self._array()
        raise self._damaged(f"it has a value of unknown type {kind}")

    def _array(self) -> str:
        kind, length = self._number("I"), self._number("Q")
        if length > _MOST_ELEMENTS:
            raise self._damaged("it has a list longer than any model's")
        if kind == _TEXT:
            for _ in range(length):
                self._skip(self._number("Q"))
        elif kind in _NUMBERS:
            self._skip(length * struct.calcsize("<" + _NUMBERS[kind]))
        else:
            raise self._damaged(f"it has a list of unknown type {kind}")
        return f"[{length}]"

    def _tensor(self) -> tuple[str, Shape, str, int]:
        """Return name, shape, type and the byte behind the tensor, from the tensors' beginning."""
        name = self._text(_LONGEST_NAME)
        dimensions = self._number("I")
        if dimensions > _MOST_DIMENSIONS:
            raise self._damaged(f"tensor {name[:80]!r} has {dimensions} dimensions")
        inner_first = struct.unpack(f"<{dimensions}Q", self._take(8 * dimensions))
        kind, offset = struct.unpack("<IQ", self._take(12))
        dtype, elements, width = _TYPES.get(kind, (f"type {kind}", 0, 0))
        count = 1
        for length in inner_first:
            count *= length
        bytes_used = -(-count // elements) * width if elements else 0
        return name, tuple(reversed(inner_first)), dtype, offset + bytes_used

    def _text(self, longest: int) -> str:
        length = self._number("Q")
        if length > longest:
            raise self._damaged(f"it has a text of {length} bytes")
        return self._take(length).decode("utf-8", "replace")

    def _number(self, code: str) -> int:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _take(self, length: int) -> bytes:
        self._spend(length)
        data = self._stream.read(length)
        if len(data) < length:
            raise self._cut()
        return data

    def _skip(self, length: int) -> None:
        self._spend(length)
        self._stream.seek(length, 1)

    def _spend(self, length: int) -> None:
        if length > self._left:
            raise self._cut()
        self._left -= length

    def _cut(self) -> UnreadableFile:
        if self._size > LARGEST_HEADER:
            return self._damaged("its header is over 256 MiB")
        return UnreadableFile(f"{self._name} is cut off within its header; download it again")

    def _damaged(self, why: str) -> UnreadableFile:
        return UnreadableFile(f"{self._name} has a damaged header: {why}")


def _aligned(at: int, alignment: int) -> int:
    return -(-at // alignment) * alignment
