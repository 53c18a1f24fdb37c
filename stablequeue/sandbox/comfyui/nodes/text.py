"""Nodes about prompts and plain text."""

from dataclasses import replace

from stablequeue.sandbox.comfyui.nodes.table import (
    Call,
    Inputs,
    Made,
    node,
    real,
    text,
    whole,
)
from stablequeue.sandbox.comfyui.values import Conditioning, NodeFailed


@node(
    "CLIPTextEncode",
    display="CLIP Text Encode (Prompt)",
    category="conditioning",
    output=("CONDITIONING",),
    required=lambda _: {"text": text(multiline=True), "clip": ["CLIP"]},
)
async def encode(call: Call, inputs: Inputs) -> Made:
    """Encode a prompt."""
    del call
    if inputs.get("clip") is None:
        raise NodeFailed("RuntimeError", "ERROR: clip input is invalid: None")
    return Made((Conditioning(inputs["text"]),))


@node(
    "CLIPTextEncodeSDXL",
    category="advanced/conditioning",
    output=("CONDITIONING",),
    module="comfy_extras.nodes_clip_sdxl",
    required=lambda _: {
        "clip": ["CLIP"],
        "width": whole(1024, 0, 16384),
        "height": whole(1024, 0, 16384),
        "crop_w": whole(0, 0, 16384),
        "crop_h": whole(0, 0, 16384),
        "target_width": whole(1024, 0, 16384),
        "target_height": whole(1024, 0, 16384),
        "text_g": text(multiline=True),
        "text_l": text(multiline=True),
    },
)
async def encode_sdxl(call: Call, inputs: Inputs) -> Made:
    """Encode a prompt for SDXL."""
    del call
    return Made((Conditioning(inputs["text_g"] or inputs["text_l"]),))


@node(
    "CLIPTextEncodeFlux",
    category="advanced/conditioning/flux",
    output=("CONDITIONING",),
    module="comfy_extras.nodes_flux",
    required=lambda _: {
        "clip": ["CLIP"],
        "clip_l": text(multiline=True),
        "t5xxl": text(multiline=True),
        "guidance": real(3.5, 0.0, 100.0, 0.1),
    },
)
async def encode_flux(call: Call, inputs: Inputs) -> Made:
    """Encode a prompt for Flux."""
    del call
    return Made((Conditioning(inputs["t5xxl"] or inputs["clip_l"], inputs["guidance"]),))


@node(
    "FluxGuidance",
    category="advanced/conditioning/flux",
    output=("CONDITIONING",),
    module="comfy_extras.nodes_flux",
    required=lambda _: {
        "conditioning": ["CONDITIONING"],
        "guidance": real(3.5, 0.0, 100.0, 0.1),
    },
)
async def flux_guidance(call: Call, inputs: Inputs) -> Made:
    """Set Flux's distilled guidance."""
    del call
    return Made((replace(inputs["conditioning"], guidance=inputs["guidance"]),))


@node(
    "ConditioningZeroOut",
    category="advanced/conditioning",
    output=("CONDITIONING",),
    required=lambda _: {"conditioning": ["CONDITIONING"]},
)
async def zero_out(call: Call, inputs: Inputs) -> Made:
    """Forget what the prompt says."""
    del call
    return Made((replace(inputs["conditioning"], text=""),))


async def _join(call: Call, inputs: Inputs) -> Made:
    del call
    first, second = list(inputs.values())[:2]
    return Made((Conditioning(f"{first.text} {second.text}".strip(), first.guidance),))


node(
    "ConditioningCombine",
    display="Conditioning (Combine)",
    category="conditioning",
    output=("CONDITIONING",),
    required=lambda _: {
        "conditioning_1": ["CONDITIONING"],
        "conditioning_2": ["CONDITIONING"],
    },
)(_join)
node(
    "ConditioningConcat",
    display="Conditioning (Concat)",
    category="conditioning",
    output=("CONDITIONING",),
    required=lambda _: {
        "conditioning_to": ["CONDITIONING"],
        "conditioning_from": ["CONDITIONING"],
    },
)(_join)


@node(
    "ConditioningSetTimestepRange",
    category="advanced/conditioning",
    output=("CONDITIONING",),
    required=lambda _: {
        "conditioning": ["CONDITIONING"],
        "start": real(0.0, 0.0, 1.0, 0.001),
        "end": real(1.0, 0.0, 1.0, 0.001),
    },
)
async def set_range(call: Call, inputs: Inputs) -> Made:
    """Limit a prompt to some of the steps."""
    del call
    return Made((inputs["conditioning"],))


@node(
    "StringConcatenate",
    display="Concatenate",
    category="utils/string",
    output=("STRING",),
    module="comfy_extras.nodes_string",
    required=lambda _: {
        "string_a": ["STRING", {"multiline": True}],
        "string_b": ["STRING", {"multiline": True}],
        "delimiter": ["STRING", {"multiline": False, "default": ""}],
    },
)
async def concatenate(call: Call, inputs: Inputs) -> Made:
    """Put two texts together."""
    del call
    return Made((inputs["delimiter"].join((inputs["string_a"], inputs["string_b"])),))


@node(
    "PreviewAny",
    display="Preview Any",
    category="utils",
    output_node=True,
    module="comfy_extras.nodes_preview_any",
    required=lambda _: {"source": ["*", {}]},
)
async def preview_any(call: Call, inputs: Inputs) -> Made:
    """Tell any value as text."""
    del call
    return Made(ui={"text": [str(inputs["source"])]})


async def _same_value(call: Call, inputs: Inputs) -> Made:
    del call
    return Made((inputs["value"],))


for _class, _spec, _type in (
    ("PrimitiveInt", whole(0, -(2**63) + 1, 2**63 - 1), "INT"),
    ("PrimitiveFloat", ["FLOAT", {"min": -(2.0**63), "max": 2.0**63}], "FLOAT"),
    ("PrimitiveString", ["STRING", {"multiline": False}], "STRING"),
    ("PrimitiveStringMultiline", ["STRING", {"multiline": True}], "STRING"),
):
    node(
        _class,
        category="utils/primitive",
        output=(_type,),
        module="comfy_extras.nodes_primitive",
        required=lambda _, spec=_spec: {"value": spec},
    )(_same_value)
