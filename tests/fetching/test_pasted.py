"""A pasted picture whose models are all missing: fetched, and the same picture made and stored."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.client import Client
from tests.cli.test_submit import picture
from tests.fetching.conftest import WITHIN_S, FetchHouse

Models = dict[str, dict[str, Any]]


def offered(house: FetchHouse) -> Models:
    """Put a checkpoint, a VAE and two LoRAs on Civitai that are nowhere else."""
    kinds = {"checkpoint": "Checkpoint", "vae": "VAE", "first": "LORA", "second": "LORA"}
    return {name: house.offer(model_type=kind) for name, kind in kinds.items()}


def stem(file: dict[str, Any]) -> str:
    return str(file["name"]).removesuffix(".safetensors")


def infotext(models: Models) -> str:
    """Return what AUTOMATIC1111 writes into a picture that was made with them."""
    first, second = models["first"], models["second"]
    hashes = {name: str(one["hashes"]["AutoV2"]).lower() for name, one in models.items()}
    loras = ", ".join(f"{stem(one)}: {one['hashes']['AutoV3'].lower()}" for one in (first, second))
    return (
        f"a lighthouse <lora:{stem(first)}:0.6> <lora:{stem(second)}:0.4>\n"
        "Negative prompt: blurry\n"
        "Steps: 3, Sampler: Euler, Schedule type: Simple, CFG scale: 5, Seed: 77, Size: 64x64, "
        f"Model hash: {hashes['checkpoint']}, Model: {stem(models['checkpoint'])}, "
        f"VAE hash: {hashes['vae']}, VAE: {models['vae']['name']}, "
        f'Lora hashes: "{loras}", Version: v1.10.1'
    )


@pytest.mark.parametrize("server", ["comfy", "forge"])
@pytest.mark.parametrize("pasted", ["infotext", "png"])
def test_a_pasted_picture_with_four_missing_models_is_made_again(
    fetch_house: FetchHouse, queue: Client, tmp_path: Path, server: str, pasted: str
) -> None:
    models = offered(fetch_house)
    text = infotext(models)
    source = text if pasted == "infotext" else str(picture(tmp_path / "found.png", text))

    found = queue.pasted(source)
    assert found.unmatched == ()
    job_id = queue.submit(found.request, server=server).job_id
    view = queue.wait(job_id, timeout=WITHIN_S)

    assert view.state.value == "completed", view.message
    assert [fetch_house.downloads_of(one) for one in models.values()] == [1, 1, 1, 1]
    for name, folder in {
        "checkpoint": "checkpoints",
        "vae": "vae",
        "first": "loras",
        "second": "loras",
    }.items():
        file = models[name]
        there = fetch_house.models / folder / file["name"]
        assert there.read_bytes() == fetch_house.civitai.storage.files[file["key"]].data
    [stored] = queue.pictures(job_id)
    assert stored.path is not None
    with Image.open(stored.path) as made:
        told = str(made.info)
    for name in ("checkpoint", "first", "second"):
        assert stem(models[name]) in told
    assert "77" in told
