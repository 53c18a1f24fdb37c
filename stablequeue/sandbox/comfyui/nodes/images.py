"""Nodes that load and change pictures."""

import asyncio
import hashlib
from collections.abc import Callable

from PIL import Image, ImageChops, ImageFilter, ImageOps

from stablequeue.sandbox.comfyui.folders import is_file
from stablequeue.sandbox.comfyui.nodes.table import (
    LARGEST,
    Call,
    Host,
    Inputs,
    Made,
    choice,
    flag,
    node,
    real,
    size,
    whole,
)
from stablequeue.sandbox.comfyui.values import Mask, NodeFailed, Pictures, check_size

_FILTERS = {
    "nearest-exact": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "area": Image.Resampling.BOX,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_METHODS = list(_FILTERS)
_NO_MASK = 64  # side of the mask of a picture without transparency


def _check_file(host: Host, inputs: Inputs) -> dict[str, str]:
    name = inputs.get("image")
    if not isinstance(name, str) or not is_file(host.folders.input_path(name)):
        return {"image": f"Invalid image file: {name}"}
    return {}


def _file_hash(host: Host, inputs: Inputs) -> object:
    path = host.folders.input_path(inputs["image"])
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _opened(call: Call, name: str) -> Image.Image:
    """Open a picture of the input folder.

    Raises:
        NodeFailed: It is no picture.
        OSError: It cannot be read, or is damaged.
    """
    try:
        with Image.open(call.host.folders.input_path(name)) as file:
            check_size(file.width, file.height, 1)
            return ImageOps.exif_transpose(file)
    except Image.UnidentifiedImageError as error:
        raise NodeFailed("PIL.UnidentifiedImageError", str(error)) from error


@node(
    "LoadImage",
    display="Load Image",
    category="image",
    output=("IMAGE", "MASK"),
    required=lambda host: {
        "image": choice(host.folders.input_names(), image_upload=True),
    },
    taken_over=frozenset({"image"}),
    check=_check_file,
    changed=_file_hash,
)
async def load_image(call: Call, inputs: Inputs) -> Made:
    """Load a picture; its mask is what is transparent."""
    picture = await asyncio.to_thread(_opened, call, inputs["image"])
    mask = Image.new("L", (_NO_MASK, _NO_MASK))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        mask = ImageChops.invert(picture.getchannel("A"))
    return Made((Pictures((picture.convert("RGB"),)), Mask(mask)))


@node(
    "LoadImageMask",
    display="Load Image (as Mask)",
    category="mask",
    output=("MASK",),
    required=lambda host: {
        "image": choice(host.folders.input_names(), image_upload=True),
        "channel": choice(["alpha", "red", "green", "blue"]),
    },
    taken_over=frozenset({"image"}),
    check=_check_file,
    changed=_file_hash,
)
async def load_mask(call: Call, inputs: Inputs) -> Made:
    """Load one channel of a picture; alpha counts inverted."""
    picture = await asyncio.to_thread(_opened, call, inputs["image"])
    channel = {"alpha": "A", "red": "R", "green": "G", "blue": "B"}[inputs["channel"]]
    level = picture.convert("RGBA").getchannel(channel)
    return Made((Mask(ImageChops.invert(level) if channel == "A" else level),))


@node(
    "EmptyImage",
    category="image",
    output=("IMAGE",),
    required=lambda _: {
        "width": whole(512, 1, LARGEST, 1),
        "height": whole(512, 1, LARGEST, 1),
        "batch_size": whole(1, 1, 4096),
        "color": ["INT", {"default": 0, "min": 0, "max": 0xFFFFFF, "step": 1, "display": "color"}],
    },
)
async def empty(call: Call, inputs: Inputs) -> Made:
    """Make plain pictures of one colour."""
    del call
    check_size(inputs["width"], inputs["height"], inputs["batch_size"])
    colour = inputs["color"]
    rgb = (colour >> 16 & 255, colour >> 8 & 255, colour & 255)
    picture = Image.new("RGB", (inputs["width"], inputs["height"]), rgb)
    return Made((Pictures((picture,) * inputs["batch_size"]),))


async def _each(pictures: Pictures, change: Callable[[Image.Image], Image.Image]) -> Made:
    def changed() -> tuple[Image.Image, ...]:
        return tuple(change(picture) for picture in pictures.items)

    return Made((Pictures(await asyncio.to_thread(changed)),))


@node(
    "ImageInvert",
    display="Invert Image",
    category="image",
    output=("IMAGE",),
    required=lambda _: {"image": ["IMAGE"]},
)
async def invert(call: Call, inputs: Inputs) -> Made:
    """Turn colours round."""
    del call
    return await _each(inputs["image"], lambda p: ImageChops.invert(p.convert("RGB")))


@node(
    "ImageScale",
    display="Upscale Image",
    category="image/upscaling",
    output=("IMAGE",),
    required=lambda _: {
        "image": ["IMAGE"],
        "upscale_method": choice(_METHODS),
        "width": size(512, 0, 1),
        "height": size(512, 0, 1),
        "crop": choice(["disabled", "center"]),
    },
)
async def scale(call: Call, inputs: Inputs) -> Made:
    """Resize; 0 keeps the proportions."""
    del call
    pictures: Pictures = inputs["image"]
    width, height = inputs["width"], inputs["height"]
    old_width, old_height = pictures.size
    if not width and not height:
        return Made((pictures,))
    width = width or max(1, round(old_width * height / old_height))
    height = height or max(1, round(old_height * width / old_width))
    check_size(width, height, len(pictures.items))
    how = _FILTERS[inputs["upscale_method"]]
    if inputs["crop"] == "center":
        return await _each(pictures, lambda p: ImageOps.fit(p, (width, height), how))
    return await _each(pictures, lambda p: p.resize((width, height), how))


@node(
    "ImageScaleBy",
    display="Upscale Image By",
    category="image/upscaling",
    output=("IMAGE",),
    required=lambda _: {
        "image": ["IMAGE"],
        "upscale_method": choice(_METHODS),
        "scale_by": real(1.0, 0.01, 8.0),
    },
)
async def scale_by(call: Call, inputs: Inputs) -> Made:
    """Resize by a factor."""
    del call
    pictures: Pictures = inputs["image"]
    width, height = (max(1, round(side * inputs["scale_by"])) for side in pictures.size)
    check_size(width, height, len(pictures.items))
    how = _FILTERS[inputs["upscale_method"]]
    return await _each(pictures, lambda p: p.resize((width, height), how))


@node(
    "ImageScaleToTotalPixels",
    display="Scale Image to Total Pixels",
    category="image/upscaling",
    output=("IMAGE",),
    module="comfy_extras.nodes_post_processing",
    required=lambda _: {
        "image": ["IMAGE"],
        "upscale_method": choice(_METHODS),
        "megapixels": real(1.0, 0.01, 16.0),
    },
)
async def scale_to_pixels(call: Call, inputs: Inputs) -> Made:
    """Resize to a number of pixels."""
    del call
    pictures: Pictures = inputs["image"]
    width, height = pictures.size
    factor = (inputs["megapixels"] * 1024 * 1024 / (width * height)) ** 0.5
    goal = (max(1, round(width * factor)), max(1, round(height * factor)))
    how = _FILTERS[inputs["upscale_method"]]
    return await _each(pictures, lambda p: p.resize(goal, how))


@node(
    "ImageUpscaleWithModel",
    display="Upscale Image (using Model)",
    category="image/upscaling",
    output=("IMAGE",),
    module="comfy_extras.nodes_upscale_model",
    required=lambda _: {"upscale_model": ["UPSCALE_MODEL"], "image": ["IMAGE"]},
)
async def upscale_with_model(call: Call, inputs: Inputs) -> Made:
    """Enlarge by the factor of an upscale model, in one tile per picture."""
    pictures: Pictures = inputs["image"]
    factor: int = inputs["upscale_model"].factor
    width, height = (side * factor for side in pictures.size)
    check_size(width, height, len(pictures.items))
    for number in range(1, len(pictures.items) + 1):
        await call.step(number)
        await call.progress(number, len(pictures.items))
    return await _each(pictures, lambda p: p.resize((width, height), Image.Resampling.LANCZOS))


@node(
    "ImageCrop",
    display="Image Crop",
    category="image/transform",
    output=("IMAGE",),
    module="comfy_extras.nodes_images",
    required=lambda _: {
        "image": ["IMAGE"],
        "width": whole(512, 1, LARGEST, 1),
        "height": whole(512, 1, LARGEST, 1),
        "x": whole(0, 0, LARGEST, 1),
        "y": whole(0, 0, LARGEST, 1),
    },
)
async def crop(call: Call, inputs: Inputs) -> Made:
    """Cut a part out."""
    del call
    pictures: Pictures = inputs["image"]
    width, height = pictures.size
    left, top = min(inputs["x"], width - 1), min(inputs["y"], height - 1)
    box = (left, top, min(width, left + inputs["width"]), min(height, top + inputs["height"]))
    return await _each(pictures, lambda p: p.crop(box))


@node(
    "ImagePadForOutpaint",
    display="Pad Image for Outpainting",
    category="image",
    output=("IMAGE", "MASK"),
    required=lambda _: {
        "image": ["IMAGE"],
        **{side: whole(0, 0, LARGEST, 8) for side in ("left", "top", "right", "bottom")},
        "feathering": whole(40, 0, LARGEST, 1),
    },
)
async def pad(call: Call, inputs: Inputs) -> Made:
    """Add a border, and a mask of it."""
    del call
    pictures: Pictures = inputs["image"]
    width, height = pictures.size
    left, top = inputs["left"], inputs["top"]
    wide, high = left + width + inputs["right"], top + height + inputs["bottom"]
    check_size(wide, high, len(pictures.items))
    mask = Image.new("L", (wide, high), 255)
    mask.paste(0, (left, top, left + width, top + height))

    def padded(picture: Image.Image) -> Image.Image:
        canvas = Image.new("RGB", (wide, high), (127, 127, 127))
        canvas.paste(picture, (left, top))
        return canvas

    made = await _each(pictures, padded)
    return Made((*made.values, Mask(mask.filter(ImageFilter.BoxBlur(inputs["feathering"] / 4)))))


@node(
    "ImageBlur",
    display="Image Blur",
    category="image/postprocessing",
    output=("IMAGE",),
    module="comfy_extras.nodes_post_processing",
    required=lambda _: {
        "image": ["IMAGE"],
        "blur_radius": whole(1, 1, 31, 1),
        "sigma": real(1.0, 0.1, 10.0, 0.1),
    },
)
async def blur(call: Call, inputs: Inputs) -> Made:
    """Blur."""
    del call
    return await _each(
        inputs["image"], lambda p: p.filter(ImageFilter.GaussianBlur(inputs["sigma"]))
    )


@node(
    "ImageCompositeMasked",
    category="image",
    output=("IMAGE",),
    module="comfy_extras.nodes_mask",
    required=lambda _: {
        "destination": ["IMAGE"],
        "source": ["IMAGE"],
        "x": whole(0, 0, LARGEST, 1),
        "y": whole(0, 0, LARGEST, 1),
        "resize_source": flag(default=False),
    },
    optional=lambda _: {"mask": ["MASK"]},
)
async def composite(call: Call, inputs: Inputs) -> Made:
    """Put one picture on another, through a mask."""
    del call
    above: Image.Image = inputs["source"].items[0]
    if inputs["resize_source"]:
        above = above.resize(inputs["destination"].size)
    given: Mask | None = inputs.get("mask")
    mask = given.picture.resize(above.size) if given else None

    def put(picture: Image.Image) -> Image.Image:
        below = picture.copy()
        below.paste(above, (inputs["x"], inputs["y"]), mask)
        return below

    return await _each(inputs["destination"], put)


@node(
    "RepeatImageBatch",
    category="image/batch",
    output=("IMAGE",),
    module="comfy_extras.nodes_images",
    required=lambda _: {"image": ["IMAGE"], "amount": whole(1, 1, 4096)},
)
async def repeat(call: Call, inputs: Inputs) -> Made:
    """Repeat a batch."""
    del call
    pictures: Pictures = inputs["image"]
    check_size(*pictures.size, len(pictures.items) * inputs["amount"])
    return Made((Pictures(pictures.items * inputs["amount"]),))


@node(
    "ImageFromBatch",
    category="image/batch",
    output=("IMAGE",),
    module="comfy_extras.nodes_images",
    required=lambda _: {
        "image": ["IMAGE"],
        "batch_index": whole(0, 0, 4095),
        "length": whole(1, 1, 4096),
    },
)
async def from_batch(call: Call, inputs: Inputs) -> Made:
    """Take some pictures of a batch."""
    del call
    items = inputs["image"].items
    start = min(inputs["batch_index"], len(items) - 1)
    return Made((Pictures(items[start : start + inputs["length"]]),))


@node(
    "ImageBatch",
    display="Batch Images",
    category="image",
    output=("IMAGE",),
    required=lambda _: {"image1": ["IMAGE"], "image2": ["IMAGE"]},
)
async def batch(call: Call, inputs: Inputs) -> Made:
    """Join two batches; the second takes the size of the first."""
    del call
    first, second = inputs["image1"], inputs["image2"]
    fitted = tuple(ImageOps.fit(picture, first.size) for picture in second.items)
    return Made((Pictures((*first.items, *fitted)),))
