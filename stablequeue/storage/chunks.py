"""Named texts inside PNG, JPEG and WEBP files, read without decoding the picture.

Only lengths are trusted, and only as far as the file reaches: a damaged or cut-off file gives what
was found before the damage. Sizes are bounded whatever a file says.

Sources: PNG (Third Edition) chapter 11 for tEXt, zTXt and iTXt; ComfyUI's animated PNG node, which
writes a private chunk `comf` (keyword, NUL, text) after the picture data; EXIF 2.3 and XMP part 3
for where JPEG and WEBP keep theirs.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from stablequeue.errors import UnreadableFile

LARGEST_TEXT = 16 * 1024 * 1024
"""Bytes of one text, unpacked. The largest ComfyUI workflows have a few."""

_LARGEST_SUM = 64 * 1024 * 1024
_MOST_CHUNKS = 100_000
_TEXT_CHUNKS = {b"tEXt", b"zTXt", b"iTXt", b"comf"}
_EXIF_HEAD = b"Exif\0\0"
_XMP_HEAD = b"http://ns.adobe.com/xap/1.0/\0"
_JPEG_SCAN = 0xDA
_JPEG_END = 0xD9
_JPEG_APP1 = 0xE1
_JPEG_COMMENT = 0xFE


@dataclass(slots=True)
class Parts:
    """What lies beside a picture's pixels.

    Attributes:
        texts: By keyword; the first of several wins, as in every reader.
        exif: The TIFF structure, without the `Exif` header. Empty: none.
        xmp: The XMP packet. Empty: none.
    """

    texts: dict[str, str] = field(default_factory=dict[str, str])
    exif: bytes = b""
    xmp: bytes = b""

    def add(self, keyword: str, text: str) -> None:
        """Keep a text.

        Raises:
            UnreadableFile: All texts together are too large.
        """
        if sum(map(len, self.texts.values())) + len(text) > _LARGEST_SUM:
            raise UnreadableFile("the metadata is too large")
        self.texts.setdefault(keyword, text)


def png_parts(stream: BinaryIO) -> Parts:
    """Read a PNG's texts, EXIF and XMP; `stream` stands at its beginning.

    Raises:
        UnreadableFile: A text is too large, packed or unpacked.
    """
    parts = Parts()
    stream.seek(8)
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        kind, length = head[4:], int.from_bytes(head[:4], "big")
        if len(kind) < 4 or kind == b"IEND":  # noqa: PLR2004 - a chunk's name has 4 bytes
            break
        if kind in _TEXT_CHUNKS or kind == b"eXIf":
            data = _read(stream, length)
            if data is None:
                break
            if kind == b"eXIf":
                parts.exif = parts.exif or data.removeprefix(_EXIF_HEAD)
            else:
                _png_text(parts, kind, data)
            stream.seek(4, 1)
        else:
            stream.seek(length + 4, 1)
    if packet := parts.texts.pop("XML:com.adobe.xmp", ""):
        parts.xmp = packet.encode("utf-8", "surrogateescape")
    return parts


def _png_text(parts: Parts, kind: bytes, data: bytes) -> None:
    keyword, found, rest = data.partition(b"\0")
    if not found:
        return
    if kind == b"zTXt":
        rest = _unpack(rest[1:])
    elif kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:]
        rest = rest.partition(b"\0")[2].partition(b"\0")[2]  # language, translated keyword
        if packed:
            rest = _unpack(rest)
    parts.add(keyword.decode("latin-1"), _decode(rest))


def jpeg_parts(stream: BinaryIO) -> Parts:
    """Read a JPEG's comment, EXIF and XMP; `stream` stands at its beginning."""
    parts = Parts()
    stream.seek(2)
    for marker, data in _jpeg_segments(stream):
        if marker == _JPEG_COMMENT:
            parts.add("comment", _decode(data))
        elif data.startswith(_EXIF_HEAD):
            parts.exif = parts.exif or data[len(_EXIF_HEAD) :]
        elif data.startswith(_XMP_HEAD):
            parts.xmp = parts.xmp or data[len(_XMP_HEAD) :]
    return parts


def _jpeg_segments(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield (marker, content) of comments and APP1 segments before the picture data."""
    for _ in range(_MOST_CHUNKS):
        head = stream.read(2)
        if len(head) < 2 or head[0] != 0xFF:  # noqa: PLR2004 - every marker begins so
            return
        marker = head[1]
        if marker == 0xFF:  # noqa: PLR2004 - a fill byte
            stream.seek(-1, 1)
            continue
        if marker in {_JPEG_SCAN, _JPEG_END}:
            return
        length = int.from_bytes(stream.read(2), "big") - 2
        if length < 0:
            return
        if marker in {_JPEG_APP1, _JPEG_COMMENT}:
            yield marker, stream.read(length)
        else:
            stream.seek(length, 1)


def webp_parts(stream: BinaryIO) -> Parts:
    """Read a WEBP's EXIF and XMP; `stream` stands at its beginning.

    Raises:
        UnreadableFile: One of them is too large.
    """
    parts = Parts()
    stream.seek(12)
    for _ in range(_MOST_CHUNKS):
        head = stream.read(8)
        if len(head) < 8:  # noqa: PLR2004 - name and length
            break
        kind, length = head[:4], int.from_bytes(head[4:], "little")
        if kind in {b"EXIF", b"XMP "}:
            data = _read(stream, length)
            if data is None:
                break
            if kind == b"EXIF":
                parts.exif = parts.exif or data.removeprefix(_EXIF_HEAD)
            else:
                parts.xmp = parts.xmp or data
            stream.seek(length & 1, 1)
        else:
            stream.seek(length + (length & 1), 1)
    return parts


def _read(stream: BinaryIO, length: int) -> bytes | None:
    """Return that many bytes, None when the file ends before."""
    if length > LARGEST_TEXT:
        raise UnreadableFile(f"the metadata says it has {length} bytes, which is too much")
    data = stream.read(length)
    return data if len(data) == length else None


def _unpack(data: bytes) -> bytes:
    try:
        packed = zlib.decompressobj()
        text = packed.decompress(data, LARGEST_TEXT)
    except zlib.error:
        return b""
    if packed.unconsumed_tail:
        raise UnreadableFile("the metadata is too large when unpacked")
    return text


def _decode(data: bytes) -> str:
    """Decode UTF-8, which many tools write even where the standard says Latin-1."""
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")
