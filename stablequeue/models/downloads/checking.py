"""Is it what was promised: the kind of file, its size, its SHA-256, and room for it."""

import shutil
from pathlib import Path

from stablequeue.errors import DiskFull, DownloadError, NotAModelFile
from stablequeue.models.sources.naming import has_model_suffix

HEAD = 64
"""Bytes of a file's beginning that tell what it is."""

_LARGEST_HEADER = 100 * 1024 * 1024
"""Of a safetensors file; the reference library refuses more."""

_PICKLED = (".ckpt", ".pt", ".pt2", ".pth", ".bin", ".pkl")
_PAGES = (b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")


def check_head(source: str, name: str, head: bytes, size: int) -> None:
    """Refuse what is not the kind of file its name says, by its first bytes.

    Args:
        source: For the message.
        name: File name; only model suffixes are known, anything else must just not be a page.
        head: At least the first `HEAD` bytes, or the whole file.
        size: Of the whole file in bytes; 0: unknown.

    Raises:
        NotAModelFile: It is a page, an error message or another kind of file.
    """
    start = head[:HEAD].lstrip()
    if start.lower().startswith(_PAGES):
        raise _page(source)
    lower = name.casefold()
    if lower.endswith((".safetensors", ".sft")):
        fits = _safetensors(head, size)
    elif lower.endswith(".gguf"):
        fits = head.startswith(b"GGUF")
    elif lower.endswith(_PICKLED):
        # Old files are bare pickles or tar archives; many carry another format's name.
        fits = head.startswith((b"PK", b"\x80", b"GGUF")) or _safetensors(head, size)
    else:
        fits = bool(head) and not (has_model_suffix(name) and start.startswith(b"{"))
    if not fits:
        raise NotAModelFile(
            source, f"what came is no {lower.rpartition('.')[2]} file; look at its page"
        )


def check_type(source: str, name: str, content_type: str) -> None:
    """Refuse a web page or JSON instead of a model, by what the server calls it.

    Raises:
        NotAModelFile: It is one.
    """
    kind = content_type.partition(";")[0].strip().casefold()
    if kind in {"text/html", "application/xhtml+xml"}:
        raise _page(source)
    if kind in {"application/json", "application/xml", "text/xml"} and has_model_suffix(name):
        raise NotAModelFile(source, f"an error message ({kind}) came instead of the file")


def check_room(folder: Path, needed: int, margin: int) -> None:
    """Refuse to begin what will not fit.

    Args:
        folder: Where it goes; exists.
        needed: Bytes still to come.
        margin: Bytes to be left free.

    Raises:
        DiskFull: There is not enough room.
    """
    free = shutil.disk_usage(folder).free
    if free < needed + margin:
        raise DiskFull(
            str(folder),
            f"{needed / 1e9:.2f} GB are needed and {margin / 1e9:.2f} GB kept free, but only"
            f" {free / 1e9:.2f} GB are free; make room or choose another folder",
        )


def _page(source: str) -> DownloadError:
    return NotAModelFile(
        source,
        "a web page came instead of the file: it may need a login, or the address is a page's",
    )


def _safetensors(head: bytes, size: int) -> bool:
    length = int.from_bytes(head[:8], "little")
    fits = 2 <= length <= _LARGEST_HEADER and (not size or length + 8 <= size)  # noqa: PLR2004
    return fits and head[8:9] == b"{"
