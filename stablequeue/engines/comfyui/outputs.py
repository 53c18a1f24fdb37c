"""What a finished prompt made: which files, of which kind, and how it ended.

Names come from the server and are hostile: they are sent back to it verbatim, and never become a
path of ours. Source: scenarios 11, 20, 24 and 26; ComfyUI `execution.py` (a125cd84, 2025-10-12).
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stablequeue.engines.base import Kind
from stablequeue.engines.comfyui.answers import (
    JSON,
    Ended,
    mapping,
    one_line,
    sequence,
    text,
)
from stablequeue.errors import EngineError, Interrupted, JobFailed, OutOfMemory

_KINDS: dict[str, tuple[Kind, str]] = {
    "png": (Kind.IMAGE, "image/png"),
    "apng": (Kind.IMAGE, "image/png"),
    "jpg": (Kind.IMAGE, "image/jpeg"),
    "jpeg": (Kind.IMAGE, "image/jpeg"),
    "webp": (Kind.IMAGE, "image/webp"),
    "gif": (Kind.IMAGE, "image/gif"),
    "avif": (Kind.IMAGE, "image/avif"),
    "bmp": (Kind.IMAGE, "image/bmp"),
    "tif": (Kind.IMAGE, "image/tiff"),
    "tiff": (Kind.IMAGE, "image/tiff"),
    "mp4": (Kind.VIDEO, "video/mp4"),
    "m4v": (Kind.VIDEO, "video/mp4"),
    "mov": (Kind.VIDEO, "video/quicktime"),
    "webm": (Kind.VIDEO, "video/webm"),
    "mkv": (Kind.VIDEO, "video/x-matroska"),
    "avi": (Kind.VIDEO, "video/x-msvideo"),
    "flac": (Kind.AUDIO, "audio/flac"),
    "mp3": (Kind.AUDIO, "audio/mpeg"),
    "wav": (Kind.AUDIO, "audio/wav"),
    "ogg": (Kind.AUDIO, "audio/ogg"),
    "opus": (Kind.AUDIO, "audio/ogg"),
    "m4a": (Kind.AUDIO, "audio/mp4"),
    "txt": (Kind.TEXT, "text/plain"),
    "json": (Kind.TEXT, "application/json"),
    "csv": (Kind.TEXT, "text/csv"),
    "svg": (Kind.TEXT, "text/plain"),  # never served as a picture: it may carry scripts
}
_SIGNATURES = (
    (0, b"\x89PNG\r\n\x1a\n", {"image/png"}),
    (0, b"\xff\xd8\xff", {"image/jpeg"}),
    (8, b"WEBP", {"image/webp"}),
    (0, b"GIF8", {"image/gif"}),
    (0, b"BM", {"image/bmp"}),
    (0, b"II*\x00", {"image/tiff"}),
    (0, b"MM\x00*", {"image/tiff"}),
    (4, b"ftypavi", {"image/avif"}),
    (4, b"ftyp", {"video/mp4", "video/quicktime", "audio/mp4"}),
    (0, b"\x1a\x45\xdf\xa3", {"video/webm", "video/x-matroska"}),
    (8, b"AVI ", {"video/x-msvideo"}),
    (0, b"fLaC", {"audio/flac"}),
    (0, b"ID3", {"audio/mpeg"}),
    (0, b"\xff\xfb", {"audio/mpeg"}),
    (0, b"\xff\xf3", {"audio/mpeg"}),
    (0, b"\xff\xf2", {"audio/mpeg"}),
    (8, b"WAVE", {"audio/wav"}),
    (0, b"OggS", {"audio/ogg"}),
)
_SUFFIX = re.compile(r"\.([A-Za-z0-9]{1,8})$")
_OUT_OF_MEMORY = re.compile(r"OutOfMemory|\bOOM\b", re.IGNORECASE)
_OUT_OF_MEMORY_WORDS = re.compile(
    r"out of memory|allocation on device|not enough .{0,20}memory|can't allocate memory",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file on the server, as its history names it."""

    filename: str
    subfolder: str
    type: str
    node: str
    kind: Kind
    mime: str
    suffix: str
    animated: bool = False

    @property
    def place(self) -> dict[str, str]:
        """The query of `GET /view`, verbatim: a missing subfolder is a 404."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}

    def local_name(self, ordinal: int) -> str:
        """Return our own name for it: nothing of the server's but a known suffix."""
        digest = hashlib.sha256(f"{self.type}\0{self.subfolder}\0{self.filename}".encode())
        return f"{ordinal:04d}-{digest.hexdigest()[:12]}.{self.suffix}"


@dataclass(frozen=True, slots=True)
class Outputs:
    """Everything a prompt made, in the order of its nodes."""

    files: tuple[RemoteFile, ...]
    texts: tuple[tuple[str, str], ...]  # (node, text)
    warnings: tuple[str, ...]


def read_outputs(ended: Ended) -> Outputs:
    """List what is to be fetched.

    Files are told by `filename`, whatever the key they stand under. Temporary ones (PreviewImage)
    count only if nothing was saved; the same file is listed once.
    """
    files: dict[tuple[str, str, str], RemoteFile] = {}
    texts: list[tuple[str, str]] = []
    warnings: list[str] = []
    for node_id, shown in ended.outputs.items():
        output = mapping(shown)
        animated = sequence(output.get("animated"))
        for key, value in output.items():
            if key == "text":
                texts += [(node_id, words) for words in _texts(value)]
            for entry in map(mapping, sequence(value)):
                name = text(entry.get("filename"))
                if not name:
                    continue
                kind = file_kind(name)
                if kind is None:
                    warnings.append(
                        f"node {one_line(node_id, 40)} made {one_line(name, 80)!r},"
                        " which is no picture, video, audio or text: left on the server"
                    )
                    continue
                found = RemoteFile(
                    filename=name,
                    subfolder=text(entry.get("subfolder")),
                    type=text(entry.get("type")) or "output",
                    node=node_id,
                    kind=kind[0],
                    mime=kind[1],
                    suffix=_suffix(name),
                    animated=any(flag is True for flag in animated),
                )
                files.setdefault((found.type, found.subfolder, found.filename), found)
    kept = [file for file in files.values() if file.type == "output"] or list(files.values())
    return Outputs(files=tuple(kept), texts=tuple(texts), warnings=tuple(dict.fromkeys(warnings)))


def file_kind(name: str) -> tuple[Kind, str] | None:
    """Return kind and MIME type a file's suffix promises; None if it is nothing we store."""
    return _KINDS.get(_suffix(name))


def keeps_promise(mime: str, head: bytes) -> bool:
    """Whether a file's first bytes are of the type its name promises.

    A proxy's error page with status 200 is not. Text has no signature and always passes.
    """
    if mime.startswith(("text/", "application/")):
        return True
    for offset, signature, mimes in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return _main_type(mime) in map(_main_type, mimes)
    return False


def actual_mime(mime: str, head: bytes) -> str:
    """Return the MIME type the first bytes say, where they say one; else what was promised."""
    for offset, signature, mimes in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return mime if mime in mimes else min(mimes)
    return mime


def failure(server: str, ended: Ended) -> EngineError | None:
    """Return why it failed, None if it succeeded.

    Told by the messages: `status_str` is `error` for a failure and for an interrupt alike.
    """
    if (data := ended.message("execution_interrupted")) is not None:
        node = text(data.get("node_type"))
        return Interrupted(
            server,
            f"somebody stopped the job on the server{f' at {one_line(node, 60)}' if node else ''}",
        )
    if (data := ended.message("execution_error")) is not None:
        return _error(server, data)
    if ended.status == "error":
        return JobFailed(server, "the job failed there and the server does not say why")
    return None


def _error(server: str, data: JSON) -> JobFailed:
    kind, message = text(data.get("exception_type")), text(data.get("exception_message"))
    node, node_type = one_line(data.get("node_id"), 40), one_line(data.get("node_type"), 60)
    words = f"{one_line(kind, 80) or 'error'}: {one_line(message) or 'without a message'}"
    said = f"node {node} ({node_type}): {words}"
    if _OUT_OF_MEMORY.search(kind) or _OUT_OF_MEMORY_WORDS.search(message):
        return OutOfMemory(
            server, f"{said}. Make the picture smaller, or free the card's memory and retry"
        )
    return JobFailed(server, said)


def _main_type(mime: str) -> str:
    return mime.partition("/")[0]


def _suffix(name: str) -> str:
    found = _SUFFIX.search(name)
    return found.group(1).lower() if found else ""


def _texts(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for entry in sequence(value):
        if isinstance(entry, str):
            yield entry
        else:
            yield from (part for part in sequence(entry) if isinstance(part, str))
