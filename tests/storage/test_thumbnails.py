"""Thumbnails of everything that can have one."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.errors import NotFound, UnreadableFile
from stablequeue.storage import make_thumbnail

RED, BLUE = (220, 20, 20), (20, 20, 220)


def paint(path: Path, size: tuple[int, int] = (800, 600), mode: str = "RGB", **more: Any) -> Path:
    Image.new("RGB", size, RED).convert(mode).save(path, **more)
    return path


def opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        image.load()
        return image


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.webp", "a.gif"])
def test_a_thumbnail_is_a_small_webp_of_the_same_shape(tmp_path: Path, name: str) -> None:
    target = tmp_path / "thumbnails" / "aa" / "a.webp"
    assert make_thumbnail(paint(tmp_path / name), target, longest=200)
    found = opened(target)
    assert (found.format, found.size) == ("WEBP", (200, 150))
    pixel = found.convert("RGB").getpixel((100, 75))
    assert isinstance(pixel, tuple)
    assert all(abs(have - want) < 12 for have, want in zip(pixel, RED, strict=True))
    assert [path.name for path in target.parent.iterdir()] == ["a.webp"]


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    make_thumbnail(paint(tmp_path / "a.png", (40, 30)), tmp_path / "t.webp")
    assert opened(tmp_path / "t.webp").size == (40, 30)


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "LA"])
def test_every_kind_of_pixel_has_a_thumbnail(tmp_path: Path, mode: str) -> None:
    source = tmp_path / "a.png"
    Image.new(mode, (90, 60)).save(source)
    assert make_thumbnail(source, tmp_path / "t.webp")


def test_transparency_is_kept_and_hidden_alpha_is_not(tmp_path: Path) -> None:
    source, target = tmp_path / "a.png", tmp_path / "t.webp"
    for alpha, mode in ((100, "RGBA"), (254, "RGB")):
        Image.new("RGBA", (64, 64), (*RED, alpha)).save(source)
        make_thumbnail(source, target)
        assert opened(target).mode == mode


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.gif"])
def test_the_poster_of_an_animation_is_its_first_frame(tmp_path: Path, name: str) -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in (RED, BLUE)]
    source, target = tmp_path / name, tmp_path / "t.webp"
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=100)
    assert make_thumbnail(source, target)
    pixel = opened(target).convert("RGB").getpixel((30, 30))
    assert isinstance(pixel, tuple)
    assert pixel[0] > 150


def test_what_is_no_picture_has_none(tmp_path: Path) -> None:
    for content in (b"\0\0\0\x18ftypisom\0\0\0\0", b"fLaC\0\0\0\x22", b"words"):
        (tmp_path / "file").write_bytes(content)
        assert not make_thumbnail(tmp_path / "file", tmp_path / "t.webp")
    assert not (tmp_path / "t.webp").exists()


def test_a_damaged_picture_leaves_no_thumbnail(tmp_path: Path) -> None:
    source = tmp_path / "a.png"
    Image.effect_noise((300, 300), 90).save(source)
    whole = source.read_bytes()
    source.write_bytes(whole[:20_000] + b"\0" * 50 + whole[20_050:])
    with pytest.raises(UnreadableFile, match=r"a\.png is damaged"):
        make_thumbnail(source, tmp_path / "thumbnails" / "t.webp")
    assert not (tmp_path / "thumbnails" / "t.webp").exists()


def test_a_missing_picture_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        make_thumbnail(tmp_path / "none.png", tmp_path / "t.webp")


def test_a_thumbnail_can_be_made_again(tmp_path: Path) -> None:
    source = paint(tmp_path / "a.png")
    for _ in range(2):
        assert make_thumbnail(source, tmp_path / "t.webp")
