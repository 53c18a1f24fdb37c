"""Servers that see the library elsewhere, or not at all; any server; files without a hash."""

import json
import socket
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, run_filter
from stablequeue.server_blocks import saved_server
from stablequeue.servers import ServerConfig
from tests.fetching.conftest import WITHIN_S, FetchHouse
from tests.flows.acting import saved_as

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]

SMALL: dict[str, Any] = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2}


def changed(api: PrefectApi, alias: str, **values: Any) -> ServerConfig:
    return saved_server(api, alias).model_copy(update=values)


def test_a_server_that_files_do_not_reach_is_refused_with_what_to_set(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = fetch_house.offer(model_type="Checkpoint")
    with saved_as(api, changed(api, "comfy", models_from="none")):
        submitted = queue.submit(
            **SMALL, server="comfy", checkpoint=f"version:{file['version_id']}"
        )
        view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    assert (view.state.value, view.code) == ("failed", "not_delivered")
    assert "--models-from same" in view.message
    assert fetch_house.downloads_of(file) == 0


def test_a_server_with_folders_of_its_workers_machine_has_its_files_fetched_there(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = fetch_house.offer(model_type="LORA")
    wanted = [{"name": f"version:{file['version_id']}"}]
    with saved_as(api, changed(api, "comfy", models_from="worker")):
        job_id = queue.submit(
            **SMALL, server="comfy", checkpoint="base.safetensors", loras=wanted
        ).job_id
        view = queue.wait(job_id, timeout=WITHIN_S)
    assert view.state.value == "completed", view.message
    assert fetch_house.downloads_of(file) == 1
    [run] = [
        one for one in api.runs(run_filter(deployments=["downloads"])) if file["name"] in one.name
    ]
    assert f"host:{socket.gethostname()}" in run.tags


def test_a_windows_server_over_a_mapped_share_gets_its_own_names(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = fetch_house.offer(model_type="LORA")
    shelf = fetch_house.sandboxes["comfy"].config.models
    mapped = changed(
        api, "comfy", models_from="mapped", model_paths=[f"{fetch_house.models}=D:\\models"]
    )
    before, shelf.separator = shelf.separator, "\\"
    (fetch_house.models / "loras" / "deep").mkdir(exist_ok=True)
    try:
        with saved_as(api, mapped):
            submitted = queue.submit(
                **SMALL,
                server="comfy",
                checkpoint="base.safetensors",
                loras=[{"name": file["hashes"]["SHA256"]}],
            )
            view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    finally:
        shelf.separator = before
    assert view.state.value == "completed", view.message


def test_a_file_that_a_server_is_said_to_see_and_does_not_is_named_with_its_path(
    fetch_house: FetchHouse, queue: Client
) -> None:
    file = fetch_house.offer(model_type="LORA")
    shelf = fetch_house.sandboxes["forge"].config.models
    before, shelf.folders = shelf.folders, {}
    try:
        shelf.add("checkpoints", "alone.safetensors")
        fetch_house.sandboxes["forge"].restart()
        submitted = queue.submit(
            **SMALL,
            server="forge",
            checkpoint="alone",
            loras=[{"name": f"version:{file['version_id']}"}],
        )
        view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    finally:
        shelf.folders = before
        shelf.remove("checkpoints", "alone.safetensors")
        fetch_house.sandboxes["forge"].restart()
    assert (view.state.value, view.code) == ("failed", "not_delivered"), view.message
    assert str(fetch_house.models / "loras" / file["name"]) in view.message
    assert fetch_house.downloads_of(file) == 1


def test_a_job_for_any_server_waits_for_a_model_that_can_be_fetched(
    fetch_house: FetchHouse, queue: Client
) -> None:
    file = fetch_house.offer(model_type="Checkpoint")
    submitted = queue.submit(**SMALL, server="any", checkpoint=file["hashes"]["AutoV2"])
    view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    assert view.state.value == "completed", view.message
    assert fetch_house.downloads_of(file) == 1


def test_a_file_without_a_hash_is_fetched_once_and_keeps_clear_of_another_of_its_name(
    fetch_house: FetchHouse, queue: Client
) -> None:
    first = fetch_house.offer(model_type="LORA", name="same name.safetensors")
    second = fetch_house.offer(
        model_type="LORA", name="same name.safetensors", hashes={}, size=50_000
    )
    for file in (first, second, second):
        submitted = queue.submit(
            **SMALL,
            server="comfy",
            checkpoint="base.safetensors",
            loras=[{"name": f"version:{file['version_id']}"}],
        )
        view = queue.wait(submitted.job_id, timeout=WITHIN_S)
        assert view.state.value == "completed", view.message
    assert fetch_house.downloads_of(first) == fetch_house.downloads_of(second) == 1
    names = [one.name for one in (fetch_house.models / "loras").glob("same name*.safetensors")]
    assert len(names) == 2


def test_a_template_with_missing_files_fetches_what_its_own_links_name(
    fetch_house: FetchHouse, queue: Client
) -> None:
    checkpoint = fetch_house.offer(model_type="Checkpoint")
    lora, vae = fetch_house.offer(model_type="LORA"), fetch_house.offer(model_type="VAE")
    base = fetch_house.civitai_url

    def linked(file: dict[str, Any], folder: str) -> dict[str, Any]:
        url = f"{base}/api/download/models/{file['version_id']}?fileId={file['id']}"
        return {"name": file["name"], "url": url, "directory": folder}

    models = [
        linked(checkpoint, "checkpoints"),
        linked(lora, "loras"),
        linked(vae, "vae"),
    ]
    editor = {"nodes": [{"type": "Anything", "properties": {"models": models}}], "links": []}
    submitted = queue.submit(
        prompt="",
        mode="workflow",
        server="comfy",
        workflow=_graph(checkpoint["name"], lora["name"], vae["name"]),
        sections={"comfyui": {"extra_pnginfo": {"workflow": editor}}},
    )
    view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    assert view.state.value == "completed", view.message
    [picture] = queue.pictures(submitted.job_id)
    told = json.dumps(dict(picture.asset.models))
    assert checkpoint["name"] in told
    for file in (checkpoint, lora, vae):
        assert fetch_house.downloads_of(file) == 1


def _graph(checkpoint: str, lora: str, vae: str) -> dict[str, Any]:
    size = {"width": 64, "height": 64, "batch_size": 1}
    sampling = {
        "seed": 5,
        "steps": 2,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "normal",
        "denoise": 1.0,
    }
    strength = {"strength_model": 1.0, "strength_clip": 1.0}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": checkpoint}},
        "2": {
            "class_type": "LoraLoader",
            "inputs": {"lora_name": lora, "model": ["1", 0], "clip": ["1", 1], **strength},
        },
        "3": {"class_type": "VAELoader", "inputs": {"vae_name": vae}},
        "4": {"class_type": "CLIPTextEncode", "inputs": {"text": "x", "clip": ["2", 1]}},
        "5": {"class_type": "EmptyLatentImage", "inputs": size},
        "6": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["2", 0],
                "positive": ["4", 0],
                "negative": ["4", 0],
                "latent_image": ["5", 0],
                **sampling,
            },
        },
        "7": {"class_type": "VAEDecode", "inputs": {"samples": ["6", 0], "vae": ["3", 0]}},
        "8": {"class_type": "SaveImage", "inputs": {"images": ["7", 0], "filename_prefix": "x"}},
    }
