"""What a file is, told by its first bytes and nothing else.

Names, suffixes and Content-Types come from servers and users and are often wrong (a Forge option
changed by somebody else turns the PNG that was asked for into a JPEG).
"""

import os
import struct
from dataclasses import dataclass
from pathlib import Path

from stablequeue.engines.base import Kind
from stablequeue.errors import NotFound, UnreadableFile

HEAD = 512 * 1024
"""Bytes of a file's beginning that are enough: a JPEG's size stands behind its metadata."""

_TAIL = 64 * 1024
_MOV_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip"}
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_TEXT_CONTROLS = frozenset(b"\t\n\r\f\x1b")

SUFFIXES = {
    "image/png": ".png",
    "image/jpeg": ".jpg",
    "image/webp": ".webp",
    "image/gif": ".gif",
    "image/avif": ".avif",
    "video/mp4": ".mp4",
    "video/webm": ".webm",
    "video/x-matroska": ".mkv",
    "video/quicktime": ".mov",
    "audio/mp4": ".m4a",
    "audio/wav": ".wav",
    "audio/mpeg": ".mp3",
    "audio/flac": ".flac",
    "audio/ogg": ".ogg",
    "text/plain": ".txt",
    "image/svg+xml": ".svg",
}
"""The suffix a stored file of each type gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sniffed:
    """What a file is. Width and height in pixels; 0 where they do not apply or are not told."""

    kind: Kind
    mime: str
    width: int = 0
    height: int = 0
    animated: bool = False
    """A picture of several frames, which only its own bytes can show."""

    @property
    def suffix(self) -> str:
        """The suffix for a file of this type, with its dot."""
        return SUFFIXES[self.mime]


def sniff(source: Path | bytes, *, whole: bool = True) -> Sniffed:
    """Say what a file is; reads its beginning and its end only.

    Args:
        source: A file, or at least the first bytes of one.
        whole: Refuse a picture file whose end is missing (a broken transfer).

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is empty, cut off, or of no type we store.
    """
    if isinstance(source, bytes):
        head, tail, size, name = source[:HEAD], b"", 0, "the data"
    else:
        name = source.name
        try:
            with source.open("rb") as stream:
                head = stream.read(HEAD)
                size = stream.seek(0, os.SEEK_END)
                stream.seek(max(0, size - _TAIL))
                tail = stream.read(_TAIL)
        except OSError as error:
            raise NotFound(f"{name} cannot be read: {error.strerror}") from error
    if not head:
        raise UnreadableFile(f"{name} is empty")
    found = _image(head) or _sound_or_video(head) or _text(head)
    if found is None:
        raise UnreadableFile(f"{name} is no picture, video, sound or text of a known type")
    if whole and isinstance(source, Path) and not _has_end(found.mime, head, tail, size):
        raise UnreadableFile(f"{name} is cut off: its end is missing")
    return found


def _has_end(mime: str, head: bytes, tail: bytes, size: int) -> bool:
    """Look for what ends a file; tools append things behind it, so it need not be the very end."""
    if mime == "image/png":
        return b"IEND" in tail
    if mime == "image/jpeg":
        return b"\xff\xd9" in tail
    if mime == "image/webp":
        return int.from_bytes(head[4:8], "little") + 8 <= size + 1  # some writers omit the pad
    return True


def _image(head: bytes) -> Sniffed | None:
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        size = struct.unpack(">II", head[16:24].ljust(8, b"\0"))
        # The animation control chunk stands before the first picture data.
        return _picture("image/png", size, animated=b"acTL" in head[: head.find(b"IDAT")])
    if head.startswith(b"\xff\xd8\xff"):
        return _picture("image/jpeg", _jpeg_size(head))
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        animated = head[12:16] == b"VP8X" and bool(head[20:21] > b"" and head[20] & 2)
        return _picture("image/webp", _webp_size(head), animated=animated)
    if head.startswith((b"GIF87a", b"GIF89a")):
        size = struct.unpack("<HH", head[6:10].ljust(4, b"\0"))
        return _picture("image/gif", size, animated=_gif_moves(head))
    if head[4:8] == b"ftyp" and (b"avif" in head[8:32] or b"avis" in head[8:32]):
        return _picture("image/avif", _avif_size(head), animated=b"avis" in head[8:32])
    return None


def _picture(mime: str, size: tuple[int, ...], *, animated: bool = False) -> Sniffed:
    return Sniffed(kind=Kind.IMAGE, mime=mime, width=size[0], height=size[1], animated=animated)


def _gif_moves(head: bytes) -> bool:
    """Walk the blocks: is there a second frame, or is the file's end beyond what was read?"""
    position = 13 + (3 << (head[10] & 7) + 1 if head[10:11] > b"" and head[10] & 0x80 else 0)
    frames = 0
    while position + 10 < len(head) and head[position] in b"!,":
        if head[position : position + 1] == b",":
            frames += 1
            flags = head[position + 9]
            position += 11 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
        else:
            position += 2
        while position < len(head) and head[position]:  # sub-blocks, each led by its length
            position += 1 + head[position]
        position += 1
    return frames > 1 or (len(head) == HEAD and head[position : position + 1] != b";")


