"""Model files for tests: small and exact."""

import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

Shapes = Mapping[str, Sequence[int]]

_WIDTH = {"F32": 4, "F16": 2, "BF16": 2, "U8": 1}


def pattern(size: int) -> bytes:
    """Return the bytes of the hash vectors: byte i is (i*i + 7*i + 3) % 251."""
    period = bytes((i * i + 7 * i + 3) % 251 for i in range(251))
    return (period * (size // 251 + 1))[:size]


def safetensors(
    tensors: Mapping[str, tuple[str, Sequence[int], bytes]], metadata: Mapping[str, Any] | None
) -> bytes:
    """Return a safetensors file, its header padded with spaces to a multiple of 8."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    blob = b""
    for name, (dtype, shape, data) in tensors.items():
        offsets = [len(blob), len(blob) + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        blob += data
    return with_header(header, blob)


def with_header(header: Any, data: bytes = b"") -> bytes:
    """Return a file with this header, whatever it is."""
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def of_shapes(
    path: Path, shapes: Shapes, metadata: Mapping[str, str] | None = None, *, fill: bytes = b""
) -> Path:
    """Write a sparse safetensors file of 1-byte tensors of these shapes.

    Args:
        path: Its folder is made.
        shapes: By the tensors' names.
        metadata: Of the header.
        fill: Written over the beginning of the data, so that files differ.
    """
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    at = 0
    for name, shape in shapes.items():
        size = 1
        for length in shape:
            size *= length
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    path.parent.mkdir(parents=True, exist_ok=True)
    head = with_header(header)
    with path.open("wb") as file:
        file.write(head + fill[:at])
        file.truncate(len(head) + at)
    return path


def model(path: Path, content: str = "", metadata: Mapping[str, str] | None = None) -> Path:
    """Write a small valid safetensors file whose tensor data depends on `content`."""
    fill = content.encode()
    return of_shapes(path, {"w": [len(fill) + 8]}, metadata, fill=fill)


def gguf(
    pairs: Sequence[tuple[str, int, bytes]] = (),
    tensors: Sequence[tuple[str, Sequence[int], int, int]] = (),
    data: bytes = b"",
    *,
    version: int = 3,
) -> bytes:
    """Return a GGUF file.

    Args:
        pairs: Key, type number, value as it stands in the file.
        tensors: Name, dimensions (innermost first), type number, offset in the data.
        data: Put behind the header, aligned to 32 bytes.
        version: Of the format.
    """
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, kind, value in pairs:
        head += gguf_text(key) + struct.pack("<I", kind) + value
    for name, dimensions, kind, offset in tensors:
        head += gguf_text(name) + struct.pack("<I", len(dimensions))
        head += struct.pack(f"<{len(dimensions)}Q", *dimensions)
        head += struct.pack("<IQ", kind, offset)
    return head + b"\0" * (-len(head) % 32) + data


def gguf_text(text: str) -> bytes:
    """Return a text as GGUF writes it."""
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw
