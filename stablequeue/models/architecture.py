"""What a model file is and which family it fits, from its header alone.

Names and shapes of tensors decide; what the file says about itself (`ss_base_model_version`,
`modelspec.architecture`) only fills in what they leave open, because editors and trainers write
it wrongly. What no header shows (Pony or Illustrious, dev or Krea, turbo or not) is not guessed.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from stablequeue.models.families import Family, family_of
from stablequeue.models.headers import Format, Header
from stablequeue.models.image_models import Shapes, image_model
from stablequeue.models.kinds import ModelType
from stablequeue.models.lora_keys import is_lora, lora_family

_SAYS = (
    "modelspec.architecture",
    "ss_base_model_version",
    "general.architecture",
)
_SAME_SHAPES = (
    # Families whose LoRAs have the same shapes: what the file says decides between them.
    frozenset({Family.FLUX1, Family.CHROMA, Family.FLUX2_KLEIN_4B}),
    frozenset({Family.SD3_MEDIUM, Family.SD35_MEDIUM}),
)
_CONTROL = re.compile(
    r"^control_model\.|controlnet_cond_embedding\.|^controlnet_(?:blocks|x_embedder|down_blocks)\b"
    r"|^(?:lllite_|.*\.lllite_)|^input_hint_block\."
)
_ENCODER_GGUF = {"t5", "t5encoder", "llama", "qwen2vl", "qwen3", "gemma2", "gemma3"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What a header shows.

    Attributes:
        kind: What the file is for; None: not told.
        family: What it fits; None: not told, or it fits several.
        variant: What is particular, in words of the field: `inpaint`, `schnell`, `i2v`, `t5`.
        prediction: `v` for a checkpoint marked as v-prediction, else "".
        latent_channels: Of a VAE: 4 (SD 1.5, SDXL), 16 (SD 3, Flux.1, video), 32 (Flux.2), 0.
        evidence: `tensors` or the metadata key that decided the family; "" without one.
    """

    kind: ModelType | None = None
    family: Family | None = None
    variant: str = ""
    prediction: str = ""
    latent_channels: int = 0
    evidence: str = ""


def architecture_of(header: Header) -> Architecture:
    """Return what a header shows; nothing for a pickle, which is not looked into."""
    if header.format is Format.PICKLE:
        return Architecture()
    shapes = header.shapes
    if is_lora(shapes):
        return _lora(header)
    for test in (_embedding, _control, _vae, _text_encoder):
        if (found := test(shapes)) is not None:
            return found
    return _image(header) or _said_only(header) or _upscaler(shapes) or Architecture()


def _lora(header: Header) -> Architecture:
    family = lora_family(header.shapes)
    said, key = _said(header.metadata)
    evidence = "tensors" if family else ""
    if said is not None and (
        family is None or any(family in same and said in same for same in _SAME_SHAPES)
    ):
        family, evidence = said, key
    dora = any(name.endswith(".dora_scale") for name in header.shapes)
    return Architecture(
        kind=ModelType.LORA, family=family, variant="dora" if dora else "", evidence=evidence
    )


def _said(metadata: Mapping[str, str]) -> tuple[Family | None, str]:
    for key in _SAYS:
        if (family := family_of(metadata.get(key, ""))) is not None:
            return family, key
    if metadata.get("ss_v2") == "True":
        return Family.SD2, "ss_v2"
    return None, ""


def _embedding(shapes: Shapes) -> Architecture | None:
    widths = {name: shape[-1] for name, shape in shapes.items() if shape}
    family = None
    if "emb_params" in widths:
        family = {768: Family.SD1, 1024: Family.SD2}.get(widths["emb_params"])
    elif not 0 < len(shapes) <= 4 or not {"clip_l", "clip_g"} & set(shapes):  # noqa: PLR2004
        return None
    elif "clip_g" in shapes:
        family = Family.SDXL
    return Architecture(
        kind=ModelType.EMBEDDING, family=family, evidence="tensors" if family else ""
    )


def _control(shapes: Shapes) -> Architecture | None:
    if not any(_CONTROL.search(name) for name in shapes):
        return None
    bare = {name.removeprefix("control_model."): shape for name, shape in shapes.items()}
    found = image_model(bare)
    family = found[1].family if found else None
    return Architecture(
        kind=ModelType.CONTROLNET, family=family, evidence="tensors" if family else ""
    )