def _jpeg_size(head: bytes) -> tuple[int, int]:
    position = 2
    while position + 9 <= len(head) and head[position] == 0xFF:  # noqa: PLR2004 - marker
        marker = head[position + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack(">HH", head[position + 5 : position + 9])
            return width, height
        if marker == 0xFF or marker in _JPEG_BARE:  # noqa: PLR2004 - fill byte
            position += 1 if marker == 0xFF else 2  # noqa: PLR2004
            continue
        position += 2 + int.from_bytes(head[position + 2 : position + 4], "big")
    return 0, 0


def _webp_size(head: bytes) -> tuple[int, int]:
    form, data = head[12:16], head[20:30].ljust(10, b"\0")
    if form == b"VP8X":
        return 1 + int.from_bytes(data[4:7], "little"), 1 + int.from_bytes(data[7:10], "little")
    if form == b"VP8L":
        bits = int.from_bytes(data[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if form == b"VP8 ":
        width, height = struct.unpack("<HH", data[6:10])
        return width & 0x3FFF, height & 0x3FFF
    return 0, 0


def _avif_size(head: bytes) -> tuple[int, int]:
    # Image spatial extents property: size, "ispe", version and flags, width, height.
    at = head.find(b"ispe")
    if at < 0 or at + 16 > len(head):
        return 0, 0
    width, height = struct.unpack(">II", head[at + 8 : at + 16])
    return width, height


def _sound_or_video(head: bytes) -> Sniffed | None:  # noqa: PLR0911 - one line a format
    if head[4:8] == b"ftyp":
        brand = head[8:12]
        if brand == b"qt  ":
            return Sniffed(kind=Kind.VIDEO, mime="video/quicktime")
        if brand in {b"M4A ", b"M4B "}:
            return Sniffed(kind=Kind.AUDIO, mime="audio/mp4")
        return Sniffed(kind=Kind.VIDEO, mime="video/mp4")
    if head[4:8] in _MOV_ATOMS:
        return Sniffed(kind=Kind.VIDEO, mime="video/quicktime")
    if head.startswith(b"\x1aE\xdf\xa3"):
        webm = b"webm" in head[:64]
        return Sniffed(kind=Kind.VIDEO, mime="video/webm" if webm else "video/x-matroska")
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return Sniffed(kind=Kind.AUDIO, mime="audio/wav")
    if head.startswith(b"fLaC"):
        return Sniffed(kind=Kind.AUDIO, mime="audio/flac")
    if head.startswith(b"OggS"):
        return Sniffed(kind=Kind.AUDIO, mime="audio/ogg")
    if head.startswith(b"ID3") or (head[0] == 0xFF and head[1:2] in {b"\xfb", b"\xf3", b"\xf2"}):  # noqa: PLR2004
        return Sniffed(kind=Kind.AUDIO, mime="audio/mpeg")
    return None


def _text(head: bytes) -> Sniffed | None:
    if any(byte < 0x20 and byte not in _TEXT_CONTROLS for byte in head[:8192]):  # noqa: PLR2004
        return None
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        # The end of what was read may cut a character in two.
        if error.end < len(head) or len(head) < HEAD:
            return None
        text = head[: error.start].decode("utf-8")
    start = text.lstrip("\ufeff \t\r\n")[:1000]
    svg = start.startswith("<svg") or (start.startswith("<?xml") and "<svg" in start)
    mime = "image/svg+xml" if svg else "text/plain"
    return Sniffed(kind=Kind.TEXT, mime=mime)
