"""Nodes that generate."""

import asyncio
from dataclasses import dataclass, replace

from PIL import Image

from stablequeue.sandbox.comfyui.nodes.table import (
    Call,
    Inputs,
    Made,
    Preview,
    Spec,
    choice,
    node,
    real,
    seed_input,
    whole,
)
from stablequeue.sandbox.comfyui.values import (
    Conditioning,
    Guider,
    Latent,
    Model,
    Noise,
    Sampler,
    Sigmas,
)
from stablequeue.sandbox.painter import Card, paint, preview

SAMPLERS = [
    "euler", "euler_cfg_pp", "euler_ancestral", "euler_ancestral_cfg_pp", "heun", "heunpp2",
    "dpm_2", "dpm_2_ancestral", "lms", "dpm_fast", "dpm_adaptive", "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp", "dpmpp_sde", "dpmpp_sde_gpu", "dpmpp_2m", "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde", "dpmpp_2m_sde_gpu", "dpmpp_2m_sde_heun", "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde", "dpmpp_3m_sde_gpu", "ddpm", "lcm", "ipndm", "ipndm_v", "deis",
    "res_multistep", "res_multistep_cfg_pp", "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp", "gradient_estimation", "gradient_estimation_cfg_pp",
    "er_sde", "seeds_2", "seeds_3", "sa_solver", "sa_solver_pece", "ddim", "uni_pc", "uni_pc_bh2",
]  # fmt: skip
SCHEDULERS = [
    "simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal",
    "linear_quadratic", "kl_optimal",
]  # fmt: skip
_PREVIEW_SIZE = 512
_LABEL = "StableQueue sandbox"


@dataclass(frozen=True, kw_only=True)
class _Task:
    """One run of a sampler over `steps` steps."""

    model: Model
    seed: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    positive: Conditioning
    negative: Conditioning
    latent: Latent
    denoise: float

    def card(self, index: int) -> Card:
        """Return what the picture `index` of the batch shows."""
        latent = self.latent
        start = latent.pictures[index] if latent.pictures else None
        mode = "txt2img" if start is None else "inpaint" if latent.mask else "img2img"
        return Card(
            prompt=self.positive.text,
            negative=self.negative.text,
            seed=self.seed,
            width=latent.width,
            height=latent.height,
            model=self.model.painted_as or self.model.name,
            sampler=self.sampler,
            scheduler=self.scheduler,
            steps=self.steps,
            cfg=self.cfg,
            loras=self.model.loras,
            mode=mode,
            init=start,
            mask=latent.mask if start else None,
            denoise=self.denoise,
            label=_LABEL if index == 0 else f"{_LABEL}, picture {index + 1} of the batch",
        )


async def _sample(call: Call, task: _Task) -> Made:
    """Spend the steps, then paint.

    The number of steps and the progress follow KSampler: `value` counts 1 to `max`.
    """
    latent = task.latent
    model = await call.load(task.model)
    task = replace(task, model=model)
    await call.reserve(latent.width, latent.height, latent.batch)
    first = task.card(0)
    for number in range(1, task.steps + 1):
        await call.step(number)
        seen = None
        if call.wants_previews():
            picture = await asyncio.to_thread(preview, first, number / task.steps)
            seen = Preview("JPEG", picture, _PREVIEW_SIZE)
        await call.progress(number, task.steps, seen)

    def painted() -> tuple[Image.Image, ...]:
        return tuple(paint(task.card(index)) for index in range(latent.batch))

    pictures = await asyncio.to_thread(painted)
    call.note(
        "generated",
        seed=task.seed,
        model=task.model.name,
        steps=task.steps,
        width=latent.width,
        height=latent.height,
        batch=latent.batch,
        denoise=task.denoise,
    )
    return Made((replace(latent, pictures=pictures),))


def _cfg() -> Spec:
    return real(8.0, 0.0, 100.0, 0.1, round=0.01)


@node(
    "KSampler",
    category="sampling",
    output=("LATENT",),
    required=lambda _: {
        "model": ["MODEL"],
        "seed": seed_input(),
        "steps": whole(20, 1, 10000),
        "cfg": _cfg(),
        "sampler_name": choice(SAMPLERS),
        "scheduler": choice(SCHEDULERS),
        "positive": ["CONDITIONING"],
        "negative": ["CONDITIONING"],
        "latent_image": ["LATENT"],
        "denoise": real(1.0, 0.0, 1.0),
    },
)
async def ksampler(call: Call, inputs: Inputs) -> Made:
    """Generate."""
    return await _sample(
        call,
        _Task(
            model=inputs["model"],
            seed=inputs["seed"],
            steps=inputs["steps"],
            cfg=inputs["cfg"],
            sampler=inputs["sampler_name"],
            scheduler=inputs["scheduler"],
            positive=inputs["positive"],
            negative=inputs["negative"],
            latent=inputs["latent_image"],
            denoise=inputs["denoise"],
        ),
    )


