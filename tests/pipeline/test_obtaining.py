"""What becomes of a model a server lacks, as a template tells where it belongs."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stablequeue.errors import ModelMissing, NotFetched
from stablequeue.models.kinds import ModelType
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.obtaining import obtainable, plan
from stablequeue.settings import ModelSettings, Settings
from stablequeue.source_settings import HuggingFaceSettings, SourceSettings
from tests.fakes.huggingface import FakeHuggingFace, serve_huggingface
from tests.fakes.model_files import safetensors
from tests.pipeline.conftest import Bench
from tests.support.drawing import Drawing

PATH = "split/model.safetensors"


@pytest.fixture
def hub() -> Iterator[str]:
    fake = FakeHuggingFace()
    fake.add("acme/repo", PATH, safetensors(20_000))
    with serve_huggingface(fake) as url:
        yield url


def fetching(settings: Settings, folder: Path, hub: str, *kinds: str) -> Settings:
    """Return settings with folders of models and with the fake hub."""
    for kind in kinds:
        (folder / kind).mkdir(parents=True)
    hosts = ("127.0.0.1", "localhost")
    source = HuggingFaceSettings(base_url=hub, hosts=hosts, token_hosts=hosts, loopback=True)
    return settings.model_copy(
        update={
            "models": ModelSettings(folders={kind: [folder / kind] for kind in kinds}),
            "sources": SourceSettings(huggingface=source),
        }
    )


def job_of(bench: Bench, hub: str, directory: str) -> Job:
    told: dict[str, Any] = {"name": "model.safetensors", "directory": directory}
    told["url"] = f"{hub}/acme/repo/resolve/main/{PATH}"
    drawing = Drawing()
    drawing.node("Loader", "model.safetensors", properties={"models": [told]})
    job = bench.job(prompt="", checkpoint="", mode="workflow", workflow=drawing.workflow())
    job.server = job.server.model_copy(update={"models_from": "same"})
    return job


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (("clip_name", "clip_vision"), ModelType.CLIP_VISION),
        (("clip_name", "text_encoders"), ModelType.TEXT_ENCODER),
        (("name", "vae"), ModelType.VAE),
        (("unet_name", "unet"), ModelType.DIFFUSION_MODEL),
        (("unet_name", "checkpoints"), ModelType.DIFFUSION_MODEL),
    ],
)
async def test_the_folder_a_template_names_tells_what_an_input_does_not(
    bench: Bench, tmp_path: Path, hub: str, told: tuple[str, str], kind: ModelType
) -> None:
    field, directory = told
    kinds = ("clip_vision", "text_encoder", "vae", "unet", "checkpoint")
    bench.settings = fetching(bench.settings, tmp_path / "models", hub, *kinds)
    job = job_of(bench, hub, directory)
    missing = ModelMissing("gpu-a", f"workflow.1.{field}", "model.safetensors")

    [fetched] = (await plan(job, missing)).fetch

    folder = "unet" if kind is ModelType.DIFFUSION_MODEL else str(kind)
    assert (fetched.kind, fetched.root) == (kind, tmp_path / "models" / folder)
    assert await obtainable(job.server, job.request, missing, bench.settings)


@pytest.mark.parametrize("directory", ["latent_upscale_models", "model_patches", "style_models"])
async def test_what_belongs_in_a_folder_the_library_does_not_have_is_not_put_into_another(
    bench: Bench, tmp_path: Path, hub: str, directory: str
) -> None:
    kinds = ("upscaler", "controlnet", "checkpoint")
    bench.settings = fetching(bench.settings, tmp_path / "models", hub, *kinds)
    job = job_of(bench, hub, directory)
    missing = ModelMissing("gpu-a", "workflow.1.model_name", "model.safetensors")

    with pytest.raises(NotFetched, match=f"models/{directory}.*by hand"):
        await plan(job, missing)
    assert not await obtainable(job.server, job.request, missing, bench.settings)