def _vae(shapes: Shapes) -> Architecture | None:
    if any(name.startswith(("model.diffusion_model.", "diffusion_model.")) for name in shapes):
        return None
    for prefix in ("", "vae.", "first_stage_model."):
        shape = shapes.get(prefix + "decoder.conv_in.weight")
        video = shapes.get(prefix + "decoder.conv1.weight")
        if shape is None and (video is None or len(video) != 5):  # noqa: PLR2004
            continue
        first = shape or video or ()
        channels = first[1] if len(first) > 1 else 0
        moving = len(first) == 5  # noqa: PLR2004
        return Architecture(
            kind=ModelType.VAE,
            variant="video" if moving else "",
            latent_channels=channels,
            evidence="tensors",
        )
    return None


_ENCODERS: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"^(?:encoder\.block\.0\.layer\.0\.SelfAttention\.q\.|enc\.blk\.0\.attn_q)"), "t5"),
    (re.compile(r"^(?:text_model\.)?encoder\.layers\.0\.mlp\.fc1\.weight$"), "clip"),
    (re.compile(r"^transformer\.resblocks\.0\.mlp\.c_fc\.weight$"), "clip"),
    (re.compile(r"^(?:model\.)?layers\.0\.self_attn\.q_proj\."), "language model"),
    (re.compile(r"^model\.language_model\.layers\.0\.self_attn\.q_proj\."), "language model"),
    (re.compile(r"^blk\.0\.attn_q\.weight$"), "language model"),
)
_CLIP_WIDTHS = {768: "clip_l", 1280: "clip_g", 1024: "clip_h"}


def _text_encoder(shapes: Shapes) -> Architecture | None:
    for pattern, variant in _ENCODERS:
        name = next((one for one in shapes if pattern.search(one)), None)
        if name is None:
            continue
        if variant == "clip":
            variant = _CLIP_WIDTHS.get(shapes[name][-1] if shapes[name] else 0, "clip")  # noqa: PLW2901
        return Architecture(kind=ModelType.TEXT_ENCODER, variant=variant, evidence="tensors")
    if any(name.startswith(("vision_model.encoder.", "visual.transformer.")) for name in shapes):
        return Architecture(kind=ModelType.CLIP_VISION, evidence="tensors")
    return None


def _image(header: Header) -> Architecture | None:
    matched = image_model(header.shapes)
    if matched is None:
        return None
    _, found = matched
    # A file with the image model alone has no text encoder of its own.
    whole = any(
        name.startswith(("cond_stage_model.", "conditioner.", "text_encoders."))
        for name in header.shapes
    )
    marked = any(name.rpartition(".")[2] == "v_pred" for name in header.shapes)
    said = header.metadata.get("modelspec.prediction_type", "") == "v"
    return Architecture(
        kind=ModelType.CHECKPOINT if whole else ModelType.DIFFUSION_MODEL,
        family=found.family,
        variant=found.variant,
        prediction="v" if marked or said else "",
        evidence="tensors",
    )


def _said_only(header: Header) -> Architecture | None:
    """Take a file of unknown tensors at its word."""
    family, key = _said(header.metadata)
    if header.metadata.get("general.architecture") in _ENCODER_GGUF:
        return Architecture(kind=ModelType.TEXT_ENCODER, evidence="general.architecture")
    if family is None:
        return None
    part = header.metadata.get("modelspec.architecture", "").partition("/")[2]
    parts = {
        "lora": ModelType.LORA,
        "textual-inversion": ModelType.EMBEDDING,
        "vae": ModelType.VAE,
        "controlnet": ModelType.CONTROLNET,
    }
    kind = parts.get(part)
    if kind is None and key == "general.architecture":
        kind = ModelType.DIFFUSION_MODEL
    return Architecture(kind=kind, family=family, evidence=key)


def _upscaler(shapes: Shapes) -> Architecture | None:
    for prefix in ("", "params_ema.", "params.", "state_dict."):
        if prefix + "conv_first.weight" in shapes or prefix + "model.0.weight" in shapes:
            return Architecture(kind=ModelType.UPSCALER, evidence="tensors")
    return None
