"""Pictures through Pillow: known formats only, bounded size, every fault one clear error."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.storage.sniffing import HEAD, sniff

LARGEST_PICTURE = 2**27
"""Pixels of one picture (16384 x 8192): more is refused before memory is spent on it."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "AVIF")

# Pillow warns far below that. The limit is one for the whole process, so it is only ever raised.
if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, LARGEST_PICTURE)

# What Pillow's readers raise on damaged files, seen by damaging files at random.
_DAMAGE = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    IndexError,
    KeyError,
    AttributeError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)


def load_picture(
    source: Path | BinaryIO, *, shrink_to: int = 0, pixels: bool = True
) -> Image.Image:
    """Return a picture in memory, of an animation the first frame.

    Args:
        source: A file, or a stream that is read from where it stands.
        shrink_to: If not 0, the pixels need not be more than that in each direction, which lets
            JPEG be read several times faster.
        pixels: False: only size and metadata are read; the pixels must not be used.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is no picture, damaged, cut off or too large.
    """
    if isinstance(source, Path):
        try:
            stream = source.open("rb")
        except OSError as error:
            raise NotFound(f"{source.name} cannot be read: {error.strerror}") from error
        with stream:
            return _load(stream, source.name, shrink_to, pixels=pixels)
    return _load(source, "the picture", shrink_to, pixels=pixels)


def _load(stream: BinaryIO, name: str, shrink_to: int, *, pixels: bool) -> Image.Image:
    # Our own look at the size comes first: Pillow only warns until twice its limit.
    start = stream.tell()
    found = sniff(stream.read(HEAD))
    stream.seek(start)
    if found.width * found.height > LARGEST_PICTURE:
        raise UnreadableFile(f"{name} has {found.width} x {found.height} pixels, which is too many")
    try:
        image = Image.open(stream, formats=FORMATS)
        if shrink_to:
            image.draft("RGB", (shrink_to, shrink_to))
        if pixels:
            image.load()
    except (Image.DecompressionBombError, MemoryError) as error:
        raise UnreadableFile(f"{name} has too many pixels") from error
    except _DAMAGE as error:
        raise UnreadableFile(f"{name} is damaged, cut off, or no picture") from error
    return image
