"""EXIF: the texts generation tools put into it, read and written.

Two conventions are in use. AUTOMATIC1111 and its forks put the infotext into UserComment as UTF-16
behind the header `UNICODE`; big-endian is usual, others write little-endian. ComfyUI's animated
WEBP node puts `prompt:{...}` into Model (0x0110) and `workflow:{...}` into Make (0x010F), further
texts into the tags below that one. Both are written here as they are read.
"""

import struct
from collections.abc import Iterator, Mapping

LARGEST_IN_JPEG = 65_533 - len(b"Exif\0\0")
"""Bytes of EXIF a JPEG can carry: its segments have a 16-bit length."""

MAKE, MODEL = 0x010F, 0x0110
ORIENTATION = 0x0112
_EXIF_IFD = 0x8769
_USER_COMMENT = 0x9286
_IMAGE_DESCRIPTION = 0x010E
_ASCII, _SHORT, _LONG, _UNDEFINED = 2, 3, 4, 7
_UNIT = {1: 1, _ASCII: 1, _SHORT: 2, _LONG: 4, _UNDEFINED: 1}
_MOST_ENTRIES = 1000
_CHARSET_LENGTH = 8
_FURTHER_TAGS = (0x010E, 0x010D, 0x010C, 0x010B)


class ExifTexts:
    """What an EXIF block says, as far as it concerns generation.

    Attributes:
        comment: UserComment, or ImageDescription where there is none.
        named: Texts of the form `name:value` in ComfyUI's tags, by lower case name.
        orientation: 1 to 8; 1 also where none is given.
    """

    def __init__(self, data: bytes) -> None:
        self.comment = ""
        self.named: dict[str, str] = {}
        self.orientation = 1
        description = ""
        for tag, kind, value, order in _entries(data):
            if tag == _USER_COMMENT:
                self.comment = self.comment or decode_comment(value)
            elif tag == ORIENTATION and kind == _SHORT:
                turned = struct.unpack(order + "H", value[:2])[0]
                self.orientation = turned if 1 <= turned <= 8 else 1  # noqa: PLR2004 - EXIF's range
            elif kind == _ASCII and 0x0100 <= tag <= MODEL:  # noqa: PLR2004
                text = value.split(b"\0")[0].decode("utf-8", "replace")
                name, colon, rest = text.partition(":")
                if colon and rest.lstrip()[:1] in {"{", "["}:
                    self.named.setdefault(name.strip().casefold(), rest.strip())
                elif tag == _IMAGE_DESCRIPTION:
                    description = text
        self.comment = self.comment or description


def decode_comment(value: bytes) -> str:
    """Decode a UserComment: eight bytes of character set, then the text."""
    charset, text = value[:_CHARSET_LENGTH], value[_CHARSET_LENGTH:]
    if charset.startswith(b"UNICODE"):
        return _decode_utf16(text)
    if charset.startswith(b"JIS"):
        decoded = text.decode("shift_jis", "replace")
    elif charset.startswith((b"ASCII", b"\0\0\0\0")):
        decoded = _decode_8bit(text)
    else:  # no header at all, which some tools write
        decoded = _decode_8bit(value)
    return decoded.strip("\0").strip()


def _decode_utf16(text: bytes) -> str:
    if text.startswith((b"\xff\xfe", b"\xfe\xff")):
        return text.decode("utf-16", "replace").strip("\0")
    # No byte order mark. Infotexts are mostly ASCII, whose high bytes are zero.
    first, second = text[0::2].count(0), text[1::2].count(0)
    order = "utf-16-le" if second > first else "utf-16-be"
    return text.decode(order, "replace").strip("\0")


def _decode_8bit(text: bytes) -> str:
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError:
        return text.decode("latin-1")


