"""Requests and jobs for the tests of this folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stablequeue.engines.base import EngineJob, LoraUse, Resolution
from stablequeue.request import GenerationRequest

JOB_ID = "01950000-0000-7000-8000-000000000001"
PICTURE = "sha256:" + "0" * 64


def request(**fields: Any) -> GenerationRequest:
    """Return a request; a small txt2img unless told otherwise."""
    basics: dict[str, Any] = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 3}
    return GenerationRequest.model_validate({**basics, **fields})


def resolution(**fields: Any) -> Resolution:
    """Return what `resolve` would have made of it."""
    detail = {"prompt": "a lighthouse", "negative_prompt": "", "family": "sd15"}
    detail |= fields.pop("detail", {})
    basics: dict[str, Any] = {
        "checkpoint": "sub dir/full-random-sd15.safetensors",
        "sampler": "euler",
        "scheduler": "normal",
    }
    return Resolution(**{**basics, **fields, "detail": detail})


def job(
    asked: GenerationRequest | None = None,
    resolved: Resolution | None = None,
    *,
    index: int = 0,
    attempt: int = 1,
    seed: int = 7,
    inputs: Mapping[str, Path] | None = None,
    job_id: str = JOB_ID,
) -> EngineJob:
    """Return a job of one picture."""
    return EngineJob(
        job_id=job_id,
        index=index,
        attempt=attempt,
        seed=seed,
        request=asked or request(),
        resolution=resolved or resolution(),
        inputs=inputs or {},
    )


def lora(name: str = "style/tiny-random-lora.safetensors", weight: float = 0.8) -> LoraUse:
    """Return a LoRA in use."""
    return LoraUse(name=name, weight=weight, text_weight=weight / 2)
