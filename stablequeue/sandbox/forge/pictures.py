"""Pictures as bytes: text chunks, the infotext hidden in alpha, EXIF, grids, base64.

When a PNG is saved the server hides its infotext in the lowest bit of alpha ("stealth"), which
turns the very picture it answers with from RGB into RGBA. Unsaved ones stay RGB.
"""

import base64
import binascii
import gzip
import io
import math
import re
from typing import Any

from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.PngImagePlugin import PngInfo

from stablequeue.sandbox.forge.answers import Failure, Refusal

SANDBOX_CHUNK = "stablequeue_sandbox"
SANDBOX_TEXT = "painted by StableQueue's sandbox, not by a model"
_STEALTH = b"stealth_pngcomp"
_DATA_URI = re.compile(r"^data:[^,]*;base64,")
_LOCAL = re.compile(r"^https?://(localhost|127\.|\[::1\]|10\.|192\.168\.|0\.)", re.IGNORECASE)
_MOST_PIXELS = 100_000_000


def decode(text: Any) -> Image.Image:
    """Return the picture of raw base64 or a data URI.

    Raises:
        Refusal: 500, whatever is wrong with it; a URL is never fetched.
    """
    if not isinstance(text, str):
        raise Refusal(500, "Invalid encoded image")
    if text.startswith(("http://", "https://")):
        detail = "Invalid image url" if not _LOCAL.match(text) else _NOT_LOCAL
        raise Refusal(500, detail)
    try:
        raw = base64.b64decode(_DATA_URI.sub("", text))
        picture = Image.open(io.BytesIO(raw))
        if picture.width * picture.height > _MOST_PIXELS:
            raise Refusal(500, "Invalid encoded image")
        picture.load()
    except (
        binascii.Error,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        raise Refusal(500, "Invalid encoded image") from error
    return picture


_NOT_LOCAL = "Request to local resource not allowed"


def encode(picture: Image.Image, kind: str, infotext: str, *, quality: int = 80) -> bytes:
    """Return the bytes of `picture` as the server makes them.

    Args:
        picture: RGB or RGBA.
        kind: `png`, `jpg`, `jpeg` or `webp`, as in the option `samples_format`.
        infotext: Goes into the text chunk `parameters`, or into EXIF's UserComment.
        quality: For JPEG and WEBP.

    Raises:
        Refusal: 500 for another kind.
        Failure: A text that is no Unicode.
    """
    try:
        return _encoded(picture, kind.lower(), infotext, quality)
    except UnicodeEncodeError as error:  # half a surrogate pair in a prompt
        raise Failure("UnicodeEncodeError", str(error)) from error


def _encoded(picture: Image.Image, lowered: str, infotext: str, quality: int) -> bytes:
    buffer = io.BytesIO()
    if lowered == "png":
        chunks = PngInfo()
        if infotext:
            chunks.add_text("parameters", infotext)
        chunks.add_text(SANDBOX_CHUNK, SANDBOX_TEXT)
        picture.save(buffer, "PNG", pnginfo=chunks)
    elif lowered in {"jpg", "jpeg", "webp"}:
        flat = picture.convert("RGB") if lowered != "webp" else picture
        format_name = "JPEG" if lowered != "webp" else "WEBP"
        flat.save(buffer, format_name, quality=quality, exif=_exif(infotext))
    else:
        raise Refusal(500, "Invalid image format")
    return buffer.getvalue()


def _exif(infotext: str) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = SANDBOX_CHUNK
    comment = b"UNICODE\0" + infotext.encode("utf-16-be")
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.UserComment] = comment
    return exif.tobytes()


def to_base64(raw: bytes) -> str:
    """Return base64 without a data URI's prefix."""
    return base64.b64encode(raw).decode("ascii")


def stealth(picture: Image.Image, infotext: str) -> Image.Image:
    """Return an RGBA copy with the infotext in the lowest bit of alpha, column by column.

    Nothing is hidden when there are too few pixels; the copy is RGBA all the same.
    """
    packed = gzip.compress(infotext.encode("utf-8", "replace"), mtime=0)
    data = _STEALTH + (len(packed) * 8).to_bytes(4, "big") + packed
    width, height = picture.size
    alpha = bytearray(b"\xff" * (width * height))
    if len(data) * 8 <= len(alpha):
        bits = (254 | (byte >> shift & 1) for byte in data for shift in range(7, -1, -1))
        alpha[: len(data) * 8] = bytes(bits)
    columns = Image.frombytes("L", (height, width), bytes(alpha))
    hidden = picture.convert("RGBA")
    hidden.putalpha(columns.transpose(Image.Transpose.TRANSPOSE))
    return hidden


def read_stealth(picture: Image.Image) -> str:
    """Return what `stealth` hid, empty when there is nothing."""
    if picture.mode != "RGBA":
        return ""
    bits = picture.getchannel("A").transpose(Image.Transpose.TRANSPOSE).tobytes()
    head = _bytes(bits, 0, len(_STEALTH) + 4)
    if not head.startswith(_STEALTH):
        return ""
    length = int.from_bytes(head[len(_STEALTH) :], "big") // 8
    try:
        return gzip.decompress(_bytes(bits, len(head), length)).decode("utf-8", "replace")
    except (OSError, EOFError):
        return ""


def _bytes(bits: bytes, start: int, count: int) -> bytes:
    part = bits[start * 8 : (start + count) * 8]
    text = "".join("1" if bit & 1 else "0" for bit in part)
    return int(text or "0", 2).to_bytes(count, "big") if text else b""


def grid(pictures: list[Image.Image]) -> Image.Image:
    """Return all pictures in one, in as many rows as the square root of their number."""
    rows = min(round(math.sqrt(len(pictures))), len(pictures))
    across = math.ceil(len(pictures) / rows)
    width = max(picture.width for picture in pictures)
    height = max(picture.height for picture in pictures)
    whole = Image.new("RGB", (across * width, rows * height), "black")
    for number, picture in enumerate(pictures):
        corner = (number % across * width, number // across * height)
        whole.paste(picture.convert("RGB"), corner)
    return whole


def embedded_text(picture: Image.Image) -> tuple[str, dict[str, Any]]:
    """Return a picture's infotext and its other text chunks, as `png-info` tells them."""
    items = {
        str(key): value
        for key, value in picture.info.items()
        if isinstance(key, str) and isinstance(value, str)
    }
    found = items.pop("parameters", "") or _user_comment(picture) or read_stealth(picture)
    return found, items


def _user_comment(picture: Image.Image) -> str:
    try:
        raw = picture.getexif().get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.UserComment)
    except (OSError, SyntaxError, ValueError):
        return ""
    if not isinstance(raw, bytes) or not raw.startswith(b"UNICODE\0"):
        return ""
    return raw[8:].decode("utf-16-be", "replace")
