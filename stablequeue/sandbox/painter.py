"""Paints the sandbox's pictures: deterministic test cards that say what was asked.

The same `Card` gives the same pixels; any difference in it gives other pixels. Colours come from
model, prompt and seed; the coloured bar below codes everything, so it tells even tiny cards apart.
"""

import hashlib
from dataclasses import dataclass, field
from functools import lru_cache

from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

MARK = "SANDBOX"
_SMALLEST_FOR_TEXT = 48
_LARGEST_CHANGE = 0.75  # of the start picture, so that it stays recognisable
_DARK, _LIGHT = (16, 16, 20), (244, 244, 240)


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a picture shows. Sizes in pixels; `loras` as (name, weight).

    Attributes:
        mode: `txt2img`, `img2img`, `inpaint`, `upscale` or whatever else is to be read on it.
        init: The start picture, any size and mode.
        mask: White is repainted, any size; only with `init`.
        denoise: 0 to 1, how much of `init` may change.
    """

    prompt: str = ""
    negative: str = ""
    seed: int = 0
    width: int = 512
    height: int = 512
    model: str = ""
    sampler: str = ""
    scheduler: str = ""
    steps: int = 0
    cfg: float = 0.0
    loras: tuple[tuple[str, float], ...] = ()
    mode: str = "txt2img"
    init: Image.Image | None = field(default=None, compare=False)
    mask: Image.Image | None = field(default=None, compare=False)
    denoise: float = 1.0
    label: str = "StableQueue sandbox"


def paint(card: Card) -> Image.Image:
    """Return the picture of `card`, mode RGB, exactly `width` x `height`."""
    size = (max(1, card.width), max(1, card.height))
    digest = _digest(card, size)
    picture = _background(card, size, digest)
    if card.init is not None:
        picture = _over(card, picture)
    _write(picture, card)
    if card.init is not None and card.mask is not None:
        start = card.init.convert("RGB").resize(size)
        picture = Image.composite(picture, start, card.mask.convert("L").resize(size))
    _bar(picture, digest)
    return picture


def preview(card: Card, fraction: float) -> Image.Image:
    """Return what a half-done picture looks like: the card, blurred by too few pixels."""
    size = (max(1, card.width), max(1, card.height))
    coarse = max(2, int(2 + 30 * fraction))
    return _background(card, size, _digest(card, size)).resize((coarse, coarse)).resize(size)


def _digest(card: Card, size: tuple[int, int]) -> bytes:
    told = (
        card.prompt, card.negative, card.seed, size, card.model, card.sampler, card.scheduler,
        card.steps, card.cfg, card.loras, card.mode, card.denoise, card.label,
    )  # fmt: skip
    digest = hashlib.sha256(repr(told).encode("utf-8", "surrogatepass"))
    for picture in (card.init, card.mask):
        digest.update(picture.tobytes() if picture is not None else b"-")
    return digest.digest()


def _background(card: Card, size: tuple[int, int], digest: bytes) -> Image.Image:
    source = f"{card.model}\0{card.prompt}\0{card.seed}"
    told = hashlib.sha256(source.encode("utf-8", "surrogatepass")).digest()
    hue = int.from_bytes(told[:2], "big") % 360
    second = (hue + 40 + told[2] % 120) % 360
    dark = ImageColor.getrgb(f"hsl({hue}, 55%, {24 + told[3] % 16}%)")
    light = ImageColor.getrgb(f"hsl({second}, 60%, {58 + told[4] % 18}%)")
    ramp = Image.linear_gradient("L").rotate(90 * (told[5] % 4)).resize(size)
    picture = ImageOps.colorize(ramp, dark[:3], light[:3])
    draw = ImageDraw.Draw(picture)
    width, height = size
    for index in range(6):
        x, y, extent, tone = digest[4 * index : 4 * index + 4]
        left, top = x * width // 256, y * height // 256
        reach = max(2, (24 + extent // 2) * min(size) // 512)
        colour = ImageColor.getrgb(f"hsl({(hue + tone) % 360}, 60%, {35 + tone % 40}%)")
        box = (left - reach, top - reach, left + reach, top + reach)
        draw.ellipse(box, outline=colour[:3], width=max(1, min(size) // 80))
    return picture


def _over(card: Card, picture: Image.Image) -> Image.Image:
    if card.init is None:
        return picture
    start = card.init.convert("RGB").resize(picture.size)
    return Image.blend(start, picture, _LARGEST_CHANGE * min(1.0, max(0.0, card.denoise)))


def _write(picture: Image.Image, card: Card) -> None:
    """Write what was asked on plates at the top and the bottom, as far as there is room."""
    width, height = picture.size
    if min(width, height) < _SMALLEST_FOR_TEXT:
        return
    pen = _Pen(picture)
    facts = [
        f"seed {card.seed} · {width}x{height} · {card.mode}",
        f"model {card.model or '-'}",
        f"{card.sampler} {card.scheduler} · {card.steps} steps · cfg {card.cfg:g}",
        *(f"lora {name} {weight:g}" for name, weight in card.loras[:4]),
    ]
    fitting = max(1, height // pen.line - 2)
    prompt = pen.wrap(card.prompt)[: max(1, fitting - len(facts))]
    lines = [*prompt, *(pen.fit(fact) for fact in facts)][:fitting]
    pen.plate(0, [pen.fit(f"{MARK} · {card.label}")])
    pen.plate(height - len(lines) * pen.line - pen.pad - _bar_height(height), lines)


class _Pen:
    """Writes lines of one size on a picture."""

    def __init__(self, picture: Image.Image) -> None:
        self.width, height = picture.size
        self.draw = ImageDraw.Draw(picture)
        size = max(9, min(self.width, height) // 22)
        self.font = _font(size)
        self.pad = max(2, size // 3)
        self.line = size + self.pad // 2

    def plate(self, top: int, lines: list[str]) -> None:
        """Write `lines` from `top` on, on a dark ground as wide as the picture."""
        bottom = top + len(lines) * self.line + self.pad
        self.draw.rectangle((0, top, self.width, bottom), fill=_DARK)
        y = top + self.pad // 2
        for text in lines:
            self.draw.text((self.pad, y), text, fill=_LIGHT, font=self.font)
            y += self.line

    def _fits(self, text: str) -> bool:
        return self.draw.textlength(text, font=self.font) <= self.width - 2 * self.pad

    def fit(self, text: str) -> str:
        """Cut `text` to one line."""
        text = text[:400].replace("\n", " ").encode("utf-8", "replace").decode()
        while text and not self._fits(text):
            text = text[:-1]
        return text

    def wrap(self, text: str) -> list[str]:
        """Break `text` into lines between its words."""
        lines = [""]
        for word in text[:2000].encode("utf-8", "replace").decode().split():
            longer = f"{lines[-1]} {word}".strip()
            if self._fits(longer):
                lines[-1] = longer
            else:
                lines.append(self.fit(word))
        return [line for line in lines if line]


def _bar_height(height: int) -> int:
    return max(1, height // 40)


def _bar(picture: Image.Image, digest: bytes) -> None:
    width, height = picture.size
    code = Image.frombytes("RGB", (10, 1), digest[:30])
    tall = _bar_height(height)
    picture.paste(code.resize((width, tall), Image.Resampling.NEAREST), (0, height - tall))


@lru_cache(maxsize=32)
def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    return ImageFont.load_default(size)
