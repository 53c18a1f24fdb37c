"""Graphs for plain requests, in ComfyUI's API format.

Pure: the same job gives the same graph. Every model's name is the server's own exact string, and
every link leads to a node that exists. The scheme is the one of ComfyUI's own examples: loaders,
LoRAs, clip skip, text, a latent, a sampler, decoding, saving.
"""

from dataclasses import dataclass
from typing import Any

from stablequeue.engines.base import EngineJob, Resolution
from stablequeue.engines.comfyui import families
from stablequeue.engines.comfyui.families import Family
from stablequeue.request import GenerationRequest, Mode

Graph = dict[str, dict[str, Any]]
Link = list[Any]  # [node id, output index]

# Forge's names of upscaling between two passes -> ComfyUI's LatentUpscale methods.
LATENT_UPSCALERS = {
    "latent": "bilinear",
    "latent (bicubic)": "bicubic",
    "latent (nearest-exact)": "nearest-exact",
    "latent (bislerp)": "bislerp",
    "latent (area)": "area",
}
# Enlarging a picture without a model -> ComfyUI's ImageScale methods.
IMAGE_UPSCALERS = {
    "": "lanczos",
    "none": "lanczos",
    "lanczos": "lanczos",
    "nearest": "nearest-exact",
    "bicubic": "bicubic",
    "bilinear": "bilinear",
}
LARGEST_SIDE = 16384  # pixels, of ImageScale and the empty latents
GROW_MASK_BY = 6  # pixels; VAEEncodeForInpaint's own default


@dataclass(frozen=True, slots=True)
class Inputs:
    """Uploaded pictures, as LoadImage takes them, and the start picture's size in pixels."""

    init_image: str = ""
    mask_image: str = ""
    width: int = 0
    height: int = 0


@dataclass(slots=True)
class _Loaded:
    model: Link
    clip: Link
    vae: Link


class _Builder:
    def __init__(self) -> None:
        self.graph: Graph = {}

    def add(self, class_type: str, title: str, **inputs: Any) -> Link:
        """Add a node; return the link to its first output."""
        node_id = str(len(self.graph) + 1)
        self.graph[node_id] = {
            "class_type": class_type,
            "inputs": inputs,
            "_meta": {"title": title},
        }
        return [node_id, 0]


def family_of(resolution: Resolution) -> Family:
    """Return the family `resolve` decided on."""
    return families.BY_NAME.get(str(resolution.detail.get("family", "")), families.SD15)


def hires_size(request: GenerationRequest) -> tuple[int, int]:
    """Return the second pass's size in pixels, in whole latent cells of 8."""
    scale = request.hires.scale
    return _cells(request.width * scale), _cells(request.height * scale)


def upscaled_size(request: GenerationRequest, width: int, height: int) -> tuple[int, int]:
    """Return the size of an upscaled picture in pixels."""
    scale = request.upscale.scale
    return max(1, round(width * scale)), max(1, round(height * scale))


def build_graph(job: EngineJob, inputs: Inputs, filename_prefix: str) -> Graph:
    """Return the graph of a job whose mode is not workflow.

    Args:
        job: Its resolution must come from this engine's `resolve`.
        inputs: What was uploaded for it.
        filename_prefix: Where SaveImage puts the file, below the server's output folder.
    """
    build = _Builder()
    if job.request.mode is Mode.UPSCALE:
        image = _upscaled(build, job, inputs)
    else:
        image = _generated(build, job, inputs)
    build.add("SaveImage", "Save", images=image, filename_prefix=filename_prefix)
    return build.graph


def _generated(build: _Builder, job: EngineJob, inputs: Inputs) -> Link:
    request, resolution = job.request, job.resolution
    family = family_of(resolution)
    loaded = _load(build, resolution, family, request.clip_skip)
    positive = build.add(
        "CLIPTextEncode", "Read prompt", text=resolution.detail.get("prompt", ""), clip=loaded.clip
    )
    negative = build.add(
        "CLIPTextEncode",
        "Read negative prompt",
        text=resolution.detail.get("negative_prompt", ""),
        clip=loaded.clip,
    )
    if family.guided:
        positive = build.add(
            "FluxGuidance", "Guidance", conditioning=positive, guidance=request.guidance
        )

    def sample(title: str, latent: Link, *, steps: int, denoise: float) -> Link:
        return build.add(
            "KSampler",
            title,
            model=loaded.model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            seed=job.seed,
            steps=steps,
            cfg=request.cfg_scale,
            sampler_name=resolution.sampler,
            scheduler=resolution.scheduler,
            denoise=denoise,
        )

    def decode(latent: Link) -> Link:
        return build.add("VAEDecode", "Decode", samples=latent, vae=loaded.vae)

    if request.mode is Mode.TXT2IMG:
        empty = build.add(
            family.latent, "Size", width=request.width, height=request.height, batch_size=1
        )
        latent = sample("Sample", empty, steps=request.steps, denoise=1.0)
        if request.hires.enabled:
            latent = sample(
                "Sample again",
                _enlarged(build, request, resolution, loaded, latent),
                steps=request.hires.steps or request.steps,
                denoise=request.hires.denoising_strength,
            )
        return decode(latent)

    start = _sized(build, inputs.init_image, "Start picture", request)
    if request.mode is Mode.IMG2IMG:
        encoded = build.add("VAEEncode", "Encode", pixels=start, vae=loaded.vae)
        return decode(
            sample("Sample", encoded, steps=request.steps, denoise=request.denoising_strength)
        )
    mask = build.add(
        "ImageToMask",
        "Mask",
        image=_sized(build, inputs.mask_image, "Mask picture", request),
        channel="red",
    )
    masked = _masked(build, request, loaded.vae, family.latent, start=start, mask=mask)
    painted = decode(
        sample("Sample", masked, steps=request.steps, denoise=request.denoising_strength)
    )
    # What is not to be repainted stays as it was, to the pixel: encoding alone would change it.
    return build.add(
        "ImageCompositeMasked",
        "Keep the rest",
        destination=start,
        source=painted,
        x=0,
        y=0,
        resize_source=False,
        mask=mask,
    )


