"""`<lora:name:weight>` in a prompt, as Forge and AUTOMATIC1111 write it.

ComfyUI would read such a tag as words, so the same request would make another picture there. The
tags become LoRA loaders, as Forge does it, and leave the text.
"""

import re
from dataclasses import dataclass

from stablequeue.request import Lora

_TAG = re.compile(r"<(?:lora|lyco):([^:>]+)((?::[^:>]*)*)>", re.IGNORECASE)
_OTHER = re.compile(r"<(hypernet):[^>]*>", re.IGNORECASE)


class BadTag(ValueError):
    """A tag that cannot be read; the message says which."""


@dataclass(frozen=True, slots=True)
class Split:
    """A prompt without its tags, and what they asked for."""

    text: str
    loras: tuple[Lora, ...]


def split_tags(prompt: str) -> Split:
    """Take the LoRA tags out of a prompt.

    `<lora:name>` has weight 1, `<lora:name:0.8>` has 0.8 for both parts, `<lora:name:0.5:0.8>` is
    0.5 for the text encoder and 0.8 for the image model; `te=` and `unet=` may name them.

    Raises:
        BadTag: A weight is no number, or the tag asks for a hypernetwork.
    """
    if other := _OTHER.search(prompt):
        raise BadTag(f"{other.group(0)!r}: hypernetworks are not supported on ComfyUI")
    loras = tuple(_lora(match) for match in _TAG.finditer(prompt))
    return Split(text=_TAG.sub("", prompt).strip() if loras else prompt, loras=loras)


def _lora(match: re.Match[str]) -> Lora:
    positional: list[float] = []
    named: dict[str, float] = {}
    for part in filter(None, match.group(2).split(":")):
        key, equals, value = part.rpartition("=")
        if equals and key.strip().casefold() not in {"te", "unet"}:
            raise BadTag(f"{match.group(0)!r}: {key.strip()!r} is not supported on ComfyUI")
        try:
            weight = float(value)
        except ValueError:
            raise BadTag(f"{match.group(0)!r}: {value!r} is no weight") from None
        if not -10 <= weight <= 10:  # noqa: PLR2004 - the bounds of a request's own weights
            raise BadTag(f"{match.group(0)!r}: weights go from -10 to 10")
        if equals:
            named[key.strip().casefold()] = weight
        else:
            positional.append(weight)
    if len(positional) > 2:  # noqa: PLR2004 - text encoder, image model
        raise BadTag(f"{match.group(0)!r}: block weights are not supported on ComfyUI")
    text_weight = named.get("te", positional[0] if positional else 1.0)
    weight = named.get("unet", positional[1] if len(positional) > 1 else text_weight)
    return Lora(name=match.group(1).strip(), weight=weight, text_weight=text_weight)
