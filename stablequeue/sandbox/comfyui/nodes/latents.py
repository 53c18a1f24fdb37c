"""Nodes about latent pictures."""

import asyncio
from dataclasses import replace

from PIL import Image, ImageFilter

from stablequeue.sandbox.comfyui.nodes.table import (
    Call,
    Host,
    Inputs,
    Made,
    Specs,
    choice,
    node,
    real,
    size,
    whole,
)
from stablequeue.sandbox.comfyui.values import Latent, Pictures, check_size
from stablequeue.sandbox.painter import Card, paint

_METHODS = ["nearest-exact", "bilinear", "area", "bicubic", "bislerp"]
_CROPS = ["disabled", "center"]


def _eights(value: int) -> int:
    return max(8, value // 8 * 8)


def _empty_specs(low: int, step: int, default: int) -> Specs:
    return {
        "width": size(default, low, step),
        "height": size(default, low, step),
        "batch_size": whole(1, 1, 4096),
    }


async def _empty(call: Call, inputs: Inputs) -> Made:
    """Make an empty latent; sizes are rounded down to multiples of 8."""
    del call
    width, height = _eights(inputs["width"]), _eights(inputs["height"])
    return Made((Latent(width, height, inputs["batch_size"]),))


node(
    "EmptyLatentImage",
    display="Empty Latent Image",
    category="latent",
    output=("LATENT",),
    required=lambda _: _empty_specs(16, 8, 512),
)(_empty)
node(
    "EmptySD3LatentImage",
    category="latent/sd3",
    output=("LATENT",),
    module="comfy_extras.nodes_sd3",
    required=lambda _: _empty_specs(16, 16, 1024),
)(_empty)


def _resized(latent: Latent, width: int, height: int) -> Latent:
    pictures, mask = latent.pictures, latent.mask
    check_size(width, height, latent.batch)
    return replace(
        latent,
        width=width,
        height=height,
        pictures=tuple(p.resize((width, height)) for p in pictures) if pictures else None,
        mask=mask.resize((width, height)) if mask else None,
    )


@node(
    "LatentUpscale",
    display="Upscale Latent",
    category="latent",
    output=("LATENT",),
    required=lambda _: {
        "samples": ["LATENT"],
        "upscale_method": choice(_METHODS),
        "width": size(512, 0),
        "height": size(512, 0),
        "crop": choice(_CROPS),
    },
)
async def upscale(call: Call, inputs: Inputs) -> Made:
    """Enlarge to a size; 0 keeps the proportions."""
    del call
    latent: Latent = inputs["samples"]
    width, height = inputs["width"], inputs["height"]
    if not width and not height:
        return Made((latent,))
    width = width or max(64, round(latent.width * height / latent.height))
    height = height or max(64, round(latent.height * width / latent.width))
    return Made((await asyncio.to_thread(_resized, latent, _eights(width), _eights(height)),))


@node(
    "LatentUpscaleBy",
    display="Upscale Latent By",
    category="latent",
    output=("LATENT",),
    required=lambda _: {
        "samples": ["LATENT"],
        "upscale_method": choice(_METHODS),
        "scale_by": real(1.5, 0.01, 8.0),
    },
)
async def upscale_by(call: Call, inputs: Inputs) -> Made:
    """Enlarge by a factor."""
    del call
    latent: Latent = inputs["samples"]
    width = round(latent.width / 8 * inputs["scale_by"]) * 8
    height = round(latent.height / 8 * inputs["scale_by"]) * 8
    return Made((await asyncio.to_thread(_resized, latent, max(8, width), max(8, height)),))


@node(
    "RepeatLatentBatch",
    display="Repeat Latent Batch",
    category="latent/batch",
    output=("LATENT",),
    required=lambda _: {"samples": ["LATENT"], "amount": whole(1, 1, 64)},
)
async def repeat(call: Call, inputs: Inputs) -> Made:
    """Repeat every latent of a batch."""
    del call
    latent: Latent = inputs["samples"]
    amount: int = inputs["amount"]
    pictures = latent.pictures * amount if latent.pictures else None
    return Made((replace(latent, batch=latent.batch * amount, pictures=pictures),))


def _encoded(pictures: Pictures) -> Latent:
    """Crop to multiples of 8, as the encoder does."""
    width, height = (_eights(side) for side in pictures.size)
    cut = tuple(p.convert("RGB").crop((0, 0, width, height)) for p in pictures.items)
    return Latent(width, height, len(cut), cut)


def _encode_specs(_host: Host) -> Specs:
    return {"pixels": ["IMAGE"], "vae": ["VAE"]}


async def _encode(call: Call, inputs: Inputs) -> Made:
    await call.strike("encode")
    return Made((_encoded(inputs["pixels"]),))


node(
    "VAEEncode",
    display="VAE Encode",
    category="latent",
    output=("LATENT",),
    required=_encode_specs,
)(_encode)
node(
    "VAEEncodeTiled",
    display="VAE Encode (Tiled)",
    category="_for_testing",
    output=("LATENT",),
    required=lambda host: {
        **_encode_specs(host),
        "tile_size": whole(512, 64, 4096, 64),
        "overlap": whole(64, 0, 4096, 32),
        "temporal_size": whole(64, 8, 4096, 4),
        "temporal_overlap": whole(8, 4, 4096, 4),
    },
)(_encode)


@node(
    "VAEEncodeForInpaint",
    display="VAE Encode (for Inpainting)",
    category="latent/inpaint",
    output=("LATENT",),
    required=lambda host: {
        **_encode_specs(host),
        "mask": ["MASK"],
        "grow_mask_by": whole(6, 0, 64, 1),
    },
)
async def encode_for_inpaint(call: Call, inputs: Inputs) -> Made:
    """Encode a picture with its masked part blanked."""
    await call.strike("encode")
    latent = _encoded(inputs["pixels"])
    mask = inputs["mask"].picture.resize((latent.width, latent.height))
    if grow := inputs["grow_mask_by"]:
        mask = mask.filter(ImageFilter.MaxFilter(2 * (grow // 2) + 1))
    grey = Image.new("RGB", mask.size, (127, 127, 127))
    pictures = tuple(Image.composite(grey, p, mask) for p in latent.pictures or ())
    return Made((replace(latent, pictures=pictures, mask=mask),))


@node(
    "SetLatentNoiseMask",
    display="Set Latent Noise Mask",
    category="latent/inpaint",
    output=("LATENT",),
    required=lambda _: {"samples": ["LATENT"], "mask": ["MASK"]},
)
async def set_noise_mask(call: Call, inputs: Inputs) -> Made:
    """Let only the masked part change."""
    del call
    latent: Latent = inputs["samples"]
    mask = inputs["mask"].picture.resize((latent.width, latent.height))
    return Made((replace(latent, mask=mask),))


@node(
    "InpaintModelConditioning",
    category="conditioning/inpaint",
    output=("CONDITIONING", "CONDITIONING", "LATENT"),
    names=("positive", "negative", "latent"),
    required=lambda _: {
        "positive": ["CONDITIONING"],
        "negative": ["CONDITIONING"],
        "vae": ["VAE"],
        "pixels": ["IMAGE"],
        "mask": ["MASK"],
        "noise_mask": ["BOOLEAN", {"default": True}],
    },
)
async def inpaint_conditioning(call: Call, inputs: Inputs) -> Made:
    """Prepare an inpainting model."""
    await call.strike("encode")
    latent = _encoded(inputs["pixels"])
    mask = inputs["mask"].picture.resize((latent.width, latent.height))
    return Made((inputs["positive"], inputs["negative"], replace(latent, mask=mask)))


async def _decode(call: Call, inputs: Inputs) -> Made:
    latent: Latent = inputs["samples"]
    await call.strike("decode")
    if latent.pictures is not None:
        return Made((Pictures(latent.pictures),))
    card = Card(width=latent.width, height=latent.height, mode="empty latent")
    return Made((Pictures((await asyncio.to_thread(paint, card),) * latent.batch),))


node(
    "VAEDecode",
    display="VAE Decode",
    category="latent",
    output=("IMAGE",),
    required=lambda _: {"samples": ["LATENT"], "vae": ["VAE"]},
)(_decode)
node(
    "VAEDecodeTiled",
    display="VAE Decode (Tiled)",
    category="_for_testing",
    output=("IMAGE",),
    required=lambda _: {
        "samples": ["LATENT"],
        "vae": ["VAE"],
        "tile_size": whole(512, 64, 4096, 32),
        "overlap": whole(64, 0, 4096, 32),
        "temporal_size": whole(64, 8, 4096, 4),
        "temporal_overlap": whole(8, 4, 4096, 4),
    },
)(_decode)
