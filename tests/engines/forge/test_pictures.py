"""Input pictures without the server's traps."""

import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from stablequeue.engines.forge import pictures
from stablequeue.errors import JobRejected
from tests.engines.forge.recordings import picture


def saved(folder: Path, raw: bytes, name: str = "input.png") -> Path:
    path = folder / name
    path.write_bytes(raw)
    return path


def decoded(encoded: str) -> Image.Image:
    image = Image.open(io.BytesIO(base64.b64decode(encoded, validate=True)))
    image.load()
    return image


def with_alpha(folder: Path, alpha: int) -> Path:
    return saved(folder, picture("RGBA", (8, 8), colour=(200, 100, 50, alpha)))


def test_a_picture_forge_saved_is_flattened_without_changing_a_colour(tmp_path: Path) -> None:
    sent = decoded(pictures.start_picture("gpu-a", with_alpha(tmp_path, 254)))
    assert (sent.mode, sent.getpixel((0, 0))) == ("RGB", (200, 100, 50))


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    sent = decoded(pictures.start_picture("gpu-a", with_alpha(tmp_path, 0)))
    assert (sent.mode, sent.getpixel((0, 0))) == ("RGB", (255, 255, 255))


def test_a_picture_is_sent_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (16, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decoded(pictures.start_picture("gpu-a", tmp_path / "turned.jpg")).size == (8, 16)


def test_a_mask_forge_saved_counts_by_its_brightness_not_its_hidden_text(tmp_path: Path) -> None:
    # By its alpha channel, as the server would take it, all of it would be repainted.
    black = saved(tmp_path, picture("RGBA", (8, 8), colour=(0, 0, 0, 254)))
    sent = decoded(pictures.mask_picture("gpu-a", black))
    assert (sent.mode, sent.getpixel((0, 0))) == ("L", 0)


def test_a_mask_drawn_as_transparency_counts_by_its_alpha(tmp_path: Path) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    image.putpixel((3, 3), (0, 0, 0, 255))
    image.save(tmp_path / "mask.png")
    sent = decoded(pictures.mask_picture("gpu-a", tmp_path / "mask.png"))
    assert (sent.getpixel((3, 3)), sent.getpixel((0, 0))) == (255, 0)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA"])
def test_a_picture_to_upscale_always_has_a_text_so_no_pixels_are_searched(
    tmp_path: Path, mode: str
) -> None:
    path = tmp_path / "plain.png"
    Image.new(mode, (8, 8)).save(path)
    sent = decoded(pictures.picture_to_upscale("gpu-a", path))
    assert sent.info["parameters"] == pictures.PLACEHOLDER


def test_a_picture_to_upscale_keeps_its_own_infotext(tmp_path: Path) -> None:
    infotext = "a cät\nSteps: 4, Sampler: Euler, Seed: 1, Size: 8x8"
    path = saved(tmp_path, picture("RGB", (8, 8), infotext))
    assert decoded(pictures.picture_to_upscale("gpu-a", path)).info["parameters"] == infotext


@pytest.mark.parametrize("raw", [b"", b"not a picture", picture("RGB", (64, 64))[:60]])
def test_what_cannot_be_read_is_refused_naming_the_field(tmp_path: Path, raw: bytes) -> None:
    path = saved(tmp_path, raw)
    for read, field in (
        (pictures.start_picture, "init_image"),
        (pictures.mask_picture, "mask_image"),
        (pictures.picture_to_upscale, "init_image"),
    ):
        with pytest.raises(JobRejected, match=field):
            read("gpu-a", path)
