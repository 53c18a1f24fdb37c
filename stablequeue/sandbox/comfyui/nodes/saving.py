"""Nodes that save and show pictures.

Source of names and metadata: recordings [10], [24], [26]. Beside ComfyUI's own text chunks each
file says that the sandbox made it.
"""

import asyncio
import json
import random
import string
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stablequeue.sandbox.comfyui.folders import SavePlace
from stablequeue.sandbox.comfyui.nodes.table import (
    Call,
    Inputs,
    Made,
    Preview,
    Specs,
    choice,
    flag,
    node,
    real,
    text,
    whole,
)
from stablequeue.sandbox.comfyui.values import Latent, Pictures

SANDBOX_CHUNK = "stablequeue_sandbox"
SANDBOX_NOTE = "test card painted by the StableQueue sandbox, not generated"
_HIDDEN = {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"}
_TEMP_LETTERS = 5
_EXIF_MODEL, _EXIF_MAKE = 0x0110, 0x010F


def chunks(call: Call) -> dict[str, str]:
    """Return the text chunks of a picture."""
    told = {"prompt": json.dumps(call.prompt)}
    if isinstance(call.extra_pnginfo, dict):
        extra = cast("dict[str, Any]", call.extra_pnginfo)
        told |= {str(key): json.dumps(value) for key, value in extra.items()}
    return told | {SANDBOX_CHUNK: SANDBOX_NOTE}


def _png_info(told: dict[str, str]) -> PngInfo:
    info = PngInfo()
    for key, value in told.items():
        info.add_text(key, value)
    return info


@dataclass(frozen=True)
class _Batch:
    """Pictures on their way to disk."""

    pictures: Pictures
    place: SavePlace
    kind: str
    level: int
    told: dict[str, str]

    def write(self) -> list[dict[str, str]]:
        """Write every picture as PNG; return what clients are told."""
        results: list[dict[str, str]] = []
        for index, picture in enumerate(self.pictures.items):
            path = self.place.next(".png", index)
            picture.save(path, pnginfo=_png_info(self.told), compress_level=self.level)
            results.append(self.place.told(path, self.kind))
        return results


async def _save(call: Call, prefix: str, pictures: Pictures, kind: str, level: int) -> Made:
    acting = await call.strike("save")
    items = pictures.items
    if "partial" in acting:
        items = items[:-1]
    place = call.host.folders.save_place(prefix, kind, *pictures.size)
    batch = _Batch(Pictures(items), place, kind, level, chunks(call))
    results = await asyncio.to_thread(batch.write)
    if "lose_result" in acting:
        for result in results:
            (place.folder / result["filename"]).unlink(missing_ok=True)
    call.note("saved", files=[result["filename"] for result in results], kind=kind)
    return Made(ui={"images": results})


@node(
    "SaveImage",
    display="Save Image",
    category="image",
    output_node=True,
    required=lambda _: {"images": ["IMAGE"], "filename_prefix": text("ComfyUI")},
    hidden=_HIDDEN,
)
async def save_image(call: Call, inputs: Inputs) -> Made:
    """Save as PNG below `output`."""
    return await _save(call, inputs["filename_prefix"], inputs["images"], "output", 4)


@node(
    "PreviewImage",
    display="Preview Image",
    category="image",
    output_node=True,
    required=lambda _: {"images": ["IMAGE"]},
    hidden=_HIDDEN,
)
async def preview_image(call: Call, inputs: Inputs) -> Made:
    """Save as PNG below `temp`."""
    letters = "".join(random.choices(string.ascii_lowercase, k=_TEMP_LETTERS))  # noqa: S311 - a name
    return await _save(call, f"ComfyUI_temp_{letters}", inputs["images"], "temp", 1)


def _never(_host: object, _inputs: Inputs) -> object:
    return random.getrandbits(64)


@node(
    "SaveImageWebsocket",
    category="api/image",
    output_node=True,
    module="custom_nodes.websocket_image_save",
    required=lambda _: {"images": ["IMAGE"]},
    changed=_never,
)
async def save_websocket(call: Call, inputs: Inputs) -> Made:
    """Send whole pictures through the socket; nothing is kept."""
    items = inputs["images"].items
    for index, picture in enumerate(items):
        await call.progress(index, len(items), Preview("PNG", picture, None))
    return Made()


def _animated_specs(**more: Any) -> Specs:
    return {
        "images": ["IMAGE"],
        "filename_prefix": text("ComfyUI"),
        "fps": real(6.0, 0.01, 1000.0),
        **more,
    }


async def _save_animated(call: Call, inputs: Inputs, suffix: str, **options: Any) -> Made:
    acting = await call.strike("save")
    pictures: Pictures = inputs["images"]
    place = call.host.folders.save_place(inputs["filename_prefix"], "output", *pictures.size)
    path = place.next(suffix)
    first, *rest = pictures.items

    def write() -> None:
        first.save(
            path,
            save_all=True,
            append_images=rest,
            duration=int(1000.0 / inputs["fps"]),
            **options,
        )

    await asyncio.to_thread(write)
    if "lose_result" in acting:
        path.unlink()
    call.note("saved", files=[path.name], kind="output")
    return Made(ui={"images": [place.told(path, "output")], "animated": [True]})


@node(
    "SaveAnimatedWEBP",
    category="image/animation",
    output_node=True,
    module="comfy_extras.nodes_images",
    required=lambda _: _animated_specs(
        lossless=flag(default=True),
        quality=whole(80, 0, 100),
        method=choice(["default", "fastest", "slowest"]),
    ),
    hidden=_HIDDEN,
)
async def save_webp(call: Call, inputs: Inputs) -> Made:
    """Save as animated WEBP, the prompt in its EXIF."""
    told = chunks(call)
    exif = Image.Exif()
    exif[_EXIF_MODEL] = f"prompt:{told.pop('prompt')}"
    for number, (key, value) in enumerate(told.items()):
        exif[_EXIF_MAKE - number] = f"{key}:{value}"
    method = {"default": 4, "fastest": 0, "slowest": 6}[inputs["method"]]
    return await _save_animated(
        call,
        inputs,
        ".webp",
        exif=exif,
        lossless=inputs["lossless"],
        quality=inputs["quality"],
        method=method,
    )


@node(
    "SaveAnimatedPNG",
    category="image/animation",
    output_node=True,
    module="comfy_extras.nodes_images",
    required=lambda _: _animated_specs(compress_level=whole(4, 0, 9)),
    hidden=_HIDDEN,
)
async def save_apng(call: Call, inputs: Inputs) -> Made:
    """Save as animated PNG."""
    info = _png_info(chunks(call))
    return await _save_animated(
        call, inputs, ".png", pnginfo=info, compress_level=inputs["compress_level"]
    )


@node(
    "SaveLatent",
    category="_for_testing",
    output_node=True,
    required=lambda _: {"samples": ["LATENT"], "filename_prefix": text("latents/ComfyUI")},
    hidden=_HIDDEN,
)
async def save_latent(call: Call, inputs: Inputs) -> Made:
    """Save a latent as safetensors (zeros of the right shape)."""
    latent: Latent = inputs["samples"]
    place = call.host.folders.save_place(inputs["filename_prefix"], "output", 0, 0)
    path: Path = place.next(".latent")
    shape = [latent.batch, 4, latent.height // 8, latent.width // 8]
    size = 4 * shape[0] * shape[1] * shape[2] * shape[3]
    header = json.dumps(
        {
            "__metadata__": chunks(call),
            "latent_tensor": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]},
        }
    ).encode()
    await asyncio.to_thread(path.write_bytes, struct.pack("<Q", len(header)) + header + bytes(size))
    return Made(ui={"latents": [place.told(path, "output")]})
