"""Which family an image model belongs to, and what that asks of a graph.

ComfyUI wants to be told how to load separate text encoders (the `type` of CLIPLoader) and which
empty picture a model starts from. The rule, in this order:

1. What the file says about itself (`modelspec.architecture` in a safetensors header), then its
   name: `flux`, `sd3`, `chroma`, `qwen`, `lumina`, `hidream`, `pixart`, `sdxl`/`xl`, `sd15`.
2. Else what its text encoders are, by their names, where only one family uses such a set:
   CLIP-L alone is SD1.5; CLIP-L with CLIP-G is SDXL; CLIP-G with T5, or all three, is SD3.
   CLIP-L with T5 is Flux or SD3, so it decides nothing.
3. Else the job is refused: guessing would make noise.

Source: ComfyUI's `nodes.py` (CLIPLoader, DualCLIPLoader) and its own workflow templates.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass


class Undecided(LookupError):
    """No rule decides; the message says why and what would help."""


@dataclass(frozen=True, slots=True)
class Family:
    """What a kind of model needs.

    Attributes:
        encoders: How many text encoders -> the `type` their loader is told.
        latent: The node that makes its empty picture.
        flow: Trained on flow matching: an empty scheduler means `simple`, not a sampler's own.
        guided: Takes distilled guidance (FluxGuidance).
    """

    name: str
    encoders: dict[int, str]
    latent: str = "EmptyLatentImage"
    flow: bool = False
    guided: bool = False


_16_CHANNELS = "EmptySD3LatentImage"
SD15 = Family("sd15", {1: "stable_diffusion"})
SDXL = Family("sdxl", {2: "sdxl"})
SD3 = Family("sd3", {1: "sd3", 2: "sd3", 3: ""}, _16_CHANNELS, flow=True)
FLUX = Family("flux", {2: "flux"}, _16_CHANNELS, flow=True, guided=True)
_FAMILIES = (
    # The first whose pattern is found decides, so the more particular ones come first.
    (r"chroma", Family("chroma", {1: "chroma"}, _16_CHANNELS, flow=True)),
    (r"qwen.?image", Family("qwen_image", {1: "qwen_image"}, _16_CHANNELS, flow=True)),
    (r"lumina", Family("lumina2", {1: "lumina2"}, _16_CHANNELS, flow=True)),
    (r"hidream", Family("hidream", {4: ""}, _16_CHANNELS, flow=True)),
    (r"pixart", Family("pixart", {1: "pixart"})),
    (r"flux(?!.?2)", FLUX),
    (r"(?<![a-z0-9])sd[ _.-]?3|stable.?diffusion.?v?3", SD3),
    (r"sdxl|xl.?base|stable.?diffusion.?xl|(?:^|[^a-z])xl(?:[^a-z]|$)|pony|illustrious", SDXL),
    (r"(?<![a-z0-9])sd[ _.-]?1|v1.?5|stable.?diffusion.?v?1", SD15),
)
BY_NAME = {family.name: family for _, family in _FAMILIES}

_ENCODERS = (
    ("t5", r"(?<!um)t5"),
    ("clip_g", r"clip.?g|bigg"),
    ("clip_l", r"clip.?l|vit.?l"),
)
_BY_ENCODERS: dict[tuple[str, ...], Family] = {
    ("clip_l",): SD15,
    ("clip_g", "clip_l"): SDXL,
    ("clip_g", "t5"): SD3,
    ("clip_g", "clip_l", "t5"): SD3,
}


def by_name(*names: str) -> Family | None:
    """Return the family the first telling name belongs to."""
    for name in names:
        text = name.replace("\\", "/").casefold()
        # The file itself before its folder: `flux/` may hold anything.
        for part in (text.rpartition("/")[2], text):
            for pattern, family in _FAMILIES:
                if re.search(pattern, part):
                    return family
    return None


def by_encoders(encoders: Sequence[str]) -> Family | None:
    """Return the only family that uses such text encoders."""
    kinds: set[str] = set()
    for name in encoders:
        text = name.replace("\\", "/").casefold().rpartition("/")[2]
        kind = next((kind for kind, pattern in _ENCODERS if re.search(pattern, text)), None)
        if kind is None:
            return None
        kinds.add(kind)
    return _BY_ENCODERS.get(tuple(sorted(kinds)))


def decide(model: str, encoders: Sequence[str], architecture: str = "") -> Family:
    """Return the family of a model with separate text encoders.

    Args:
        model: The image model's name.
        encoders: The text encoders' names.
        architecture: `modelspec.architecture` of the image model, if it says one.

    Raises:
        Undecided: No rule decides, or the family takes another number of text encoders.
    """
    family = by_name(architecture, model) or by_encoders(encoders)
    if family is None:
        raise Undecided(
            f"the kind of {model!r} with these text encoders cannot be told from their names;"
            " rename the file so that it says flux, sd3, sdxl, ..., or send a workflow"
        )
    if len(encoders) not in family.encoders:
        counts = " or ".join(map(str, family.encoders))
        raise Undecided(f"{family.name} takes {counts} text encoder(s), not {len(encoders)}")
    return family
