"""The text and the JSON that tell how a picture was made, keyed and ordered as recorded."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from stablequeue.sandbox.forge.plan import Plan


def quoted(value: Any) -> str:
    """Return a value as infotexts write it: quoted when it holds a separator."""
    text = str(value)
    if any(mark in text for mark in ",\n:"):
        return json.dumps(text, ensure_ascii=False)
    return text


def infotext(plan: Plan, index: int = 0) -> str:
    """Return the infotext of the picture with this index of the whole job."""
    index = min(index, len(plan.seeds) - 1)
    varied = bool(plan.subseed_strength)
    told: dict[str, Any] = {
        "Steps": plan.steps,
        "Sampler": plan.sampler,
        "Schedule type": plan.scheduler,
        "CFG scale": plan.cfg_scale,
        "Distilled CFG Scale": plan.distilled_cfg if plan.distilled else None,
        "Seed": plan.seeds[index],
        "Size": f"{plan.width}x{plan.height}",
        "Model hash": plan.checkpoint.file.short_hash,
        "Model": plan.checkpoint.base_name,
        "VAE hash": plan.vae_hash,
        "VAE": plan.vae_name,
        "Variation seed": plan.subseeds[index] if varied else None,
        "Variation seed strength": plan.subseed_strength if varied else None,
        "Denoising strength": None,
        "Clip skip": plan.clip_skip if plan.clip_skip > 1 else None,
        **plan.extra,
        "Version": plan.version,
        **{f"Module {n}": name for n, name in enumerate(plan.modules, 1)},
    }
    negative = f"\nNegative prompt: {plan.negative}" if plan.negative else ""
    line = ", ".join(f"{key}: {quoted(value)}" for key, value in told.items() if value is not None)
    return f"{plan.prompt}{negative}\n{line}".strip()


def info_json(
    plan: Plan, *, infotexts: Sequence[str], index_of_first_image: int, job_timestamp: str
) -> str:
    """Return the answer's `info`."""
    count = len(plan.seeds)
    told: Mapping[str, Any] = {
        "prompt": plan.prompt,
        "all_prompts": [plan.prompt] * count,
        "negative_prompt": plan.negative,
        "all_negative_prompts": [plan.negative] * count,
        "seed": plan.seeds[0],
        "all_seeds": plan.seeds,
        "subseed": plan.subseeds[0],
        "all_subseeds": plan.subseeds,
        "subseed_strength": plan.subseed_strength,
        "width": plan.width,
        "height": plan.height,
        "sampler_name": plan.sampler,
        "cfg_scale": plan.cfg_scale,
        "steps": plan.steps,
        "batch_size": plan.batch_size,
        "restore_faces": plan.restore_faces,
        "face_restoration_model": "CodeFormer" if plan.restore_faces else None,
        "sd_model_name": plan.checkpoint.base_name,
        "sd_model_hash": plan.checkpoint.file.short_hash,
        "sd_vae_name": plan.vae_name,
        "sd_vae_hash": plan.vae_hash,
        "seed_resize_from_w": -1,
        "seed_resize_from_h": -1,
        "denoising_strength": plan.denoise,
        "extra_generation_params": plan.extra,
        "index_of_first_image": index_of_first_image,
        "infotexts": list(infotexts) or [infotext(plan)],
        "styles": plan.styles,
        "job_timestamp": job_timestamp,
        "clip_skip": plan.clip_skip,
        "is_using_inpainting_conditioning": False,
        "version": plan.version,
    }
    return json.dumps(told)
