"""A job as JSON for `/sdapi/v1/txt2img`, `img2img` and `extra-single-image`.

Every override is sent every time: a job without one gets whatever the server has by default, and
loads another model for it. Source of the fields: `modules/api/models.py`, `modules/processing.py`
of Forge (dfdcbab6). Defaults that surprise are never relied on (`hr_cfg` 1.0, `inpaint_full_res`
true, `hr_additional_modules` null, which ends every hires pass with a TypeError).
"""

from collections.abc import Mapping
from typing import Any

from stablequeue.engines.base import EngineJob, Resolution
from stablequeue.engines.forge import options, pictures
from stablequeue.engines.forge.answers import JSON, mapping, text
from stablequeue.errors import Unsupported
from stablequeue.prompts.lora_tags import add_tags
from stablequeue.request import GenerationRequest, Lora, Mode

PATHS = {
    "txt2img": "sdapi/v1/txt2img",
    "img2img": "sdapi/v1/img2img",
    "upscale": "sdapi/v1/extra-single-image",
}
FILLS = ("fill", "original", "latent noise", "latent nothing")
"""`inpainting_fill` is the place in this list."""

SAME_CHOICES = ("Use same choices",)

_OURS_ALWAYS = {
    "alwayson_scripts",
    "batch_size",
    "do_not_save_grid",
    "do_not_save_samples",
    "firstpass_image",
    "force_task_id",
    "infotext",
    "init_images",
    "mask",
    "n_iter",
    "override_settings",
    "override_settings_restore_afterwards",
    "sampler_index",
    "save_images",
    "scheduler",
    "script_args",
    "script_name",
    "send_images",
    "styles",
}
_INSTEAD = {
    options.CHECKPOINT: "checkpoint",
    options.MODULES: "vae and text_encoders",
    options.VAE: "vae",
    options.CLIP_SKIP: "clip_skip",
}


def check_section(server: str, request: GenerationRequest, resolution: Resolution) -> None:
    """Refuse a section that would replace silently what the request itself says.

    Raises:
        Unsupported: Naming the field.
    """
    section = request.sections.forge
    if section is None:
        return
    ours = _OURS_ALWAYS | _fields(request, resolution, seed=0, remote_id="").keys()
    for key in section.payload:
        if key in ours:
            raise Unsupported(
                server,
                f"sections.forge.payload.{key}",
                "this is set from the request itself; use the request's own field",
            )
    overridden = _overrides(request, resolution, remote_id="").keys()
    for key in section.override_settings:
        if key in overridden or key in _INSTEAD:
            advice = f"use {_INSTEAD[key]}" if key in _INSTEAD else "it is fixed for every job"
            raise Unsupported(
                server, f"sections.forge.override_settings.{key}", f"not here: {advice}"
            )


def override_keys(job: EngineJob) -> set[str]:
    """Return every option key a job overrides, for `options.pin`."""
    if job.request.mode is Mode.UPSCALE:
        return set()
    section = job.request.sections.forge
    keys = set(_overrides(job.request, job.resolution, remote_id=""))
    if job.resolution.detail.get("modules"):
        keys.add(options.MODULES_IN_USE)
    return keys | {*(section.override_settings if section else {})}


def read_pictures(server: str, job: EngineJob) -> dict[str, str]:
    """Return a job's pictures as base64, ready for `build`; reads and encodes, so use a thread.

    Raises:
        JobRejected: A picture cannot be read.
    """
    mode, inputs = job.request.mode, job.inputs
    if mode is Mode.UPSCALE:
        return {"image": pictures.picture_to_upscale(server, inputs["init_image"])}
    found: dict[str, str] = {}
    if mode is not Mode.TXT2IMG:
        found["init_image"] = pictures.start_picture(server, inputs["init_image"])
    if mode is Mode.INPAINT:
        found["mask"] = pictures.mask_picture(server, inputs["mask_image"])
    return found


def build(job: EngineJob, encoded: Mapping[str, str], *, remote_id: str, pinned: bool) -> JSON:
    """Return the body of a job's request.

    Args:
        job: What to make.
        encoded: Its pictures, from `read_pictures`.
        remote_id: The id its task and its file get.
        pinned: Whether overrides will be undone after the job.
    """
    request, resolution = job.request, job.resolution
    if request.mode is Mode.UPSCALE:
        return {
            "image": encoded["image"],
            "resize_mode": 0,
            "upscaling_resize": request.upscale.scale,
            "upscaler_1": resolution.upscaler,
        }
    body = _fields(request, resolution, seed=job.seed, remote_id=remote_id)
    if "init_image" in encoded:
        body["init_images"] = [encoded["init_image"]]
    if "mask" in encoded:
        body["mask"] = encoded["mask"]
    section = request.sections.forge
    overrides = options.applicable(
        _overrides(request, resolution, remote_id=remote_id),
        mapping(resolution.detail.get("settings")),
        pinned=pinned,
    )
    body["override_settings"] = {**(section.override_settings if section else {}), **overrides}
    return {**mapping(resolution.detail.get("payload")), **body}