def _load(build: _Builder, resolution: Resolution, family: Family, clip_skip: int) -> _Loaded:
    if resolution.unet:
        model = build.add(
            "UNETLoader", "Load model", unet_name=resolution.unet, weight_dtype="default"
        )
        loaded = _Loaded(model=model, clip=[], vae=[])
    else:
        model = build.add("CheckpointLoaderSimple", "Load model", ckpt_name=resolution.checkpoint)
        loaded = _Loaded(model=model, clip=[model[0], 1], vae=[model[0], 2])
    if resolution.text_encoders:
        loaded.clip = _text_encoders(build, resolution.text_encoders, family)
    if resolution.vae:
        loaded.vae = build.add("VAELoader", "Load VAE", vae_name=resolution.vae)
    for lora in resolution.loras:
        loaded.model = build.add(
            "LoraLoader",
            "Load LoRA",
            model=loaded.model,
            clip=loaded.clip,
            lora_name=lora.name,
            strength_model=lora.weight,
            strength_clip=lora.text_weight,
        )
        loaded.clip = [loaded.model[0], 1]
    if clip_skip:
        # -1 is the last layer, so skipping 2 (as Forge counts) stops at the one before it.
        loaded.clip = build.add(
            "CLIPSetLastLayer", "Clip skip", clip=loaded.clip, stop_at_clip_layer=-clip_skip
        )
    return loaded


def _text_encoders(build: _Builder, names: tuple[str, ...], family: Family) -> Link:
    title, kind = "Load text encoder", family.encoders.get(len(names), "")
    match names:
        case (only,):
            return build.add("CLIPLoader", title, clip_name=only, type=kind)
        case (first, second):
            return build.add(
                "DualCLIPLoader", title, clip_name1=first, clip_name2=second, type=kind
            )
        case (first, second, third):
            return build.add(
                "TripleCLIPLoader", title, clip_name1=first, clip_name2=second, clip_name3=third
            )
        case _:
            named = {f"clip_name{place}": name for place, name in enumerate(names, 1)}
            return build.add("QuadrupleCLIPLoader", title, **named)


def _sized(build: _Builder, picture: str, title: str, request: GenerationRequest) -> Link:
    loaded = build.add("LoadImage", title, image=picture)
    return build.add(
        "ImageScale",
        f"{title}, sized",
        image=loaded,
        upscale_method="lanczos",
        width=request.width,
        height=request.height,
        crop="disabled",  # stretched, which is Forge's resize mode 0
    )


def _masked(
    build: _Builder,
    request: GenerationRequest,
    vae: Link,
    empty_latent: str,
    *,
    start: Link,
    mask: Link,
) -> Link:
    if request.inpaint.fill == "fill":
        # Grey where it is to be repainted, so that nothing of the old picture shows through.
        return build.add(
            "VAEEncodeForInpaint",
            "Encode",
            pixels=start,
            vae=vae,
            mask=mask,
            grow_mask_by=GROW_MASK_BY,
        )
    encoded = build.add("VAEEncode", "Encode", pixels=start, vae=vae)
    if request.inpaint.fill == "latent nothing":
        nothing = build.add(
            empty_latent,
            "Nothing",
            width=request.width,
            height=request.height,
            batch_size=1,
        )
        encoded = build.add(
            "LatentCompositeMasked",
            "Cut out",
            destination=encoded,
            source=nothing,
            x=0,
            y=0,
            resize_source=False,
            mask=mask,
        )
    return build.add("SetLatentNoiseMask", "Repaint here", samples=encoded, mask=mask)


def _enlarged(
    build: _Builder,
    request: GenerationRequest,
    resolution: Resolution,
    loaded: _Loaded,
    latent: Link,
) -> Link:
    width, height = hires_size(request)
    method = LATENT_UPSCALERS.get(resolution.upscaler.casefold())
    if method and not resolution.detail.get("upscale_model"):
        return build.add(
            "LatentUpscale",
            "Enlarge",
            samples=latent,
            upscale_method=method,
            width=width,
            height=height,
            crop="disabled",
        )
    decoded = build.add("VAEDecode", "Decode first pass", samples=latent, vae=loaded.vae)
    larger = _enlarge(build, resolution, decoded, width, height)
    return build.add("VAEEncode", "Encode again", pixels=larger, vae=loaded.vae)


def _upscaled(build: _Builder, job: EngineJob, inputs: Inputs) -> Link:
    image = build.add("LoadImage", "Picture", image=inputs.init_image)
    width, height = upscaled_size(job.request, inputs.width, inputs.height)
    return _enlarge(build, job.resolution, image, width, height)


def _enlarge(build: _Builder, resolution: Resolution, image: Link, width: int, height: int) -> Link:
    method = "lanczos"
    if resolution.detail.get("upscale_model"):
        loader = build.add(
            "UpscaleModelLoader", "Load upscale model", model_name=resolution.upscaler
        )
        image = build.add(
            "ImageUpscaleWithModel", "Enlarge with model", upscale_model=loader, image=image
        )
    else:
        method = IMAGE_UPSCALERS.get(resolution.upscaler.casefold(), method)
    return build.add(
        "ImageScale",
        "Final size",
        image=image,
        upscale_method=method,
        width=width,
        height=height,
        crop="disabled",
    )


def _cells(pixels: float) -> int:
    return max(8, round(pixels / 8) * 8)
