"""The family of an image model from the names and shapes of its tensors.

The tests and their order are those of ComfyUI's model detection (2025-10), on names without the
prefix of the file.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from stablequeue.models.families import Family
from stablequeue.models.headers import Shape

Shapes = Mapping[str, Shape]

PREFIXES = ("model.diffusion_model.", "net.", "model.", "diffusion_model.", "transformer.", "")
"""What may stand before the names of an image model; the first means all in one file."""

_QKV = "joint_blocks.0.context_block.attn.qkv.weight"
_KEY_NORM = "double_blocks.0.img_attn.norm.key_norm."


@dataclass(frozen=True, slots=True)
class Found:
    """A family and what is particular about the file, in words of the field ("" for nothing)."""

    family: Family
    variant: str = ""


def image_model(shapes: Shapes) -> tuple[str, Found] | None:
    """Return the prefix of the names and what the image model is; None: there is none."""
    for prefix in PREFIXES:
        bare = {
            name[len(prefix) :]: shape for name, shape in shapes.items() if name.startswith(prefix)
        }
        if not bare:
            continue
        for test in _TESTS:
            if (found := test(bare)) is not None:
                return prefix, found
    return None


def length(shapes: Shapes, name: str, axis: int) -> int:
    """Return the length of a tensor along an axis, 0 where there is none."""
    shape = shapes.get(name, ())
    return shape[axis] if axis < len(shape) else 0


def _sd3(shapes: Shapes) -> Found | None:
    if _QKV not in shapes:
        return None
    depth = length(shapes, "x_embedder.proj.weight", 0) // 64
    if depth == 38:  # noqa: PLR2004
        return Found(Family.SD35_LARGE)
    dual = any(".x_block.attn2." in name for name in shapes)
    return Found(Family.SD35_MEDIUM if dual else Family.SD3_MEDIUM)


def _cascade(shapes: Shapes) -> Found | None:
    if "clf.1.weight" not in shapes:
        return None
    return Found(Family.CASCADE, "stage c" if "clip_txt_mapper.weight" in shapes else "stage b")


def _flux(shapes: Shapes) -> Found | None:
    if not any(_KEY_NORM + end in shapes for end in ("scale", "weight")):
        return None
    distilled = any(
        name.startswith("distilled_guidance_layer.") and name.endswith("norms.0.scale")
        for name in shapes
    )
    if "img_in.weight" not in shapes and not distilled:
        return None
    if "double_stream_modulation_img.lin.weight" in shapes:
        return _flux2(shapes)
    if distilled:
        radiance = any(name.startswith("nerf_blocks.") for name in shapes)
        return Found(Family.CHROMA, "radiance" if radiance else "")
    kind = "dev" if "guidance_in.in_layer.weight" in shapes else "schnell"
    inputs = {384: "fill", 128: "depth or canny"}
    return Found(Family.FLUX1, inputs.get(length(shapes, "img_in.weight", 1), kind))


def _flux2(shapes: Shapes) -> Found:
    width = length(shapes, "txt_in.weight", 1)
    families = {12288: Family.FLUX2_KLEIN_9B, 7680: Family.FLUX2_KLEIN_4B}
    return Found(families.get(width, Family.FLUX2_DEV))


def _lumina(shapes: Shapes) -> Found | None:
    if "cap_embedder.1.weight" not in shapes:
        return None
    width = length(shapes, "cap_embedder.1.weight", 0)
    return Found(Family.Z_IMAGE if width == 3840 else Family.LUMINA2)  # noqa: PLR2004


def _wan(shapes: Shapes) -> Found | None:
    if "head.modulation" not in shapes:
        return None
    width = length(shapes, "head.modulation", 2)
    family = {1536: Family.WAN_1_3B, 3072: Family.WAN_5B}.get(width, Family.WAN_14B)
    if any(name.startswith("vace_") for name in shapes):
        return Found(family, "vace")
    if "img_emb.proj.0.bias" in shapes or length(shapes, "patch_embedding.weight", 1) == 36:  # noqa: PLR2004
        return Found(family, "i2v")
    return Found(family)


def _ldm(shapes: Shapes) -> Found | None:
    if "input_blocks.0.0.weight" not in shapes:
        return None
    inputs = length(shapes, "input_blocks.0.0.weight", 1)
    return _unet(shapes, inputs, length(shapes, "label_emb.0.0.weight", 1))


def _diffusers(shapes: Shapes) -> Found | None:
    if "conv_in.weight" not in shapes or not any(
        name.startswith("down_blocks.") for name in shapes
    ):
        return None
    inputs = length(shapes, "conv_in.weight", 1)
    return _unet(shapes, inputs, length(shapes, "add_embedding.linear_1.weight", 1))


def _unet(shapes: Shapes, inputs: int, labels: int) -> Found | None:
    context = next(
        (shape[1] for name, shape in shapes.items() if _is_cross(name) and len(shape) > 1), 0
    )
    families = {
        768: Family.SD1,
        1024: Family.SD2,
        2048: Family.SDXL,
        1280: Family.SDXL_REFINER,
    }
    family = families.get(context, Family.SDXL if labels == 2816 else None)  # noqa: PLR2004
    if family is None:
        return None
    return Found(family, {9: "inpaint", 8: "edit"}.get(inputs, ""))


def _is_cross(name: str) -> bool:
    return name.endswith("attn2.to_k.weight")


def _has(name: str, family: Family, *, without: str = "") -> Callable[[Shapes], Found | None]:
    def test(shapes: Shapes) -> Found | None:
        if name not in shapes or (without and without in shapes):
            return None
        return Found(family)

    return test


def _qwen(shapes: Shapes) -> Found | None:
    blocks = any(re.match(r"transformer_blocks\.\d", name) for name in shapes)
    return Found(Family.QWEN_IMAGE) if "txt_norm.weight" in shapes and blocks else None


_TESTS: tuple[Callable[[Shapes], Found | None], ...] = (
    _sd3,
    _cascade,
    _has("double_layers.0.attn.w1q.weight", Family.AURAFLOW),
    _has("mlp_t5.0.weight", Family.HUNYUAN_DIT),
    _has("txt_in.individual_token_refiner.blocks.0.norm1.weight", Family.HUNYUAN_VIDEO),
    _flux,
    _has("t5_yproj.weight", Family.MOCHI),
    _has(
        "adaln_single.emb.timestep_embedder.linear_1.bias",
        Family.LTXV,
        without="pos_embed.proj.bias",
    ),
    _has("t_block.1.weight", Family.PIXART),
    _lumina,
    _wan,
    _has("caption_projection.0.linear.weight", Family.HIDREAM),
    _has("blocks.0.mlp.layer1.weight", Family.COSMOS),
    _has("time_caption_embed.timestep_embedder.linear_1.bias", Family.OMNIGEN2),
    _qwen,
    _ldm,
    _diffusers,
)