def expected(job: EngineJob) -> JSON:
    """Return what the server must report afterwards; see `verify`."""
    request, detail = job.request, job.resolution.detail
    section = request.sections.forge
    extra: Mapping[str, Any] = mapping(detail.get("payload"))
    resized = any(key.startswith(("hr_resize", "firstphase", "resize_mode")) for key in extra)
    script = text(detail.get("script_name"))
    others = bool(section and (section.styles or "sd_lora" in section.override_settings))
    return {
        "model": detail.get("model", ""),
        "hash": detail.get("hash", ""),
        "title": job.resolution.checkpoint or job.resolution.unet,
        "sampler": job.resolution.sampler,
        "scheduler": job.resolution.scheduler,
        "loras": [lora.name for lora in job.resolution.loras] + list(detail.get("tags", [])),
        "only_these_loras": not (others or script or request.alwayson_scripts),
        "modules": detail.get("modules", []) if _is_forge(job.resolution) else None,
        "vae": job.resolution.vae,
        "clip_skip": max(request.clip_skip, 1),
        "seed": None if script else job.seed,
        "size": None if script or resized else list(_final_size(request)),
    }


def _fields(
    request: GenerationRequest, resolution: Resolution, *, seed: int, remote_id: str
) -> JSON:
    """Return every field that comes from the request, without pictures and overrides."""
    detail, section = resolution.detail, request.sections.forge
    body: JSON = {
        "prompt": add_tags(text(detail.get("prompt")) or request.prompt, _tags(resolution)),
        "negative_prompt": request.negative_prompt,
        "styles": list(section.styles) if section else [],
        "seed": seed,
        "steps": request.steps,
        "cfg_scale": request.cfg_scale,
        "width": request.width,
        "height": request.height,
        "sampler_name": resolution.sampler,
        "batch_size": 1,
        "n_iter": 1,
        "send_images": True,
        "save_images": True,
        "force_task_id": remote_id,
        "override_settings_restore_afterwards": True,
        "alwayson_scripts": detail.get("alwayson_scripts", {}),
    }
    if detail.get("schedulers", True):
        body["scheduler"] = resolution.scheduler
    if script := text(detail.get("script_name")):
        body["script_name"] = script
        body["script_args"] = list(section.script_args) if section else []
    if _is_forge(resolution):
        body["distilled_cfg_scale"] = request.guidance
    if request.mode is Mode.TXT2IMG:
        body.update(_hires(request, resolution))
    else:
        body |= {
            "denoising_strength": request.denoising_strength,
            "include_init_images": False,
        }
    if request.mode is Mode.INPAINT:
        how = request.inpaint
        body |= {
            "mask_blur": how.mask_blur,
            "inpainting_fill": FILLS.index(how.fill),
            "inpaint_full_res": how.only_masked,
            "inpaint_full_res_padding": how.padding,
            "inpainting_mask_invert": int(how.invert),
        }
    return body


def _hires(request: GenerationRequest, resolution: Resolution) -> JSON:
    hires = request.hires
    if not hires.enabled:
        return {"enable_hr": False}
    body: JSON = {
        "enable_hr": True,
        "hr_scale": hires.scale,
        "hr_upscaler": resolution.upscaler,
        "hr_second_pass_steps": hires.steps,
        "denoising_strength": hires.denoising_strength,
    }
    if _is_forge(resolution):
        body |= {
            "hr_additional_modules": list(SAME_CHOICES),
            "hr_cfg": request.cfg_scale,
            "hr_distilled_cfg": request.guidance,
        }
    return body


def _overrides(request: GenerationRequest, resolution: Resolution, *, remote_id: str) -> JSON:
    wanted: JSON = {
        **options.ALWAYS,
        options.PATTERN: f"{remote_id}-[seed]",
        options.CHECKPOINT: resolution.checkpoint or resolution.unet,
        options.CLIP_SKIP: max(request.clip_skip, 1),
    }
    if _is_forge(resolution):
        wanted[options.MODULES] = list(resolution.detail.get("modules", []))
    else:
        # Automatic: a VAE lying beside the checkpoint under its name belongs to it.
        wanted[options.VAE] = resolution.vae or "Automatic"
    return wanted


def _tags(resolution: Resolution) -> list[Lora]:
    return [
        Lora(
            name=lora.name,
            weight=lora.weight,
            text_weight=None if lora.text_weight == lora.weight else lora.text_weight,
        )
        for lora in resolution.loras
    ]


def _is_forge(resolution: Resolution) -> bool:
    return resolution.detail.get("flavour") == "forge"


def _final_size(request: GenerationRequest) -> tuple[int, int]:
    scale = request.hires.scale if request.hires.enabled and request.mode is Mode.TXT2IMG else 1.0
    return int(request.width * scale) // 8 * 8, int(request.height * scale) // 8 * 8
