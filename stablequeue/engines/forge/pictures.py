"""Input pictures made ready for the server, without its traps.

* A picture Forge saved is RGBA: its infotext hides in the lowest bits of the alpha channel. As a
  start picture it is flattened; as a mask it would count by that alpha and repaint everything.
* Reading an RGB picture that has no `parameters` text, extra-single-image searches all its pixels
  for hidden text: 6 s at 512 pixels a side, over 2 minutes at 1024, while holding the job lock
  (recording `timing_stealth_scan_and_gzip`). So such a text is always there.
"""

import base64
import io
from pathlib import Path

from PIL import Image, ImageOps, PngImagePlugin

from stablequeue.errors import JobRejected, NotFound, UnreadableFile
from stablequeue.storage.decoding import load_picture
from stablequeue.storage.metadata import read_metadata

HIDDEN_ALPHA = 254
"""Alpha values from here on are opaque to the eye: Forge's hidden text has 254 and 255."""

PLACEHOLDER = "upscaled with StableQueue"
"""The `parameters` text of pictures that come without one."""


def start_picture(server: str, source: Path) -> str:
    """Return a start picture as base64 PNG: RGB, upright.

    What is transparent becomes white, which is what the server's own default does.

    Raises:
        JobRejected: It cannot be read.
    """
    return _base64(_flat(_load(server, "init_image", source)))


def mask_picture(server: str, source: Path) -> str:
    """Return a mask as base64 PNG: grey, white where it is to be repainted.

    A mask drawn as transparency counts by its alpha channel, any other by its brightness.

    Raises:
        JobRejected: It cannot be read.
    """
    picture = _load(server, "mask_image", source)
    if _has_alpha(picture):
        alpha = picture.convert("RGBA").getchannel("A")
        if _lowest(alpha) < HIDDEN_ALPHA:
            return _base64(alpha)
        picture = picture.convert("RGBA").convert("RGB")
    return _base64(picture.convert("L"))


def picture_to_upscale(server: str, source: Path) -> str:
    """Return a picture as base64 PNG with its infotext, or a placeholder, as `parameters`.

    Real transparency is kept; the server keeps the text in what it returns.

    Raises:
        JobRejected: It cannot be read.
    """
    picture = _load(server, "init_image", source)
    try:
        infotext = read_metadata(source).infotext
    except (NotFound, UnreadableFile) as error:
        raise _unreadable(server, "init_image", error) from error
    texts = PngImagePlugin.PngInfo()
    texts.add_text("parameters", infotext or PLACEHOLDER)
    if _has_alpha(picture):
        picture = picture.convert("RGBA")
        if _lowest(picture.getchannel("A")) >= HIDDEN_ALPHA:
            picture = picture.convert("RGB")
    return _base64(picture, texts)


def _load(server: str, field: str, source: Path) -> Image.Image:
    try:
        return ImageOps.exif_transpose(load_picture(source))
    except (NotFound, UnreadableFile) as error:
        raise _unreadable(server, field, error) from error


def _flat(picture: Image.Image) -> Image.Image:
    if not _has_alpha(picture):
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    if _lowest(picture.getchannel("A")) >= HIDDEN_ALPHA:
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, "white")
    return Image.alpha_composite(white, picture).convert("RGB")


def _has_alpha(picture: Image.Image) -> bool:
    return "A" in picture.getbands() or "transparency" in picture.info


def _lowest(alpha: Image.Image) -> int:
    low = alpha.getextrema()[0]
    return int(low) if isinstance(low, int | float) else 0


def _base64(picture: Image.Image, texts: PngImagePlugin.PngInfo | None = None) -> str:
    if picture.mode not in {"L", "RGB", "RGBA"}:
        picture = picture.convert("RGB")
    raw = io.BytesIO()
    picture.save(raw, "PNG", pnginfo=texts, compress_level=1)
    return base64.b64encode(raw.getvalue()).decode("ascii")


def _unreadable(server: str, field: str, error: Exception) -> JobRejected:
    return JobRejected(server, f"{field}: the picture cannot be read ({error})")