def _entries(data: bytes) -> Iterator[tuple[int, int, bytes, str]]:
    """Yield (tag, type, raw value, byte order) of the first directory and its EXIF directory."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
    if not order or len(data) < 8:  # noqa: PLR2004 - a TIFF header
        return
    waiting = [struct.unpack(order + "I", data[4:8])[0]]
    seen: set[int] = set()
    while waiting:
        start = waiting.pop()
        if start in seen or start + 2 > len(data):
            continue
        seen.add(start)
        count = struct.unpack(order + "H", data[start : start + 2])[0]
        for number in range(min(count, _MOST_ENTRIES)):
            entry = data[start + 2 + 12 * number : start + 14 + 12 * number]
            if len(entry) < 12:  # noqa: PLR2004 - an entry's length
                break
            tag, kind, amount, place = struct.unpack(order + "HHII", entry)
            size = _UNIT.get(kind, 0) * amount
            value = entry[8 : 8 + size] if size <= 4 else data[place : place + size]  # noqa: PLR2004
            if tag == _EXIF_IFD:
                waiting.append(place)
            elif size and len(value) == size:
                yield tag, kind, value, order


def build_exif(
    *, infotext: str, named: Mapping[str, str], orientation: int, largest: int
) -> tuple[bytes, list[str]]:
    """Return an EXIF block (with its `Exif` header) and the names of what did not fit.

    Args:
        infotext: Goes into UserComment.
        named: Texts by name; `prompt` and `workflow` get ComfyUI's tags, in its order.
        orientation: 1 is not written.
        largest: Bytes the block may have, its header not counted. The infotext comes first,
            then the texts in their order.
    """
    free = iter((MAKE, *_FURTHER_TAGS))
    ordered = sorted(named, key=lambda name: {"prompt": 0, "workflow": 1}.get(name, 2))
    texts: dict[int, bytes] = {}
    dropped: list[str] = []
    comment = b"UNICODE\0" + infotext.encode("utf-16-be", "replace") if infotext else b""
    if len(_directory(texts, comment, orientation)) > largest:
        comment = b""
        dropped.append("parameters")
    for name in ordered:
        tag = MODEL if name == "prompt" else next(free, 0)
        value = f"{name}:{named[name]}".encode() + b"\0"
        if tag and len(_directory(texts | {tag: value}, comment, orientation)) <= largest:
            texts[tag] = value
        else:
            dropped.append(name)
    if not texts and not comment and orientation == 1:
        return b"", dropped
    return b"Exif\0\0" + _directory(texts, comment, orientation), dropped


def _directory(texts: Mapping[int, bytes], comment: bytes, orientation: int) -> bytes:
    """Lay out a big-endian TIFF structure: directory, EXIF directory, values."""
    entries = [(tag, _ASCII, value) for tag, value in texts.items()]
    if orientation != 1:
        entries.append((ORIENTATION, _SHORT, struct.pack(">H", orientation)))
    entries.sort()
    amount = len(entries) + bool(comment)
    inner = 8 + 2 + 12 * amount + 4
    values_at = inner + (2 + 12 + 4 if comment else 0)
    head, values = bytearray(), bytearray()

    def add(tag: int, kind: int, value: bytes) -> None:
        nonlocal head, values
        head += struct.pack(">HHI", tag, kind, len(value) // _UNIT[kind])
        if len(value) <= 4:  # noqa: PLR2004 - such values stand in the entry itself
            head += value.ljust(4, b"\0")
        else:
            head += struct.pack(">I", values_at + len(values))
            values += value + b"\0" * (len(value) & 1)

    for tag, kind, value in entries:
        add(tag, kind, value)
    if comment:
        head += struct.pack(">HHII", _EXIF_IFD, _LONG, 1, inner)
        head += struct.pack(">I", 0) + struct.pack(">H", 1)
        add(_USER_COMMENT, _UNDEFINED, comment)
    head += struct.pack(">I", 0)
    return b"MM\0*" + struct.pack(">IH", 8, amount) + bytes(head) + bytes(values)
