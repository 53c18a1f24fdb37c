"""Warnings about models that do not fit together, as sentences for the answer to a submit. Pure.

Nothing is refused here: shapes and words of base models can be wrong, and people try things. Rules
of thumb as Civitai and users tell them (2026-08); Pony's score words from its own description.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from stablequeue.models.families import Family, family_of
from stablequeue.models.kinds import ModelType


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """What is known of one model for these rules.

    Attributes:
        name: As the person knows it.
        family: From its tensors; None: not known.
        base_model: Civitai's word, or the person's; "": not known.
        variant: As `Architecture` has it.
        latent_channels: Of a VAE; 0: not known.
    """

    name: str
    kind: ModelType
    family: Family | None = None
    base_model: str = ""
    variant: str = ""
    latent_channels: int = 0

    @property
    def fits(self) -> Family | None:
        """The family: what the tensors show, else what the word says."""
        return self.family or family_of(self.base_model)

    @property
    def line(self) -> str:
        """Which line of SDXL it is: `pony`, `illustrious` (NoobAI too), else ""."""
        if self.fits is not Family.SDXL:
            return ""
        word = self.base_model.casefold()
        return next((line for line, start in _LINES if word.startswith(start)), "")


_LINES = (("pony", "pony"), ("illustrious", "illustrious"), ("illustrious", "noobai"))

_ROOTS: tuple[frozenset[Family], ...] = (
    # Families whose LoRAs load on each other, with less effect.
    frozenset({Family.SDXL, Family.SDXL_REFINER}),
    frozenset({Family.FLUX1, Family.CHROMA}),
)
_IGNORE_NEGATIVE = frozenset(
    {Family.FLUX1, Family.FLUX2_DEV, Family.FLUX2_KLEIN_9B, Family.FLUX2_KLEIN_4B}
)
_CHANNELS = {
    Family.SD1: 4,
    Family.SD2: 4,
    Family.SDXL: 4,
    Family.SDXL_REFINER: 4,
    Family.AURAFLOW: 4,
    Family.PIXART: 4,
    Family.HUNYUAN_DIT: 4,
    Family.SD3_MEDIUM: 16,
    Family.SD35_MEDIUM: 16,
    Family.SD35_LARGE: 16,
    Family.FLUX1: 16,
    Family.CHROMA: 16,
    Family.LUMINA2: 16,
    Family.Z_IMAGE: 16,
    Family.HIDREAM: 16,
    Family.OMNIGEN2: 16,
    Family.QWEN_IMAGE: 16,
    Family.COSMOS: 16,
    Family.WAN_1_3B: 16,
    Family.WAN_14B: 16,
    Family.FLUX2_DEV: 32,
    Family.FLUX2_KLEIN_9B: 32,
    Family.FLUX2_KLEIN_4B: 32,
}
_VIDEO_VAE = frozenset(
    {Family.QWEN_IMAGE, Family.COSMOS, Family.WAN_1_3B, Family.WAN_5B, Family.WAN_14B}
)
_SCORE = re.compile(r"\bscore_\d")
_SDXL_WORD = re.compile(r"sdxl|(?:^|[^a-z])xl(?:[^a-z]|$)", re.IGNORECASE)
_SD1_WORD = re.compile(r"sd ?1|840000|(?:^|[^a-z])mse(?:[^a-z]|$)|kl-f8", re.IGNORECASE)


def warnings_for(
    checkpoint: Described,
    others: Sequence[Described] = (),
    *,
    prompt: str = "",
    negative_prompt: str = "",
    cfg_scale: float = 1.0,
) -> tuple[str, ...]:
    """Return one sentence for each thing that will not work as meant.

    Args:
        checkpoint: The image model.
        others: LoRAs, embeddings, VAE and ControlNets used with it.
        prompt: As sent.
        negative_prompt: As sent.
        cfg_scale: 1 switches the negative prompt off on every model.
    """
    found = [
        sentence
        for other in others
        for sentence in (_vae(checkpoint, other), _pair(checkpoint, other))
        if sentence
    ]
    found += _negative(checkpoint, negative_prompt, cfg_scale)
    if checkpoint.line == "pony" and prompt.strip() and not _SCORE.search(prompt):
        found.append(
            f"{checkpoint.name} is a Pony model and the prompt has none of its score words;"
            " begin it with score_9, score_8_up, score_7_up."
        )
    return tuple(dict.fromkeys(found))


def _negative(checkpoint: Described, negative_prompt: str, cfg_scale: float) -> list[str]:
    family = checkpoint.fits
    if family is None or family not in _IGNORE_NEGATIVE:
        return []
    if not negative_prompt.strip() or cfg_scale > 1:
        return []
    sentence = (
        f"{checkpoint.name} is a {family.spoken} model, which ignores the negative prompt;"
        " say what you want in the prompt instead."
    )
    return [sentence]


def _pair(checkpoint: Described, other: Described) -> str:
    mine, its = checkpoint.fits, other.fits
    if mine is None or its is None or other.kind in {ModelType.VAE, ModelType.TEXT_ENCODER}:
        return ""
    what = f"{_SPOKEN.get(other.kind, 'model')} {other.name}"
    if mine is its:
        return _lines(checkpoint, other, what)
    if other.kind is ModelType.EMBEDDING and {mine, its} == {Family.SD1, Family.SDXL}:
        return (
            f"The {what} is made for {its.spoken} and works only in part on {checkpoint.name},"
            f" which is {mine.spoken}."
        )
    if any(mine in root and its in root for root in _ROOTS):
        return (
            f"The {what} is made for {its.spoken}; on {checkpoint.name}, which is {mine.spoken},"
            " it has less effect."
        )
    return (
        f"The {what} is made for {its.spoken} and {checkpoint.name} is {mine.spoken}:"
        f" it will have no effect or fail; use one made for {mine.spoken}."
    )


def _lines(checkpoint: Described, other: Described, what: str) -> str:
    mine, its = checkpoint.line, other.line
    if mine == its or not checkpoint.base_model or not other.base_model or not (mine or its):
        return ""
    worst = bool(mine and its)
    effect = "it will hardly look as meant" if worst else "it may have less effect"
    return (
        f"The {what} is made for {other.base_model} and {checkpoint.name} is"
        f" {checkpoint.base_model}: {effect}."
    )


def _vae(checkpoint: Described, vae: Described) -> str:
    mine = checkpoint.fits
    if vae.kind is not ModelType.VAE or mine is None:
        return ""
    wanted = _CHANNELS.get(mine, 0)
    unfit = (
        f"The VAE {vae.name} is not made for {mine.spoken}, which {checkpoint.name} is:"
        " pictures will be noise or the server refuses; leave it out or choose another."
    )
    if vae.latent_channels and wanted and vae.latent_channels != wanted:
        return unfit
    if vae.variant == "video" and mine not in _VIDEO_VAE:
        return unfit
    its = family_of(vae.base_model) or _named(vae.name)
    # SD 1.5 and SDXL share shapes and not the scale of their latents: only words tell.
    if its is not None and {its, mine} == {Family.SD1, Family.SDXL}:
        return (
            f"The VAE {vae.name} is made for {its.spoken} and {checkpoint.name} is {mine.spoken}:"
            " colours will be wrong, though it loads."
        )
    return ""


def _named(name: str) -> Family | None:
    if _SDXL_WORD.search(name):
        return Family.SDXL
    return Family.SD1 if _SD1_WORD.search(name) else None


_SPOKEN = {
    ModelType.LORA: "LoRA",
    ModelType.EMBEDDING: "embedding",
    ModelType.CONTROLNET: "ControlNet",
    ModelType.HYPERNETWORK: "hypernetwork",
}
