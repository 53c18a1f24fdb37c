"""Input pictures made ready for a graph: named by their hash, masks in the form ComfyUI takes."""

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps, UnidentifiedImageError

from stablequeue.errors import JobRejected
from stablequeue.request import Inpaint

# What LoadImage reads under its own suffix; everything else is sent as PNG.
_AS_THEY_ARE = {"PNG": ("png", "image/png"), "JPEG": ("jpg", "image/jpeg")}
_AS_THEY_ARE["WEBP"] = ("webp", "image/webp")


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture ready to be uploaded."""

    name: str  # <sha256>.<suffix>: plain ASCII, so the server keeps it as it is
    data: bytes
    mime: str
    width: int  # as seen, after the EXIF orientation that LoadImage applies
    height: int


def read_picture(server: str, field: str, path: Path) -> Picture:
    """Read an input picture; its bytes are sent unchanged if ComfyUI reads their format.

    Raises:
        JobRejected: It cannot be read.
    """
    try:
        data = path.read_bytes()
        with Image.open(io.BytesIO(data)) as image:
            known = _AS_THEY_ARE.get(image.format or "")
            seen = ImageOps.exif_transpose(image)
            width, height = seen.size
            if known is None:
                data = _png(seen.convert("RGBA" if _has_alpha(seen) else "RGB"))
                known = _AS_THEY_ARE["PNG"]
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(server, field, error) from error
    return _named(data, known, width, height)


def read_mask(server: str, path: Path, *, size: tuple[int, int], inpaint: Inpaint) -> Picture:
    """Make the mask ready: grey, of the picture's size, white where it is to be repainted.

    A mask drawn as transparency counts by its alpha channel, any other by its brightness, as on
    Forge. Inverting and blurring are done here, because ComfyUI's own nodes blur by 31 pixels at
    most.

    Raises:
        JobRejected: It cannot be read.
    """
    try:
        with Image.open(path) as image:
            seen = ImageOps.exif_transpose(image)
            mask = seen.getchannel("A") if _is_drawn_in_alpha(seen) else seen.convert("L")
    except (OSError, UnidentifiedImageError, ValueError, Image.DecompressionBombError) as error:
        raise _unreadable(server, "mask_image", error) from error
    if mask.size != size:
        mask = mask.resize(size, Image.Resampling.LANCZOS)
    if inpaint.invert:
        mask = ImageOps.invert(mask)
    if inpaint.mask_blur:
        mask = mask.filter(ImageFilter.GaussianBlur(inpaint.mask_blur))
    return _named(_png(mask.convert("RGB")), _AS_THEY_ARE["PNG"], *mask.size)


def _has_alpha(image: Image.Image) -> bool:
    return "A" in image.getbands() or "transparency" in image.info


def _is_drawn_in_alpha(image: Image.Image) -> bool:
    return image.mode in {"RGBA", "LA"} and image.getchannel("A").getextrema() != (255, 255)


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _named(data: bytes, known: tuple[str, str], width: int, height: int) -> Picture:
    suffix, mime = known
    name = f"{hashlib.sha256(data).hexdigest()}.{suffix}"
    return Picture(name=name, data=data, mime=mime, width=width, height=height)


def _unreadable(server: str, field: str, error: Exception) -> JobRejected:
    return JobRejected(server, f"{field}: not a picture that can be read ({type(error).__name__})")
