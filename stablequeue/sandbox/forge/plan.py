"""What the server makes of a request, once its overrides are applied and its model is loaded."""

import random
from dataclasses import dataclass, field
from typing import Any

from stablequeue.sandbox.forge.answers import Failure
from stablequeue.sandbox.forge.checkpoints import Checkpoint, Shelf, stem
from stablequeue.sandbox.forge.extras import hires_extras, hires_size, mask_extras, refiner_extras
from stablequeue.sandbox.forge.names import apply_styles, find_loras, resolve_sampler
from stablequeue.sandbox.forge.options import MODULES, VAE, Options
from stablequeue.sandbox.forge.payloads import AnyPayload, Img2ImgPayload, Txt2ImgPayload
from stablequeue.sandbox.forge.scripts import script_extras
from stablequeue.sandbox.forge.settings import ForgeSettings
from stablequeue.sandbox.forge.sizes import (
    latent_size,
    pick_seed,
    raise_none,
    real,
    shortened,
    whole,
)

_MOST_PICTURES = 100_000


@dataclass(kw_only=True)
class Plan:
    """One job as the server understood it. Sizes in pixels.

    Attributes:
        width: As asked; results keep telling this.
        canvas: Width and height of the first pass, multiples of 8.
        target: Width and height of the pictures.
        scheduler: Label as infotexts tell it.
        passes: Steps of each pass of one iteration.
        extra: `extra_generation_params`.
        fails_at_end: The size is nothing, which is noticed after sampling.
    """

    kind: str
    prompt: str
    negative: str
    styles: list[str]
    seeds: list[int]
    subseeds: list[int]
    subseed_strength: float
    width: int
    height: int
    canvas: tuple[int, int]
    target: tuple[int, int]
    steps: int
    passes: list[int]
    batch_size: int
    n_iter: int
    cfg_scale: float
    distilled_cfg: float
    sampler: str
    scheduler: str
    denoise: float | None
    clip_skip: int
    restore_faces: bool
    checkpoint: Checkpoint
    version: str
    fails_at_end: bool = False
    loras: tuple[tuple[str, float], ...] = ()
    vae_name: str | None = None
    vae_hash: str | None = None
    modules: list[str] = field(default_factory=list[str])
    extra: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def distilled(self) -> bool:
        """Whether the model has a distilled CFG scale."""
        return _is_distilled(self.checkpoint)


@dataclass(frozen=True, kw_only=True)
class Circumstances:
    """What a plan depends on besides its request."""

    checkpoint: Checkpoint
    shelf: Shelf
    options: Options
    settings: ForgeSettings
    rng: random.Random


def make_plan(payload: AnyPayload, given: Circumstances) -> Plan:
    """Return what will be done.

    Raises:
        Failure: What the recorded server raises before it samples.
    """
    count = _count(payload)
    width, height, steps = whole(payload.width), whole(payload.height), whole(payload.steps)
    canvas = latent_size(width, height)
    target, passes, extra = _passes(payload, given, canvas)
    sampler, scheduler, effective = resolve_sampler(
        payload.sampler_name or payload.sampler_index,
        payload.scheduler,
        forge=given.settings.is_forge,
    )
    prompt, negative = apply_styles(payload)
    extra |= refiner_extras(payload, given.shelf)
    loras = find_loras(prompt, given.shelf)
    if loras:
        hashes = [f"{name}: {lora.file.sha256[:12]}" for name, _, lora in loras]
        extra["Lora hashes"] = ", ".join(hashes)
    extra |= script_extras(payload.alwayson_scripts)
    _check_steps(steps)
    if effective:
        extra["Schedule type"] = effective
    seed, subseed = pick_seed(payload.seed, given.rng), pick_seed(payload.subseed, given.rng)
    strength = payload.subseed_strength or 0
    vae_name, vae_hash = _vae(given)
    return Plan(
        kind="txt2img" if isinstance(payload, Txt2ImgPayload) else "img2img",
        prompt=prompt,
        negative=negative,
        styles=payload.styles or [],
        seeds=[seed + (0 if strength else k) for k in range(count)],
        subseeds=[subseed + k for k in range(count)],
        subseed_strength=strength,
        width=width,
        height=height,
        canvas=canvas,
        target=target,
        steps=steps,
        passes=passes,
        batch_size=whole(payload.batch_size),
        n_iter=whole(payload.n_iter),
        cfg_scale=real(payload.cfg_scale),
        distilled_cfg=real(payload.distilled_cfg_scale),
        sampler=sampler,
        scheduler=scheduler,
        denoise=payload.denoising_strength,
        clip_skip=given.options.whole("CLIP_stop_at_last_layers", 1),
        restore_faces=bool(payload.restore_faces),
        checkpoint=given.checkpoint,
        version=given.settings.version,
        fails_at_end=0 in canvas or 0 in target,
        loras=tuple((name, weight) for name, weight, _ in loras),
        vae_name=vae_name,
        vae_hash=vae_hash,
        modules=_module_names(given),
        extra=extra,
    )


def _count(payload: AnyPayload) -> int:
    n_iter, batch_size = whole(payload.n_iter), whole(payload.batch_size)
    if n_iter < 1 or batch_size < 1:
        raise Failure("IndexError", "list index out of range")
    if n_iter * batch_size > _MOST_PICTURES:
        raise Failure("MemoryError")
    return n_iter * batch_size


def _check_steps(steps: int) -> None:
    if steps == 0:
        raise Failure("ZeroDivisionError", "integer division or modulo by zero")
    if steps < 0:
        raise Failure("RuntimeError", "number of steps must be non-negative")


def _passes(
    payload: AnyPayload, given: Circumstances, canvas: tuple[int, int]
) -> tuple[tuple[int, int], list[int], dict[str, Any]]:
    """Return the pictures' size, the steps of each pass, and what the passes add to the text."""
    steps = whole(payload.steps)
    if isinstance(payload, Img2ImgPayload):
        told: dict[str, Any] = {"Denoising strength": payload.denoising_strength}
        if payload.mask:
            told |= mask_extras(payload)
        return canvas, [shortened(steps, payload.denoising_strength)], told
    if not payload.enable_hr:
        return canvas, [steps], {}
    target = hires_size(payload, whole(payload.width), whole(payload.height))
    extra = hires_extras(
        payload,
        given.shelf,
        forge=given.settings.is_forge,
        distilled=_is_distilled(given.checkpoint),
    )
    if payload.denoising_strength is None:
        raise_none("*")
    second = whole(payload.hr_second_pass_steps) or steps
    return target, [steps, shortened(second, payload.denoising_strength)], extra


def _is_distilled(checkpoint: Checkpoint) -> bool:
    return checkpoint.file.family == "flux"


def _vae(given: Circumstances) -> tuple[str | None, str | None]:
    """Return name and hash of a VAE chosen by option; Forge has modules instead."""
    if given.settings.is_forge:
        return None, None
    vae = given.shelf.find_module(given.options[VAE])
    return (stem(vae.name.rsplit("/", 1)[-1]), vae.short_hash) if vae else (None, None)


def _module_names(given: Circumstances) -> list[str]:
    paths: list[str] = (given.options[MODULES] or []) if given.settings.is_forge else []
    return [stem(path.replace("\\", "/").rsplit("/", 1)[-1]) for path in paths]
