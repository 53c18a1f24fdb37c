"""The test cards: deterministic, told apart, readable, and honest about what they are."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageChops

from stablequeue.sandbox.painter import Card, paint, preview

CARD = Card(
    prompt="a lighthouse at dusk",
    negative="blurry",
    seed=7,
    width=64,
    height=64,
    model="sandbox-sd15.safetensors",
    sampler="euler",
    scheduler="normal",
    steps=20,
    cfg=7.0,
    loras=(("ink", 0.5),),
)


def _half(colour: str, other: str, size: int = 128) -> Image.Image:
    picture = Image.new("RGB", (size, size), colour)
    picture.paste(Image.new("RGB", (size // 2, size), other), (size // 2, 0))
    return picture


def test_the_same_card_gives_the_same_pixels() -> None:
    assert paint(CARD).tobytes() == paint(replace(CARD)).tobytes()


@pytest.mark.parametrize(
    "change",
    [
        {"prompt": "a lighthouse at dawn"},
        {"negative": "sharp"},
        {"seed": 8},
        {"model": "other.safetensors"},
        {"sampler": "heun"},
        {"scheduler": "karras"},
        {"steps": 21},
        {"cfg": 7.5},
        {"loras": ()},
        {"mode": "hires"},
        {"denoise": 0.5},
    ],
    ids=lambda change: next(iter(change)),
)
@pytest.mark.parametrize("side", [16, 64, 512])
def test_any_difference_gives_other_pixels(change: dict[str, Any], side: int) -> None:
    card = replace(CARD, width=side, height=side)
    assert paint(card).tobytes() != paint(replace(card, **change)).tobytes()


@settings(max_examples=40, deadline=None)
@given(
    prompt=st.text(max_size=300),
    model=st.text(max_size=80),
    seed=st.integers(0, 2**64 - 1),
    width=st.integers(1, 200),
    height=st.integers(1, 200),
)
def test_whatever_is_asked_a_picture_of_that_size_comes(
    prompt: str, model: str, seed: int, width: int, height: int
) -> None:
    picture = paint(Card(prompt=prompt, model=model, seed=seed, width=width, height=height))
    assert picture.size == (width, height)
    assert picture.mode == "RGB"


@pytest.mark.parametrize("side", [64, 256, 1024])
def test_there_is_writing_on_it(side: int) -> None:
    picture = paint(replace(CARD, width=side, height=side))
    head = picture.crop((0, 0, side, max(10, side // 16))).convert("L")
    _, brightest = head.getextrema()
    assert isinstance(brightest, int)
    assert brightest > 200


def test_the_start_picture_shines_through() -> None:
    start = _half("red", "blue")
    picture = paint(replace(CARD, width=128, height=128, init=start, denoise=0.3, mode="img2img"))
    left, right = picture.getpixel((20, 40)), picture.getpixel((110, 40))
    assert isinstance(left, tuple)
    assert isinstance(right, tuple)
    assert left[0] > right[0] + 60
    assert right[2] > left[2] + 60


def test_more_denoising_leaves_less_of_the_start_picture() -> None:
    start = _half("white", "white")

    def distance(denoise: float) -> int:
        picture = paint(replace(CARD, width=128, height=128, init=start, denoise=denoise))
        return sum(ImageChops.difference(picture, start).convert("L").histogram()[64:])

    assert distance(0.1) < distance(0.9)


def test_what_the_mask_spares_stays() -> None:
    start = _half("white", "white")
    mask = Image.new("L", (128, 128))
    mask.paste(255, (64, 0, 128, 128))
    picture = paint(replace(CARD, width=128, height=128, init=start, mask=mask, mode="inpaint"))
    spared = picture.crop((0, 0, 64, 120))
    assert spared.getcolors() == [(64 * 120, (255, 255, 255))]
    assert picture.getpixel((100, 60)) != (255, 255, 255)


def test_a_preview_becomes_finer() -> None:
    card = replace(CARD, width=256, height=256)
    early, late = (preview(card, fraction) for fraction in (0.1, 1.0))
    assert early.size == late.size == (256, 256)
    assert early.tobytes() != late.tobytes()