@node(
    "KSamplerAdvanced",
    display="KSampler (Advanced)",
    category="sampling",
    output=("LATENT",),
    required=lambda _: {
        "model": ["MODEL"],
        "add_noise": choice(["enable", "disable"]),
        "noise_seed": seed_input(),
        "steps": whole(20, 1, 10000),
        "cfg": _cfg(),
        "sampler_name": choice(SAMPLERS),
        "scheduler": choice(SCHEDULERS),
        "positive": ["CONDITIONING"],
        "negative": ["CONDITIONING"],
        "latent_image": ["LATENT"],
        "start_at_step": whole(0, 0, 10000),
        "end_at_step": whole(10000, 0, 10000),
        "return_with_leftover_noise": choice(["disable", "enable"]),
    },
)
async def ksampler_advanced(call: Call, inputs: Inputs) -> Made:
    """Generate some of the steps."""
    steps: int = inputs["steps"]
    start, end = inputs["start_at_step"], min(steps, inputs["end_at_step"])
    return await _sample(
        call,
        _Task(
            model=inputs["model"],
            seed=inputs["noise_seed"],
            steps=max(0, end - start),
            cfg=inputs["cfg"],
            sampler=inputs["sampler_name"],
            scheduler=inputs["scheduler"],
            positive=inputs["positive"],
            negative=inputs["negative"],
            latent=inputs["latent_image"],
            denoise=max(0, end - start) / steps,
        ),
    )


@node(
    "SamplerCustomAdvanced",
    category="sampling/custom_sampling",
    output=("LATENT", "LATENT"),
    names=("output", "denoised_output"),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {
        "noise": ["NOISE"],
        "guider": ["GUIDER"],
        "sampler": ["SAMPLER"],
        "sigmas": ["SIGMAS"],
        "latent_image": ["LATENT"],
    },
)
async def sampler_custom_advanced(call: Call, inputs: Inputs) -> Made:
    """Generate from parts."""
    guider: Guider = inputs["guider"]
    sigmas: Sigmas = inputs["sigmas"]
    noise: Noise = inputs["noise"]
    made = await _sample(
        call,
        _Task(
            model=guider.model,
            seed=noise.seed or 0,
            steps=sigmas.steps,
            cfg=guider.cfg,
            sampler=inputs["sampler"].name,
            scheduler=sigmas.scheduler,
            positive=guider.positive,
            negative=guider.negative,
            latent=inputs["latent_image"],
            denoise=sigmas.denoise,
        ),
    )
    return Made(made.values * 2)


@node(
    "RandomNoise",
    category="sampling/custom_sampling/noise",
    output=("NOISE",),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {"noise_seed": seed_input()},
)
async def random_noise(call: Call, inputs: Inputs) -> Made:
    """Make noise of a seed."""
    del call
    return Made((Noise(inputs["noise_seed"]),))


@node(
    "DisableNoise",
    category="sampling/custom_sampling/noise",
    output=("NOISE",),
    module="comfy_extras.nodes_custom_sampler",
)
async def disable_noise(call: Call, inputs: Inputs) -> Made:
    """Make no noise."""
    del call, inputs
    return Made((Noise(None),))


@node(
    "KSamplerSelect",
    category="sampling/custom_sampling/samplers",
    output=("SAMPLER",),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {"sampler_name": choice(SAMPLERS)},
)
async def select_sampler(call: Call, inputs: Inputs) -> Made:
    """Choose a sampler."""
    del call
    return Made((Sampler(inputs["sampler_name"]),))


@node(
    "BasicScheduler",
    category="sampling/custom_sampling/schedulers",
    output=("SIGMAS",),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {
        "model": ["MODEL"],
        "scheduler": choice(SCHEDULERS),
        "steps": whole(20, 1, 10000),
        "denoise": real(1.0, 0.0, 1.0),
    },
)
async def basic_scheduler(call: Call, inputs: Inputs) -> Made:
    """Make a schedule."""
    del call
    return Made((Sigmas(inputs["scheduler"], inputs["steps"], inputs["denoise"]),))


@node(
    "BasicGuider",
    category="sampling/custom_sampling/guiders",
    output=("GUIDER",),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {"model": ["MODEL"], "conditioning": ["CONDITIONING"]},
)
async def basic_guider(call: Call, inputs: Inputs) -> Made:
    """Guide by one prompt."""
    del call
    return Made((Guider(inputs["model"], inputs["conditioning"]),))


@node(
    "CFGGuider",
    category="sampling/custom_sampling/guiders",
    output=("GUIDER",),
    module="comfy_extras.nodes_custom_sampler",
    required=lambda _: {
        "model": ["MODEL"],
        "positive": ["CONDITIONING"],
        "negative": ["CONDITIONING"],
        "cfg": _cfg(),
    },
)
async def cfg_guider(call: Call, inputs: Inputs) -> Made:
    """Guide by a prompt and a negative one."""
    del call
    guider = Guider(inputs["model"], inputs["positive"], inputs["negative"], inputs["cfg"])
    return Made((guider,))
