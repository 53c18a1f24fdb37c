"""Bodies the API takes, with the recorded server's types, defaults and order of keys.

Almost everything may be null there; what null then does is decided inside the job.
"""

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticKnownError


class _Payload(BaseModel):
    model_config = ConfigDict(extra="ignore")


class GenerationPayload(_Payload):
    """What `txt2img` and `img2img` share. Sizes in pixels; `steps` is 50 when left out."""

    prompt: str | None = ""
    negative_prompt: str | None = ""
    styles: list[str] | None = None
    seed: int | None = -1
    subseed: int | None = -1
    subseed_strength: float | None = 0
    seed_resize_from_h: int | None = -1
    seed_resize_from_w: int | None = -1
    sampler_name: str | None = None
    scheduler: str | None = None
    batch_size: int | None = 1
    n_iter: int | None = 1
    steps: int | None = 50
    cfg_scale: float | None = 7.0
    distilled_cfg_scale: float | None = 3.5
    width: int | None = 512
    height: int | None = 512
    restore_faces: bool | None = None
    tiling: bool | None = None
    do_not_save_samples: bool | None = False
    do_not_save_grid: bool | None = False
    eta: float | None = None
    denoising_strength: float | None = None
    s_min_uncond: float | None = None
    s_churn: float | None = None
    s_tmax: float | None = None
    s_tmin: float | None = None
    s_noise: float | None = None
    override_settings: dict[str, Any] | None = None
    override_settings_restore_afterwards: bool | None = True
    refiner_checkpoint: str | None = None
    refiner_switch_at: float | None = None
    disable_extra_networks: bool | None = False
    firstpass_image: str | None = None
    comments: dict[str, Any] | None = None


class Txt2ImgPayload(GenerationPayload):
    """Body of `POST /sdapi/v1/txt2img`."""

    enable_hr: bool | None = False
    firstphase_width: int | None = 0
    firstphase_height: int | None = 0
    hr_scale: float | None = 2.0
    hr_upscaler: str | None = None
    hr_second_pass_steps: int | None = 0
    hr_resize_x: int | None = 0
    hr_resize_y: int | None = 0
    hr_checkpoint_name: str | None = None
    hr_additional_modules: list[Any] | None = None
    hr_sampler_name: str | None = None
    hr_scheduler: str | None = None
    hr_prompt: str | None = ""
    hr_negative_prompt: str | None = ""
    hr_cfg: float | None = 1.0
    hr_distilled_cfg: float | None = 3.5
    force_task_id: str | None = None
    sampler_index: str = "Euler"
    script_name: str | None = None
    script_args: list[Any] = []
    send_images: bool = True
    save_images: bool = False
    alwayson_scripts: dict[str, Any] = {}
    infotext: str | None = None


class Img2ImgPayload(GenerationPayload):
    """Body of `POST /sdapi/v1/img2img`."""

    denoising_strength: float = 0.75  # type: ignore[assignment]
    init_images: list[Any] | None = None
    resize_mode: int | None = 0
    image_cfg_scale: float | None = None
    mask: str | None = None
    mask_blur_x: int | None = 4
    mask_blur_y: int | None = 4
    mask_blur: int | None = None
    mask_round: bool | None = True
    inpainting_fill: int | None = 0
    inpaint_full_res: bool | None = True
    inpaint_full_res_padding: int | None = 0
    inpainting_mask_invert: int | None = 0
    initial_noise_multiplier: float | None = None
    latent_mask: str | None = None
    force_task_id: str | None = None
    hr_distilled_cfg: float | None = 3.5
    sampler_index: str = "Euler"
    include_init_images: bool = False
    script_name: str | None = None
    script_args: list[Any] = []
    send_images: bool = True
    save_images: bool = False
    alwayson_scripts: dict[str, Any] = {}
    infotext: str | None = None


AnyPayload = Txt2ImgPayload | Img2ImgPayload

_FORGE_ONLY = {"distilled_cfg_scale", "hr_additional_modules", "hr_cfg", "hr_distilled_cfg"}


def echo(payload: AnyPayload, *, forge: bool) -> dict[str, Any]:
    """Return the answer's `parameters`: the request with its defaults, nothing more."""
    told = payload.model_dump(exclude=None if forge else _FORGE_ONLY)
    if isinstance(payload, Img2ImgPayload) and not payload.include_init_images:
        told.update(init_images=None, mask=None)
    return told


_Visibility = Annotated[float, Field(ge=0, le=1)]


class ExtrasPayload(_Payload):
    """What the two upscaling routes share. `resize_mode` 0: by factor, 1: to a size in pixels."""

    resize_mode: Annotated[int, Field(ge=0, le=1)] = 0
    show_extras_results: bool = True
    gfpgan_visibility: _Visibility = 0
    codeformer_visibility: _Visibility = 0
    codeformer_weight: _Visibility = 0
    upscaling_resize: Annotated[float, Field(gt=0)] = 2
    upscaling_resize_w: Annotated[int, Field(ge=1)] = 512
    upscaling_resize_h: Annotated[int, Field(ge=1)] = 512
    upscaling_crop: bool = True
    upscaler_1: str = "None"
    upscaler_2: str = "None"
    extras_upscaler_2_visibility: _Visibility = 0
    upscale_first: bool = False


class ExtrasSinglePayload(ExtrasPayload):
    """Body of `POST /sdapi/v1/extra-single-image`."""

    image: str = ""


class ExtrasFile(_Payload):
    """One picture of a batch."""

    data: str
    name: str


class ExtrasBatchPayload(ExtrasPayload):
    """Body of `POST /sdapi/v1/extra-batch-images`."""

    imageList: list[ExtrasFile]  # noqa: N815 - the wire's name


class PngInfoPayload(_Payload):
    """Body of `POST /sdapi/v1/png-info`."""

    image: str


class InterrogatePayload(_Payload):
    """Body of `POST /sdapi/v1/interrogate`."""

    image: str = ""
    model: str = "clip"


def _not_null(value: Any) -> Any:
    if value is None:
        raise PydanticKnownError("string_type")
    return value


class ProgressPayload(_Payload):
    """Body of `POST /internal/progress`."""

    id_task: Annotated[str | None, BeforeValidator(_not_null)] = None
    id_live_preview: int = -1
    live_preview: bool = True


class QueuePayload(_Payload):
    """Body of `POST /queue/join` and `POST /call/...`."""

    data: list[Any]
    session_hash: str | None = None
    event_id: str | None = None
    event_data: Any = None
    fn_index: int | None = None
    trigger_id: int | None = None


class CancelPayload(_Payload):
    """Body of `POST /cancel`."""

    session_hash: str
    fn_index: int | None = None
    event_id: str
