"""Encode a picture anew as WEBP or JPEG, what is embedded in it carried along in EXIF."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from stablequeue.engines.base import Kind
from stablequeue.errors import UnreadableFile
from stablequeue.storage.atomic import appearing
from stablequeue.storage.decoding import load_picture
from stablequeue.storage.exif import LARGEST_IN_JPEG, build_exif
from stablequeue.storage.metadata import Embedded, read_metadata
from stablequeue.storage.sniffing import Sniffed, sniff
from stablequeue.storage.thumbnails import is_opaque

Format = Literal["webp", "jpeg"]

_LONGEST_SIDE = {"webp": 16_383, "jpeg": 65_500}
_LARGEST_EXIF = {"webp": 2**24, "jpeg": LARGEST_IN_JPEG}
_WEBP_METHOD = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reencoded:
    """What was written.

    Attributes:
        dropped: Names of embedded texts that did not fit (a JPEG holds 64 KiB of them).
    """

    file: Sniffed
    dropped: tuple[str, ...] = ()


def can_reencode(file: Sniffed, format: Format) -> bool:  # noqa: A002 - the request's own word
    """Say whether encoding anew keeps what the file shows.

    Not for animations, video, sound and text, nor for sizes the format does not have: keep the
    original then.
    """
    longest = max(file.width, file.height)
    return file.kind is Kind.IMAGE and not file.animated and longest <= _LONGEST_SIDE[format]


def reencode(source: Path, target: Path, *, format: Format, quality: int = 90) -> Reencoded:  # noqa: A002
    """Write `source` as WEBP or JPEG to `target`, which appears whole or not at all.

    The infotext goes into UserComment as A1111 writes it, ComfyUI's graphs into Make and Model as
    ComfyUI writes them; `read_metadata` gives them back. The colour profile is kept.

    Args:
        source: A picture for which `can_reencode` is true.
        target: Its folder is made.
        format: What to write.
        quality: 1 to 100.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is damaged, cut off, too large, or cannot be encoded so.
        OSError: The target could not be written.
    """
    file = sniff(source)
    if not can_reencode(file, format):
        raise UnreadableFile(f"{source.name} cannot be written as {format}; keep the original")
    embedded = read_metadata(source)
    image = load_picture(source)
    exif, dropped = _exif(embedded, _LARGEST_EXIF[format])
    options: dict[str, Any] = {"exif": exif} if exif else {}
    if profile := image.info.get("icc_profile"):
        options["icc_profile"] = profile
    with appearing(target) as temporary:
        if format == "webp":
            _for_webp(image).save(
                temporary, "WEBP", quality=quality, method=_WEBP_METHOD, **options
            )
        else:
            _for_jpeg(image).save(temporary, "JPEG", quality=quality, **options)
    return Reencoded(file=sniff(target), dropped=tuple(dropped))


def _exif(embedded: Embedded, largest: int) -> tuple[bytes, list[str]]:
    named = {name: text for name, text in embedded.texts.items() if name != "parameters"}
    return build_exif(
        infotext=embedded.infotext,
        named=named,
        orientation=embedded.orientation,
        largest=largest,
    )


def _for_webp(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return image.convert("RGB") if is_opaque(image) else image
    return image if image.mode == "RGB" else image.convert("RGB")


def _for_jpeg(image: Image.Image) -> Image.Image:
    if image.has_transparency_data:
        image = image.convert("RGBA")
        if not is_opaque(image):
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
    return image if image.mode in {"RGB", "L"} else image.convert("RGB")
