"""Nodes that load models, and nodes that change models."""

from dataclasses import replace

from stablequeue.sandbox.comfyui.nodes.table import (
    Call,
    Host,
    Inputs,
    Made,
    Spec,
    choice,
    flag,
    node,
    real,
    size,
    whole,
)
from stablequeue.sandbox.comfyui.values import Clip, Model, NodeFailed, UpscaleModel, Vae
from stablequeue.sandbox.models import (
    CHECKPOINTS,
    LORAS,
    TEXT_ENCODERS,
    UNETS,
    UPSCALERS,
    VAES,
    ModelFile,
)

_VAES_INSIDE = ["pixel_space"]
_CLIP_TYPES = [
    "stable_diffusion", "stable_cascade", "sd3", "stable_audio", "mochi", "ltxv", "pixart",
    "cosmos", "lumina2", "wan", "hidream", "chroma", "ace", "omnigen2", "qwen_image",
    "hunyuan_image",
]  # fmt: skip
_DUAL_CLIP_TYPES = ["sdxl", "sd3", "flux", "hunyuan_video", "hidream", "hunyuan_image"]
_UNET_TYPES = ["default", "fp8_e4m3fn", "fp8_e4m3fn_fast", "fp8_e5m2"]


def _names(host: Host, kind: str) -> Spec:
    return choice(host.models.names(kind))


def _file(call: Call, kind: str, name: str) -> ModelFile:
    """Open a model file.

    Raises:
        NodeFailed: It is gone, or broken.
    """
    file = call.host.models.find(kind, name)
    if file is None:
        raise NodeFailed("FileNotFoundError", f"Model in folder '{kind}' with filename '{name}'"
                         " not found.")  # fmt: skip
    if file.broken:
        if kind == LORAS:
            raise NodeFailed(
                "safetensors._safetensors_rust.SafetensorError",
                "Error while deserializing header: header too large",
            )
        where = call.host.folders.base / "models" / kind / name
        raise NodeFailed("RuntimeError", f"ERROR: Could not detect model type of: {where}\n")
    return file


@node(
    "CheckpointLoaderSimple",
    display="Load Checkpoint",
    category="loaders",
    output=("MODEL", "CLIP", "VAE"),
    required=lambda host: {"ckpt_name": _names(host, CHECKPOINTS)},
)
async def load_checkpoint(call: Call, inputs: Inputs) -> Made:
    """Load a checkpoint with everything in it."""
    name: str = inputs["ckpt_name"]
    model = await call.load(Model(_file(call, CHECKPOINTS, name), name))
    return Made((model, Clip((name,)), Vae(name)))


@node(
    "UNETLoader",
    display="Load Diffusion Model",
    category="advanced/loaders",
    output=("MODEL",),
    required=lambda host: {
        "unet_name": _names(host, UNETS),
        "weight_dtype": choice(_UNET_TYPES),
    },
)
async def load_unet(call: Call, inputs: Inputs) -> Made:
    """Load an image model alone."""
    name: str = inputs["unet_name"]
    return Made((await call.load(Model(_file(call, UNETS, name), name)),))


@node(
    "CLIPLoader",
    display="Load CLIP",
    category="advanced/loaders",
    output=("CLIP",),
    required=lambda host: {
        "clip_name": _names(host, TEXT_ENCODERS),
        "type": choice(_CLIP_TYPES),
    },
    optional=lambda _: {"device": choice(["default", "cpu"], advanced=True)},
)
async def load_clip(call: Call, inputs: Inputs) -> Made:
    """Load one text encoder."""
    name: str = inputs["clip_name"]
    _file(call, TEXT_ENCODERS, name)
    return Made((Clip((name,)),))


async def _several_clips(call: Call, inputs: Inputs) -> Made:
    names = tuple(inputs[key] for key in sorted(inputs) if key.startswith("clip_name"))
    for name in names:
        _file(call, TEXT_ENCODERS, name)
    return Made((Clip(names),))


node(
    "DualCLIPLoader",
    category="advanced/loaders",
    output=("CLIP",),
    required=lambda host: {
        "clip_name1": _names(host, TEXT_ENCODERS),
        "clip_name2": _names(host, TEXT_ENCODERS),
        "type": choice(_DUAL_CLIP_TYPES),
    },
    optional=lambda _: {"device": choice(["default", "cpu"], advanced=True)},
)(_several_clips)

for _class, _count in (("TripleCLIPLoader", 3), ("QuadrupleCLIPLoader", 4)):
    node(
        _class,
        category="advanced/loaders",
        output=("CLIP",),
        module="comfy_extras.nodes_sd3" if _count == 3 else "comfy_extras.nodes_hidream",  # noqa: PLR2004
        required=lambda host, count=_count: {
            f"clip_name{number}": _names(host, TEXT_ENCODERS) for number in range(1, count + 1)
        },
    )(_several_clips)


