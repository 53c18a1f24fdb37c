"""`<lora:name:weight>` in prompts, lifted into a list and put back.

Source: A1111's and Forge's extra networks: `<type:arguments>`, arguments split at colons; by
position name, weight on the text encoder, weight on the image model (default: the same), then
dynamic dimensions; or by name `te=`, `unet=`, `dyn=`. The first weight's default is 1.
"""

import re
from collections.abc import Iterable

from stablequeue.request import Lora

_TAG = re.compile(r"<(?:lora|lyco):([^:<>]+)((?::[^:<>]*){0,8})>")
_WEIGHTS = 2
_STRONGEST = 10.0
_LONGEST_NAME = 1000


def lift_tags(prompt: str) -> tuple[str, list[Lora], list[str]]:
    """Return the prompt without its LoRA tags, the LoRAs in their order, and what stays as text.

    A tag that asks for more than two weights (block weights, dynamic dimensions) stays in the
    prompt, as one that cannot be read does: the server may understand it.
    """
    loras: list[Lora] = []
    kept: list[str] = []

    def lift(match: re.Match[str]) -> str:
        lora = _lora(match.group(1).strip(), match.group(2).split(":")[1:])
        if lora is None:
            kept.append(match.group())
            return match.group()
        loras.append(lora)
        return ""

    text = _TAG.sub(lift, prompt)
    return (text.strip() if loras else prompt), loras, kept


def add_tags(prompt: str, loras: Iterable[Lora]) -> str:
    """Return the prompt with a tag for each LoRA at its end; `lift_tags` gives them back."""
    tags = [_tag(lora) for lora in loras]
    return " ".join([prompt, *tags] if prompt else tags)


def _tag(lora: Lora) -> str:
    if lora.text_weight is None or lora.text_weight == lora.weight:
        return f"<lora:{lora.name}:{_number(lora.weight)}>"
    return f"<lora:{lora.name}:{_number(lora.text_weight)}:{_number(lora.weight)}>"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


def _lora(name: str, arguments: list[str]) -> Lora | None:
    weights: dict[str, float] = {}
    for position, argument in enumerate(arguments):
        key, equals, value = argument.rpartition("=")
        key = key.strip() if equals else ("te", "unet", "dyn")[min(position, _WEIGHTS)]
        weight = _weight(value)
        if key not in {"te", "unet"} or weight is None:
            return None
        weights[key] = weight
    if not 0 < len(name) <= _LONGEST_NAME:
        return None
    text_weight = weights.get("te", 1.0)
    weight = weights.get("unet", text_weight)
    return Lora(
        name=name, weight=weight, text_weight=text_weight if text_weight != weight else None
    )


def _weight(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if -_STRONGEST <= value <= _STRONGEST else None  # NaN is neither
