"""Nodes about masks."""

from PIL import Image, ImageChops, ImageFilter

from stablequeue.sandbox.comfyui.nodes.table import (
    LARGEST,
    Call,
    Inputs,
    Made,
    choice,
    flag,
    node,
    real,
    whole,
)
from stablequeue.sandbox.comfyui.values import Mask, Pictures, check_size

_MODULE = "comfy_extras.nodes_mask"


@node(
    "MaskToImage",
    display="Convert Mask to Image",
    category="mask",
    output=("IMAGE",),
    module=_MODULE,
    required=lambda _: {"mask": ["MASK"]},
)
async def to_image(call: Call, inputs: Inputs) -> Made:
    """Make a picture of a mask."""
    del call
    return Made((Pictures((inputs["mask"].picture.convert("RGB"),)),))


@node(
    "ImageToMask",
    display="Convert Image to Mask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {
        "image": ["IMAGE"],
        "channel": choice(["red", "green", "blue", "alpha"]),
    },
)
async def from_image(call: Call, inputs: Inputs) -> Made:
    """Make a mask of one channel of a picture."""
    del call
    channel = {"red": "R", "green": "G", "blue": "B", "alpha": "A"}[inputs["channel"]]
    return Made((Mask(inputs["image"].items[0].convert("RGBA").getchannel(channel)),))


@node(
    "SolidMask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {
        "value": real(1.0, 0.0, 1.0),
        "width": whole(512, 1, LARGEST, 1),
        "height": whole(512, 1, LARGEST, 1),
    },
)
async def solid(call: Call, inputs: Inputs) -> Made:
    """Make an even mask."""
    del call
    check_size(inputs["width"], inputs["height"], 1)
    size = (inputs["width"], inputs["height"])
    return Made((Mask(Image.new("L", size, round(255 * inputs["value"]))),))


@node(
    "InvertMask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {"mask": ["MASK"]},
)
async def invert(call: Call, inputs: Inputs) -> Made:
    """Turn a mask round."""
    del call
    return Made((Mask(ImageChops.invert(inputs["mask"].picture)),))


@node(
    "GrowMask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {
        "mask": ["MASK"],
        "expand": whole(0, -LARGEST, LARGEST, 1),
        "tapered_corners": flag(default=True),
    },
)
async def grow(call: Call, inputs: Inputs) -> Made:
    """Grow the white part (or shrink it), at most by what the picture holds."""
    del call
    mask: Image.Image = inputs["mask"].picture
    way = ImageFilter.MaxFilter(3) if inputs["expand"] > 0 else ImageFilter.MinFilter(3)
    for _ in range(min(abs(inputs["expand"]), max(mask.size))):
        grown = mask.filter(way)
        if grown.tobytes() == mask.tobytes():
            break
        mask = grown
    return Made((Mask(mask),))


@node(
    "FeatherMask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {
        "mask": ["MASK"],
        **{side: whole(0, 0, LARGEST, 1) for side in ("left", "top", "right", "bottom")},
    },
)
async def feather(call: Call, inputs: Inputs) -> Made:
    """Let the borders fade."""
    del call
    mask: Image.Image = inputs["mask"].picture
    width, height = mask.size
    left, top = inputs["left"], inputs["top"]
    right, bottom = inputs["right"], inputs["bottom"]
    inner = (left, top, max(left, width - right), max(top, height - bottom))
    fade = Image.new("L", mask.size)
    fade.paste(255, inner)
    radius = max(left, top, right, bottom) / 2
    return Made((Mask(ImageChops.multiply(mask, fade.filter(ImageFilter.BoxBlur(radius)))),))


@node(
    "ThresholdMask",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {"mask": ["MASK"], "value": real(0.5, 0.0, 1.0)},
)
async def threshold(call: Call, inputs: Inputs) -> Made:
    """Make a mask black and white."""
    del call
    limit = round(255 * inputs["value"])
    table = [255 if level > limit else 0 for level in range(256)]
    return Made((Mask(inputs["mask"].picture.point(table)),))


@node(
    "MaskComposite",
    category="mask",
    output=("MASK",),
    module=_MODULE,
    required=lambda _: {
        "destination": ["MASK"],
        "source": ["MASK"],
        "x": whole(0, 0, LARGEST, 1),
        "y": whole(0, 0, LARGEST, 1),
        "operation": choice(["multiply", "add", "subtract", "and", "or", "xor"]),
    },
)
async def composite(call: Call, inputs: Inputs) -> Made:
    """Put one mask on another."""
    del call
    below: Image.Image = inputs["destination"].picture.copy()
    corner = (inputs["x"], inputs["y"])
    above: Image.Image = inputs["source"].picture
    box = (*corner, corner[0] + above.width, corner[1] + above.height)
    part = below.crop(box)
    operation = {
        "multiply": ImageChops.multiply,
        "and": ImageChops.darker,
        "add": ImageChops.add,
        "or": ImageChops.lighter,
        "subtract": ImageChops.subtract,
        "xor": ImageChops.difference,
    }[inputs["operation"]]
    below.paste(operation(part, above), corner)
    return Made((Mask(below),))
