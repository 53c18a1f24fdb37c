"""A ComfyUI template as the editor saves it, none of whose models is there yet."""

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.client import Client
from stablequeue.sandbox.models import LORAS, TEXT_ENCODERS, UNETS, VAES
from stablequeue.storage import open_store
from tests.fakes.model_files import hashes
from tests.fetching.conftest import WITHIN_S, FetchHouse
from tests.support.drawing import INPUT, OUTPUT, Drawing, sampling

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]


def template(models: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Draw a picture from text: the loaders are in a subgraph that shows prompt and image model.

    Args:
        models: What the templates tell of each file, by its folder.
    """
    linked = {
        folder: {"name": told["name"], "properties": {"models": [told]}}
        for folder, told in models.items()
    }

    def load(drawing: Drawing, kind: str, folder: str, *values: Any, **more: Any) -> int:
        told = linked[folder]
        return drawing.node(kind, told["name"], *values, properties=told["properties"], **more)

    inner = Drawing()
    model = load(
        inner,
        *("UNETLoader", UNETS, "default"),
        widgets={"unet_name": ("COMBO", (INPUT, 1))},
        outs=["MODEL"],
    )
    styled = load(
        inner,
        *("LoraLoaderModelOnly", LORAS, 0.8),
        ins={"model": ("MODEL", (model, 0))},
        outs=["MODEL"],
    )
    clip = load(inner, "CLIPLoader", TEXT_ENCODERS, "stable_diffusion", "default", outs=["CLIP"])
    vae = load(inner, "VAELoader", VAES, outs=["VAE"])
    picture = sampling(inner, (styled, 0), (clip, 0), (vae, 0))
    text = next(one for one in inner.nodes if one["type"] == "CLIPTextEncode")
    link = inner.link((INPUT, 0), (text["id"], 1), "STRING")
    text["inputs"].append(
        {"name": "text", "type": "STRING", "link": link, "widget": {"name": "text"}}
    )
    inner.link(picture, (OUTPUT, 0), "IMAGE")
    shown = {"text": "STRING", "unet_name": "COMBO"}
    definition = inner.subgraph("7b1c6d1e-0000-4000-8000-000000000001", shown, {"IMAGE": "IMAGE"})

    outer = Drawing()
    made = outer.node(
        definition["id"], "a harbour", models[UNETS]["name"], outs=["IMAGE"], title="Text to image"
    )
    outer.node("SaveImage", "ComfyUI", ins={"images": ("IMAGE", (made, 0))})
    outer.node("MarkdownNote", "The models go into their folders.")
    return outer.workflow(definition)


def test_a_template_with_four_missing_files_runs_to_the_stored_picture(
    fetch_house: FetchHouse, queue: Client
) -> None:
    told: dict[str, dict[str, Any]] = {}
    wanted: dict[Path, bytes] = {}
    for folder, path in (
        (UNETS, "split_files/diffusion_models/harbour-model.safetensors"),
        (TEXT_ENCODERS, "split_files/text_encoders/harbour-words.safetensors"),
    ):
        url, data = fetch_house.offer_on_hub(path)
        name = path.rpartition("/")[2]
        told[folder] = {"name": name, "url": url, "directory": folder}
        wanted[fetch_house.models / folder / name] = data
    told[TEXT_ENCODERS] |= {"hash": hashes(data)["SHA256"].lower(), "hash_type": "SHA256"}
    files = {LORAS: fetch_house.offer(model_type="LORA"), VAES: fetch_house.offer(model_type="VAE")}
    for folder, file in files.items():
        address = f"{fetch_house.civitai_url}/api/download/models/{file['version_id']}"
        told[folder] = {"name": file["name"], "url": address, "directory": folder}
        wanted[fetch_house.models / folder / file["name"]] = fetch_house.bytes_of(file)
    told[VAES] |= {"hash": files[VAES]["hashes"]["SHA256"].lower(), "hash_type": "SHA256"}
    assert not [one for one in wanted if one.exists()]
    workflow = template(told)

    submitted = queue.submit(
        mode="workflow",
        server="any",
        workflow=workflow,
        seed=4,
        overrides={"Text to image.text": "a harbour at night"},
    )
    view = queue.wait(submitted.job_id, timeout=WITHIN_S)

    assert view.state.value == "completed", view.message
    for path, data in wanted.items():
        assert path.read_bytes() == data, path.name
    for folder in (UNETS, TEXT_ENCODERS):
        assert fetch_house.downloads_from_hub(told[folder]["name"]) == 1
    for file in files.values():
        assert fetch_house.downloads_of(file) == 1
    [picture] = queue.pictures(submitted.job_id)
    assert {*picture.asset.models} == {one["name"] for one in told.values()}
    assert picture.asset.prompt == "a harbour at night"
    assert picture.asset.params["request"]["workflow"] == workflow
    with (
        open_store(fetch_house.settings).open(picture.asset.key) as stream,
        Image.open(stream) as image,
    ):
        assert json.loads(image.info["workflow"]) == workflow
        graph = json.loads(image.info["prompt"])
    texts = [node["inputs"].get("text") for node in graph.values()]
    assert "a harbour at night" in texts
    assert [one["inputs"]["seed"] for one in graph.values() if "seed" in one["inputs"]] == [4]

    again = queue.submit(mode="workflow", server="comfy", workflow=workflow)
    assert queue.wait(again.job_id, timeout=WITHIN_S).state.value == "completed"
    assert sum(map(fetch_house.downloads_of, files.values())) == len(files), "nothing comes twice"
