"""What a model file says about itself at its beginning, whatever its format.

Only the header is read; tensors never are, and a pickle (which would run code) is not looked into
beyond its first bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from stablequeue.errors import NotFound, UnreadableFile

Shape = tuple[int, ...]

_FIRST = 16
_PICKLE_PROTOCOL = 0x80
_PAGE_STARTS = (b"<!doctype", b"<html", b"{", b"[")


class Format(StrEnum):
    """How a model file is written."""

    SAFETENSORS = "safetensors"
    GGUF = "gguf"
    PICKLE = "pickle"  # .ckpt, .pt, .pth, .bin: loading one runs what it says
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """A header.

    Attributes:
        shapes: Of every tensor by its name, outermost dimension first, as PyTorch tells them (GGUF
            stores them the other way round). Empty for a pickle.
        metadata: Texts the file carries; from outside, for people and for rules, never for paths.
        dtypes: How many tensors have each type, e.g. {"F16": 686, "F32": 1}.
        size: Bytes of the header, its own length included; the tensors follow.
    """

    format: Format
    shapes: Mapping[str, Shape] = field(default_factory=dict[str, Shape])
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    dtypes: Mapping[str, int] = field(default_factory=dict[str, int])
    size: int = 0


def read_header(path: Path) -> Header:
    """Read a model file's header.

    Raises:
        NotFound: There is no such file, or it cannot be read.
        UnreadableFile: It is cut off, damaged, or no model at all; says what it is.
    """
    from stablequeue.models import gguf, safetensors  # noqa: PLC0415  # they need our classes

    try:
        with path.open("rb") as stream:
            first = stream.read(_FIRST)
    except OSError as error:
        raise NotFound(f"{path.name} cannot be read: {error.strerror}") from error
    found = sniff_format(first)
    if found is Format.GGUF:
        return gguf.read(path)
    if found is Format.SAFETENSORS:
        return safetensors.read(path)
    if found is Format.PICKLE:
        return Header(format=Format.PICKLE)
    raise UnreadableFile(f"{path.name} is no model file: {_what(first)}")


def sniff_format(first: bytes) -> Format:
    """Tell a format by the first 16 bytes of a file, fewer if it has no more.

    A safetensors file begins with the length of its header and a brace. Its eight bytes of length
    come before anything a page or a JSON answer of a site could begin with, so a sign-in page saved
    under a model's name is UNKNOWN.
    """
    if first.startswith(b"GGUF"):
        return Format.GGUF
    if first.startswith(b"PK\x03\x04") or (
        first[:1] == bytes([_PICKLE_PROTOCOL]) and first[1:2] in {b"\2", b"\3", b"\4", b"\5"}
    ):
        return Format.PICKLE
    if first[8:9] == b"{" and first[5:8] == b"\0\0\0":
        return Format.SAFETENSORS
    return Format.UNKNOWN


def _what(first: bytes) -> str:
    start = first.lstrip().lower()
    if not first:
        return "it is empty"
    if start.startswith(_PAGE_STARTS):
        return "it holds a web page or an error message; delete it and download it again"
    return "its beginning is of no known format"
