"""Thumbnails: small WEBP files beside the pictures, which can always be made again."""

from pathlib import Path

from PIL import Image

from stablequeue.engines.base import Kind
from stablequeue.storage.atomic import appearing
from stablequeue.storage.decoding import load_picture
from stablequeue.storage.sniffing import sniff

LONGEST = 512
"""Pixels of a thumbnail's longer side."""

# benchmarks/storing.py: from method 2 on WEBP takes much longer and files hardly get smaller.
_QUALITY = 78
_METHOD = 2


def make_thumbnail(source: Path, target: Path, *, longest: int = LONGEST) -> bool:
    """Write a WEBP thumbnail of a picture, of an animation its first frame.

    Args:
        source: The picture, unchanged.
        target: Appears whole or not at all; its folder is made.
        longest: Pixels of the longer side; smaller pictures are not enlarged.

    Returns:
        False for what has no thumbnail: sound, text, and video (which nothing here can read).

    Raises:
        NotFound: There is no such file.
        UnreadableFile: The picture is damaged, cut off or too large. Every pixel was read, so
            this is also the test whether a picture is whole.
        OSError: The thumbnail could not be written.
    """
    if sniff(source).kind is not Kind.IMAGE:
        return False
    image = load_picture(source, shrink_to=2 * longest)
    small = _plain(image)
    small.thumbnail((longest, longest), Image.Resampling.BICUBIC, reducing_gap=2.0)
    with appearing(target) as temporary:
        small.save(temporary, "WEBP", quality=_QUALITY, method=_METHOD)
    return True


def _plain(image: Image.Image) -> Image.Image:
    """Return the picture in a mode WEBP knows, without an alpha channel nobody sees."""
    if image.mode == "RGB":
        return image
    if not image.has_transparency_data:
        return image.convert("RGB")
    image = image.convert("RGBA")
    return image.convert("RGB") if is_opaque(image) else image


def is_opaque(image: Image.Image) -> bool:
    """Say whether an RGBA picture is opaque to the eye.

    Forge hides the infotext in the lowest bit of the alpha channel of what it saves, so such
    pictures have an alpha of 254 and 255.
    """
    lowest = image.getchannel("A").getextrema()[0]
    return isinstance(lowest, int | float) and lowest >= 254  # noqa: PLR2004
