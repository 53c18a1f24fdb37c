"""The family a LoRA was trained on, from the names and shapes of its tensors.

Names come in kohya's spelling (`lora_unet_..._to_k.lora_down.weight`), PEFT's
(`transformer.....to_k.lora_A.weight`) and ComfyUI's (`diffusion_model....`). The second length of a
`down` or `A` matrix is the width of the layer it sits on. Facts: kohya's sd-scripts, ComfyUI's
`lora.py`, LyCORIS.
"""

import re
from collections.abc import Iterable, Iterator

from stablequeue.models.families import Family
from stablequeue.models.image_models import Shapes

_MARKS = (
    ".lora_down.",
    ".lora_up.",
    ".lora_a.",
    ".lora_b.",
    ".lora.down.",
    ".lora.up.",
    ".hada_w1_",
    ".lokr_w1",
    ".oft_",
    ".dora_scale",
    "_lora.down.",
    "_lora.up.",
)
_DOWN = re.compile(r"\.(?:lora_down|lora_a|lora\.down)(?:\.default)?\.weight$|_lora\.down\.weight$")
_CROSS_K = re.compile(r"attn2[._]to_k")
_DEEP = re.compile(r"unet.*[._]transformer_blocks[._](?:[1-9]|[1-9]\d)[._]")
_HUNYUAN = re.compile(r"token_refiner|\.img_attn_qkv\b|img_mlp[._]fc1|img_mod[._]linear")
_FLUX = re.compile(r"(?:double|single)_blocks[._]|single_transformer_blocks[._]")
_WAN = re.compile(r"blocks[._]\d+[._](?:cross_attn|self_attn)[._](q|k|v|o)(?:_proj)?\b")
_LAYERS = re.compile(r"(?:^|[._])layers[._]\d+[._]attention")
_JOINT = re.compile(r"transformer_blocks[._](\d+)[._]attn[._]add_[kqv]_proj")
_FIRST_OF_QWEN_ONLY = 38


def is_lora(names: Iterable[str]) -> bool:
    """Say whether tensors are those of a LoRA, LyCORIS or DoRA."""
    return any(mark in name.lower() for name in names for mark in _MARKS)


def lora_family(shapes: Shapes) -> Family | None:  # noqa: PLR0911 - one line a family
    """Return the family a LoRA's layers belong to; None: they do not tell."""
    names = [name.lower() for name in shapes]
    cross = next(_widths(shapes, _CROSS_K), 0)
    by_context = {768: Family.SD1, 1024: Family.SD2, 2048: Family.SDXL}
    if cross in by_context:
        return by_context[cross]
    if any("lora_te2_" in name or _DEEP.search(name) for name in names):
        return Family.SDXL
    if any(_HUNYUAN.search(name) for name in names):
        return Family.HUNYUAN_VIDEO
    if any("joint_blocks" in name for name in names):
        return _sd3(shapes, names)
    if any(_FLUX.search(name) for name in names):
        return _flux(shapes)
    if (found := next(filter(None, map(_WAN.search, names)), None)) is not None:
        return _wan(shapes, projected="_proj" in found.group())
    if any(_JOINT.search(name) for name in names):
        return _joint(shapes, names)
    width = next(_widths(shapes, _LAYERS), 0)
    return {3840: Family.Z_IMAGE, 2304: Family.LUMINA2}.get(width)


def _widths(shapes: Shapes, pattern: re.Pattern[str]) -> Iterator[int]:
    for name, shape in shapes.items():
        lower = name.lower()
        if len(shape) > 1 and _DOWN.search(lower) and pattern.search(lower):
            yield shape[1]


def _sd3(shapes: Shapes, names: list[str]) -> Family:
    if next(_widths(shapes, re.compile("attn[._]qkv")), 0) == 2432:  # noqa: PLR2004
        return Family.SD35_LARGE
    return Family.SD35_MEDIUM if any("attn2" in name for name in names) else Family.SD3_MEDIUM


def _flux(shapes: Shapes) -> Family:
    # Only layers that take the model's own width: others take what was computed from it.
    inner = re.compile(r"img_attn[._]qkv|attn[._]to_q|linear1|txt_attn[._]qkv")
    width = next(_widths(shapes, inner), 0)
    return {6144: Family.FLUX2_DEV, 4096: Family.FLUX2_KLEIN_9B}.get(width, Family.FLUX1)


def _wan(shapes: Shapes, *, projected: bool) -> Family | None:
    width = next(_widths(shapes, _WAN), 0)
    if projected or width == 2048:  # noqa: PLR2004
        return Family.COSMOS
    families = {1536: Family.WAN_1_3B, 3072: Family.WAN_5B, 5120: Family.WAN_14B}
    return families.get(width)


def _joint(shapes: Shapes, names: list[str]) -> Family | None:
    """Tell apart the models whose diffusers names are the same."""
    width = next(_widths(shapes, _JOINT), 0)
    if width in {1536, 2432}:
        return Family.SD35_LARGE if width == 2432 else Family.SD3_MEDIUM  # noqa: PLR2004
    blocks = [int(found[1]) for name in names if (found := _JOINT.search(name))]
    if max(blocks) >= _FIRST_OF_QWEN_ONLY or any("img_mlp" in one for one in names):
        return Family.QWEN_IMAGE
    return Family.FLUX1 if any("ff_context" in name for name in names) else None
