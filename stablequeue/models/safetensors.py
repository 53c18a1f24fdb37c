"""Headers of safetensors files, from a file or from its first bytes over HTTP.

::

    8 bytes   length N of the header, little-endian
    N bytes   JSON: tensor name -> {dtype, shape, data_offsets}, and `__metadata__`; may end in
              spaces
    the rest  the tensors; offsets count from here, and the last one ends where the file does

Source: the format's own description (huggingface/safetensors, README), whose library refuses
headers of more than 100 MB, holes and what follows the last tensor.
"""

import json
from collections import Counter
from pathlib import Path
from typing import Any, TypeGuard, cast

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.models.headers import Format, Header, Shape

LENGTH_BYTES = 8
LARGEST_HEADER = 64 * 1024 * 1024
"""Bytes of the largest header read. Real ones have 10 KB to 5 MB; embedded cover pictures make
them larger."""

_LARGEST_NUMBER = 2**63
_MOST_DIMENSIONS = 16
_BITS = {
    "F64": 64,
    "F32": 32,
    "F16": 16,
    "BF16": 16,
    "F8_E4M3": 8,
    "F8_E5M2": 8,
    "F8_E8M0": 8,
    "I64": 64,
    "I32": 32,
    "I16": 16,
    "I8": 8,
    "U64": 64,
    "U32": 32,
    "U16": 16,
    "U8": 8,
    "BOOL": 8,
}


def read(path: Path) -> Header:
    """Read a file's header, and check that the file is as long as it says.

    Raises:
        NotFound: There is no such file, or it cannot be read.
        UnreadableFile: The file is cut off or damaged.
    """
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(0)
            length = header_size(stream.read(LENGTH_BYTES), size, path.name)
            stream.seek(0)
            return parse(stream.read(length), size, path.name)
    except OSError as error:
        raise NotFound(f"{path.name} cannot be read: {error.strerror}") from error


def header_size(first: bytes, size: int, name: str = "the file") -> int:
    """Return how many bytes from the beginning `parse` needs.

    Args:
        first: At least the first 8 bytes.
        size: Of the whole file, in bytes.
        name: What to call it in messages.

    Raises:
        UnreadableFile: This is no safetensors file, or it is cut off within its header.
    """
    if len(first) < LENGTH_BYTES:
        raise UnreadableFile(f"{name} is cut off: it has {len(first)} bytes")
    length = int.from_bytes(first[:LENGTH_BYTES], "little")
    if length > LARGEST_HEADER:
        raise UnreadableFile(f"{name} is no safetensors file, or its header is over 64 MiB")
    if LENGTH_BYTES + length > size:
        raise UnreadableFile(f"{name} is cut off within its header; download it again")
    return LENGTH_BYTES + length


def parse(head: bytes, size: int, name: str = "the file") -> Header:
    """Read a header from the first `header_size` bytes of a file.

    Args:
        head: The length and the header.
        size: Of the whole file, in bytes.
        name: What to call it in messages.

    Raises:
        UnreadableFile: The header is damaged, or the file's size is not what it says.
    """
    end = header_size(head, size, name)
    if len(head) < end:
        raise UnreadableFile(f"{name} is cut off within its header; download it again")
    entries = _entries(head[LENGTH_BYTES:end], name)
    metadata = _metadata(entries.pop("__metadata__", None), name)
    shapes: dict[str, Shape] = {}
    spans: list[tuple[int, int]] = []
    dtypes: Counter[str] = Counter()
    for tensor, entry in entries.items():
        dtype, shape, span = _tensor(entry, tensor, name)
        shapes[tensor] = shape
        spans.append(span)
        dtypes[dtype] += 1
    _check_spans(spans, size - end, name)
    return Header(
        format=Format.SAFETENSORS, shapes=shapes, metadata=metadata, dtypes=dict(dtypes), size=end
    )


def _entries(raw: bytes, name: str) -> dict[str, Any]:
    try:
        entries: object = json.loads(raw)
    except (ValueError, RecursionError):  # UnicodeDecodeError and too many digits are ValueErrors
        entries = None
    if not isinstance(entries, dict):
        raise UnreadableFile(f"{name} has a damaged header: it is no JSON object")
    return cast("dict[str, Any]", entries)


def _metadata(value: Any, name: str) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UnreadableFile(f"{name} has a damaged header: its metadata is no object")
    # The format allows texts only, but some writers leave numbers and objects in.
    return {
        key: one if isinstance(one, str) else json.dumps(one)
        for key, one in cast("dict[str, Any]", value).items()
    }


def _tensor(entry: Any, tensor: str, name: str) -> tuple[str, Shape, tuple[int, int]]:
    broken = UnreadableFile(f"{name} has a damaged header: tensor {tensor[:80]!r}")
    if not isinstance(entry, dict):
        raise broken
    fields = cast("dict[str, Any]", entry)
    dtype, shape, offsets = (fields.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(dtype, str) or not _whole_numbers(shape) or not _whole_numbers(offsets):
        raise broken
    if len(shape) > _MOST_DIMENSIONS or len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004
        raise broken
    bits = _BITS.get(dtype)
    for length in shape:
        bits = bits * length if bits is not None else None
    if bits is not None and (bits + 7) // 8 != offsets[1] - offsets[0]:
        raise broken
    return dtype, tuple(shape), (offsets[0], offsets[1])


def _whole_numbers(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(
        type(one) is int and 0 <= one < _LARGEST_NUMBER for one in cast("list[Any]", value)
    )


def _check_spans(spans: list[tuple[int, int]], size: int, name: str) -> None:
    """Refuse a file whose tensors overlap or leave holes, or do not end where it ends."""
    at = 0
    for begin, end in sorted(spans):
        if begin != at:
            raise UnreadableFile(f"{name} has a damaged header: tensors overlap or leave holes")
        at = end
    if at > size:
        message = f"{name} is cut off: {size} of {at} bytes of its tensors are there"
        raise UnreadableFile(f"{message}; download it again")
    if at < size:
        raise UnreadableFile(f"{name} has {size - at} bytes after its last tensor; it is damaged")
