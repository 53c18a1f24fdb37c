"""Input pictures made ready."""

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.engines.comfyui.pictures import Picture, read_mask, read_picture
from stablequeue.errors import JobRejected
from stablequeue.request import Inpaint

NO_BLUR = Inpaint(mask_blur=0)


def saved(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def pixels(picture: Picture) -> Image.Image:
    with Image.open(io.BytesIO(picture.data)) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_a_picture_is_sent_as_it_is_under_its_hash(tmp_path: Path, suffix: str) -> None:
    path = saved(tmp_path / f"weird näme.{suffix}", Image.new("RGB", (30, 20), "red"))
    picture = read_picture("gpu", "init_image", path)
    assert picture.data == path.read_bytes()
    assert picture.name == f"{hashlib.sha256(picture.data).hexdigest()}.{suffix}"
    assert (picture.width, picture.height) == (30, 20)


def test_another_format_is_sent_as_png(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.bmp", Image.new("RGB", (30, 20), "red"))
    picture = read_picture("gpu", "init_image", path)
    assert picture.mime == "image/png"
    assert pixels(picture).getpixel((0, 0)) == (255, 0, 0)


def test_the_size_is_what_the_server_will_see(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    path = saved(tmp_path / "a.jpg", Image.new("RGB", (30, 20)), exif=exif)
    picture = read_picture("gpu", "init_image", path)
    assert (picture.width, picture.height) == (20, 30)


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"<html>")
    for read in (
        lambda: read_picture("gpu", "init_image", path),
        lambda: read_mask("gpu", path, size=(8, 8), inpaint=NO_BLUR),
        lambda: read_picture("gpu", "init_image", tmp_path / "none.png"),
    ):
        with pytest.raises(JobRejected, match="not a picture"):
            read()


def test_a_mask_is_brought_to_the_pictures_size(tmp_path: Path) -> None:
    mask = Image.new("L", (10, 10), 0)
    mask.paste(255, (5, 0, 10, 10))
    path = saved(tmp_path / "m.png", mask)
    made = pixels(read_mask("gpu", path, size=(40, 20), inpaint=NO_BLUR))
    assert made.size == (40, 20)
    assert made.getpixel((1, 10)) == (0, 0, 0)
    assert made.getpixel((38, 10)) == (255, 255, 255)


def test_a_mask_drawn_as_transparency_counts_by_its_alpha(tmp_path: Path) -> None:
    mask = Image.new("RGBA", (10, 10), (255, 255, 255, 0))
    mask.paste((0, 0, 0, 255), (5, 0, 10, 10))
    made = pixels(read_mask("gpu", saved(tmp_path / "m.png", mask), size=(10, 10), inpaint=NO_BLUR))
    assert made.getpixel((1, 5)) == (0, 0, 0)
    assert made.getpixel((8, 5)) == (255, 255, 255)


def test_a_mask_can_be_inverted_and_blurred_far(tmp_path: Path) -> None:
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    path = saved(tmp_path / "m.png", mask)
    inverted = pixels(
        read_mask("gpu", path, size=(64, 64), inpaint=Inpaint(mask_blur=0, invert=True))
    )
    assert inverted.getpixel((1, 1)) == (255, 255, 255)
    blurred = pixels(read_mask("gpu", path, size=(64, 64), inpaint=Inpaint(mask_blur=40)))
    assert 0 < blurred.getpixel((20, 30))[0] < blurred.getpixel((45, 30))[0] < 255  # type: ignore[index]


def test_the_same_mask_is_the_same_upload(tmp_path: Path) -> None:
    path = saved(tmp_path / "m.png", Image.new("L", (8, 8), 255))
    names = {read_mask("gpu", path, size=(8, 8), inpaint=NO_BLUR).name for _ in range(2)}
    assert len(names) == 1