@node(
    "VAELoader",
    display="Load VAE",
    category="loaders",
    output=("VAE",),
    required=lambda host: {"vae_name": choice([*host.models.names(VAES), *_VAES_INSIDE])},
)
async def load_vae(call: Call, inputs: Inputs) -> Made:
    """Load a VAE alone."""
    name: str = inputs["vae_name"]
    if name not in _VAES_INSIDE:
        _file(call, VAES, name)
    return Made((Vae(name),))


@node(
    "LoraLoader",
    display="Load LoRA",
    category="loaders",
    output=("MODEL", "CLIP"),
    required=lambda host: {
        "model": ["MODEL"],
        "clip": ["CLIP"],
        "lora_name": _names(host, LORAS),
        "strength_model": real(1.0, -100.0, 100.0),
        "strength_clip": real(1.0, -100.0, 100.0),
    },
)
async def load_lora(call: Call, inputs: Inputs) -> Made:
    """Apply a LoRA to a model and its text encoder."""
    model, clip, name = inputs["model"], inputs["clip"], inputs["lora_name"]
    _file(call, LORAS, name)
    return Made((model.with_lora(name, inputs["strength_model"]), clip))


@node(
    "LoraLoaderModelOnly",
    category="loaders",
    output=("MODEL",),
    required=lambda host: {
        "model": ["MODEL"],
        "lora_name": _names(host, LORAS),
        "strength_model": real(1.0, -100.0, 100.0),
    },
)
async def load_lora_model(call: Call, inputs: Inputs) -> Made:
    """Apply a LoRA to a model."""
    _file(call, LORAS, inputs["lora_name"])
    return Made((inputs["model"].with_lora(inputs["lora_name"], inputs["strength_model"]),))


@node(
    "UpscaleModelLoader",
    display="Load Upscale Model",
    category="loaders",
    output=("UPSCALE_MODEL",),
    module="comfy_extras.nodes_upscale_model",
    required=lambda host: {"model_name": _names(host, UPSCALERS)},
)
async def load_upscale_model(call: Call, inputs: Inputs) -> Made:
    """Load an upscale model; its factor is the first digit after or before an x in its name."""
    name: str = inputs["model_name"]
    _file(call, UPSCALERS, name)
    low = name.lower()
    factor = next((int(d) for d in "8432" if f"{d}x" in low or f"x{d}" in low), 4)
    return Made((UpscaleModel(name, factor),))


@node(
    "CLIPSetLastLayer",
    display="CLIP Set Last Layer",
    category="conditioning",
    output=("CLIP",),
    required=lambda _: {"clip": ["CLIP"], "stop_at_clip_layer": whole(-1, -24, -1, 1)},
)
async def set_last_layer(call: Call, inputs: Inputs) -> Made:
    """Leave out the last layers of a text encoder."""
    del call
    return Made((replace(inputs["clip"], last_layer=inputs["stop_at_clip_layer"]),))


async def _same_model(call: Call, inputs: Inputs) -> Made:
    del call
    return Made((inputs["model"],))


node(
    "ModelSamplingSD3",
    category="advanced/model",
    output=("MODEL",),
    module="comfy_extras.nodes_model_advanced",
    required=lambda _: {"model": ["MODEL"], "shift": real(3.0, 0.0, 100.0)},
)(_same_model)
node(
    "ModelSamplingAuraFlow",
    category="advanced/model",
    output=("MODEL",),
    module="comfy_extras.nodes_model_advanced",
    required=lambda _: {"model": ["MODEL"], "shift": real(1.73, 0.0, 100.0)},
)(_same_model)
node(
    "ModelSamplingFlux",
    category="advanced/model",
    output=("MODEL",),
    module="comfy_extras.nodes_model_advanced",
    required=lambda _: {
        "model": ["MODEL"],
        "max_shift": real(1.15, 0.0, 100.0),
        "base_shift": real(0.5, 0.0, 100.0),
        "width": size(1024),
        "height": size(1024),
    },
)(_same_model)
node(
    "ModelSamplingDiscrete",
    category="advanced/model",
    output=("MODEL",),
    module="comfy_extras.nodes_model_advanced",
    required=lambda _: {
        "model": ["MODEL"],
        "sampling": choice(["eps", "v_prediction", "lcm", "x0", "img_to_img"]),
        "zsnr": flag(default=False),
    },
)(_same_model)
node(
    "DifferentialDiffusion",
    display="Differential Diffusion",
    category="_for_testing",
    output=("MODEL",),
    module="comfy_extras.nodes_differential_diffusion",
    required=lambda _: {"model": ["MODEL"]},
    optional=lambda _: {"strength": real(1.0, 0.0, 1.0)},
)(_same_model)
