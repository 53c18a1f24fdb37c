"""What hires, refiner and inpainting put into `extra_generation_params`, in the recorded order."""

from typing import Any

from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.checkpoints import Shelf, stem
from stablequeue.sandbox.forge.facts import rows
from stablequeue.sandbox.forge.names import upscaler_names
from stablequeue.sandbox.forge.payloads import AnyPayload, Img2ImgPayload, Txt2ImgPayload
from stablequeue.sandbox.forge.sizes import latent_size, real, whole

_NO_CHECKPOINT = {None, "", "None", "none", "Use same checkpoint"}


def hires_size(payload: Txt2ImgPayload, width: int, height: int) -> tuple[int, int]:
    """Return the size of the second pass in pixels."""
    across, down = whole(payload.hr_resize_x), whole(payload.hr_resize_y)
    if not across and not down:
        scale = real(payload.hr_scale)
        try:
            return latent_size(int(width * scale), int(height * scale))
        except (ValueError, OverflowError) as error:
            raise Failure(type(error).__name__, str(error)) from error
    if not down:
        return latent_size(across, across * height // width if width else 0)
    if not across:
        return latent_size(down * width // height if height else 0, down)
    return latent_size(across, down)


def hires_extras(
    payload: Txt2ImgPayload, shelf: Shelf, *, forge: bool, distilled: bool
) -> dict[str, Any]:
    """Return what a second pass adds.

    Raises:
        Failure: TypeError on Forge without `hr_additional_modules`; Exception for an unknown
            checkpoint or upscaler.
    """
    extra: dict[str, Any] = {"Denoising strength": payload.denoising_strength}
    if forge:
        extra |= _hires_modules(payload)
    if payload.hr_checkpoint_name not in _NO_CHECKPOINT:
        extra["Hires checkpoint"] = _checkpoint_title(payload.hr_checkpoint_name, shelf)
    if payload.hr_sampler_name:
        extra["Hires sampler"] = payload.hr_sampler_name
    extra["Hires prompt"] = payload.hr_prompt or None
    extra["Hires negative prompt"] = payload.hr_negative_prompt or None
    if forge:
        extra["Hires CFG Scale"] = payload.hr_cfg
        extra["Hires Distilled CFG Scale"] = payload.hr_distilled_cfg if distilled else None
    extra["Hires schedule type"] = payload.hr_scheduler
    if payload.hr_resize_x or payload.hr_resize_y:
        extra["Hires resize"] = f"{payload.hr_resize_x}x{payload.hr_resize_y}"
    else:
        extra["Hires upscale"] = payload.hr_scale
    if payload.hr_second_pass_steps:
        extra["Hires steps"] = payload.hr_second_pass_steps
    return extra | _hires_upscaler(payload, shelf)


def _hires_modules(payload: Txt2ImgPayload) -> dict[str, Any]:
    if payload.hr_additional_modules is None:
        raise Failure("TypeError", "argument of type 'NoneType' is not iterable")
    return {
        f"Hires Module {number}": stem(str(module).rsplit("/", 1)[-1])
        for number, module in enumerate(payload.hr_additional_modules, 1)
    }


def _hires_upscaler(payload: Txt2ImgPayload, shelf: Shelf) -> dict[str, Any]:
    name = payload.hr_upscaler
    if name is None:
        return {}
    latent = [mode["name"] for mode in rows("latent_upscale_modes")]
    if name not in [*latent, *upscaler_names(shelf)]:
        raise Failure("Exception", f"could not find upscaler named {name}")
    return {"Hires upscaler": name}


def _checkpoint_title(name: str | None, shelf: Shelf) -> str:
    found = shelf.find(name)
    if found is None:
        raise Failure("Exception", f"Could not find checkpoint with name {name}")
    return found.title


def refiner_extras(payload: AnyPayload, shelf: Shelf) -> dict[str, Any]:
    """Return what a refiner adds.

    Raises:
        Failure: Exception for an unknown checkpoint.
    """
    if payload.refiner_switch_at is None or payload.refiner_checkpoint in _NO_CHECKPOINT:
        return {}
    title = _checkpoint_title(payload.refiner_checkpoint, shelf)
    return {"Refiner": title, "Refiner switch at": payload.refiner_switch_at}


def mask_extras(payload: Img2ImgPayload) -> dict[str, Any]:
    """Return what a mask adds."""
    blur = payload.mask_blur if payload.mask_blur is not None else payload.mask_blur_x
    extra: dict[str, Any] = {"Mask blur": blur}
    if payload.inpainting_mask_invert:
        extra["Mask mode"] = "Inpaint not masked"
    if payload.inpaint_full_res:
        extra["Inpaint area"] = "Only masked"
        extra["Masked area padding"] = payload.inpaint_full_res_padding
    return extra
