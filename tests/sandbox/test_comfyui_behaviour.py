"""What the recordings do not show of ComfyUI's half: faults, other graphs, newer servers."""

import asyncio
import io
import json
import struct
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
import websockets
from PIL import Image

from stablequeue.sandbox import GraphicsCard, Sandbox, default_models, serve_sandbox
from tests.sandbox import graphs
from tests.sandbox.comfyui import Client, how_it_ended
from tests.support.waiting import wait_until


@pytest.fixture
def sandbox(tmp_path: Path) -> Generator[Sandbox]:
    with serve_sandbox("comfyui", home=tmp_path) as served:
        yield served


@pytest.fixture
def client(sandbox: Sandbox) -> Generator[Client]:
    with Client(sandbox) as opened:
        yield opened


def _picture(client: Client, entry: dict[str, Any], node: str = "9") -> Image.Image:
    response = client.file(entry, node)
    assert response.status_code == 200
    picture = Image.open(io.BytesIO(response.content))
    picture.load()
    return picture


# pictures


def test_a_picture_carries_its_prompt_and_says_who_painted_it(client: Client) -> None:
    graph = graphs.txt2img(seed=2**64 - 1)
    extra = {"extra_pnginfo": {"workflow": {"id": "w"}, "ours": [1]}}
    picture = _picture(client, client.run(graph, extra_data=extra))
    assert picture.format == "PNG"
    assert picture.size == (64, 64)
    assert json.loads(picture.info["prompt"]) == graph
    assert json.loads(picture.info["workflow"]) == {"id": "w"}
    assert json.loads(picture.info["ours"]) == [1]
    assert "sandbox" in picture.info["stablequeue_sandbox"]


def test_equal_prompts_give_equal_pixels_also_after_a_restart(
    sandbox: Sandbox, client: Client
) -> None:
    first = _picture(client, client.run(graphs.txt2img(prefix="a")))
    sandbox.restart()
    second = _picture(client, client.run(graphs.txt2img(prefix="b")))
    other = _picture(client, client.run(graphs.txt2img(seed=12)))
    assert first.tobytes() == second.tobytes() != other.tobytes()


def test_the_pictures_of_a_batch_differ(client: Client) -> None:
    entry = client.run(graphs.txt2img(batch=3))
    pictures = [client.file(entry, index=index).content for index in range(3)]
    assert len({Image.open(io.BytesIO(data)).tobytes() for data in pictures}) == 3


def _from(start: str, graph: graphs.Graph, denoise: float = 0.4) -> graphs.Graph:
    graph["1"] = {"class_type": "LoadImage", "inputs": {"image": start}}
    graph["5"] = {"class_type": "VAEEncode", "inputs": {"pixels": ["1", 0], "vae": ["4", 2]}}
    graph["3"]["inputs"]["denoise"] = denoise
    return graph


def _uploaded(client: Client, name: str, picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    files = {"image": (name, buffer.getvalue(), "image/png")}
    return client.post("/upload/image", files=files).json()["name"]


def test_img2img_starts_from_the_uploaded_picture(client: Client) -> None:
    red, blue = (Image.new("RGB", (96, 96), colour) for colour in ("red", "blue"))
    pictures = [
        _picture(client, client.run(_from(_uploaded(client, name, start), graphs.txt2img())))
        for name, start in (("red.png", red), ("blue.png", blue))
    ]
    assert [picture.size for picture in pictures] == [(96, 96)] * 2
    colours = [picture.resize((1, 1)).getpixel((0, 0)) for picture in pictures]
    assert isinstance(colours[0], tuple)
    assert isinstance(colours[1], tuple)
    assert colours[0][0] > colours[1][0]
    assert colours[0][2] < colours[1][2]


def test_inpainting_spares_what_is_not_masked(client: Client) -> None:
    start = _uploaded(client, "white.png", Image.new("RGB", (64, 64), "white"))
    drawn = Image.new("RGB", (64, 64), "black")
    drawn.paste("white", (32, 0, 64, 64))
    mask = _uploaded(client, "mask.png", drawn)
    graph = _from(start, graphs.txt2img(), denoise=1.0)
    graph["20"] = {"class_type": "LoadImageMask", "inputs": {"image": mask, "channel": "red"}}
    graph["21"] = {
        "class_type": "GrowMask",
        "inputs": {"mask": ["20", 0], "expand": 2, "tapered_corners": True},
    }
    graph["22"] = {
        "class_type": "SetLatentNoiseMask",
        "inputs": {"samples": ["5", 0], "mask": ["21", 0]},
    }
    graph["3"]["inputs"]["latent_image"] = ["22", 0]
    picture = _picture(client, client.run(graph))
    spared = picture.crop((0, 0, 29, 60))
    assert spared.getcolors() == [(29 * 60, (255, 255, 255))]
    assert picture.getpixel((48, 30)) != (255, 255, 255)


def test_a_second_larger_pass(client: Client) -> None:
    graph = graphs.txt2img()
    graph["10"] = {
        "class_type": "LatentUpscaleBy",
        "inputs": {"samples": ["3", 0], "upscale_method": "nearest-exact", "scale_by": 2.0},
    }
    graph["11"] = json.loads(json.dumps(graph["3"]))
    graph["11"]["inputs"] |= {"latent_image": ["10", 0], "denoise": 0.5, "steps": 2}
    graph["8"]["inputs"]["samples"] = ["11", 0]
    assert _picture(client, client.run(graph)).size == (128, 128)


def test_enlarging_with_a_model(client: Client) -> None:
    name = _uploaded(client, "small.png", Image.new("RGB", (20, 10), "green"))
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": name}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x-UltraSharp.pth"}},
        "3": {
            "class_type": "ImageUpscaleWithModel",
            "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]},
        },
        "9": {
            "class_type": "SaveImage",
            "inputs": {"images": ["3", 0], "filename_prefix": "large"},
        },
    }
    assert _picture(client, client.run(graph)).size == (80, 40)


def test_separate_loaders_and_a_sampler_in_parts(sandbox: Sandbox, client: Client) -> None:
    graph = graphs.txt2img()
    del graph["7"]
    graph |= {
        "4": {
            "class_type": "UNETLoader",
            "inputs": {
                "unet_name": "flux/sandbox-flux-dev.safetensors",
                "weight_dtype": "default",
            },
        },
        "5": {
            "class_type": "EmptySD3LatentImage",
            "inputs": {"width": 64, "height": 64, "batch_size": 1},
        },
        "12": {
            "class_type": "DualCLIPLoader",
            "inputs": {
                "clip_name1": "t5xxl_fp16.safetensors",
                "clip_name2": "clip_l.safetensors",
                "type": "flux",
            },
        },
        "13": {"class_type": "VAELoader", "inputs": {"vae_name": "ae.safetensors"}},
        "14": {
            "class_type": "FluxGuidance",
            "inputs": {"conditioning": ["6", 0], "guidance": 3.5},
        },
        "15": {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}},
        "16": {
            "class_type": "BasicGuider",
            "inputs": {"model": ["4", 0], "conditioning": ["14", 0]},
        },
        "17": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        "18": {
            "class_type": "BasicScheduler",
            "inputs": {"model": ["4", 0], "scheduler": "simple", "steps": 2, "denoise": 1.0},
        },
        "3": {
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["15", 0],
                "guider": ["16", 0],
                "sampler": ["17", 0],
                "sigmas": ["18", 0],
                "latent_image": ["5", 0],
            },
        },
    }
    graph["6"]["inputs"]["clip"] = ["12", 0]
    graph["8"]["inputs"]["vae"] = ["13", 0]
    assert how_it_ended(client.run(graph)) == "execution_success"
    [made] = [entry for entry in sandbox.state.journal if entry["what"] == "generated"]
    assert (made["model"], made["seed"], made["steps"]) == (
        "flux/sandbox-flux-dev.safetensors", 5, 2,
    )  # fmt: skip


def test_every_node_class_describes_itself(client: Client) -> None:
    told = client.get("/object_info").json()
    assert len(told) > 60
    for name, info in told.items():
        assert info["name"] == name
        assert len(info["output"]) == len(info["output_name"]) == len(info["output_is_list"])
        for group in ("required", "optional"):
            for spec in info["input"].get(group, {}).values():
                assert isinstance(spec[0], (str, list))


def test_names_of_a_windows_server_have_backslashes(tmp_path: Path) -> None:
    models = default_models(separator="\\")
    with serve_sandbox("comfyui", home=tmp_path, models=models) as served, Client(served) as client:
        name = "sub dir\\landscapes v2 [pruned].safetensors"
        assert name in client.get("/models/checkpoints").json()
        refused = client.post(
            "/prompt", json={"prompt": graphs.txt2img(checkpoint=name.replace("\\", "/"))}
        )
        assert refused.status_code == 400
        assert how_it_ended(client.run(graphs.txt2img(checkpoint=name))) == "execution_success"


def test_a_new_model_file_shows_up_without_a_restart(sandbox: Sandbox, client: Client) -> None:
    sandbox.config.models.add("checkpoints", "fresh.safetensors")
    entry = client.run(graphs.txt2img(checkpoint="fresh.safetensors"))
    assert how_it_ended(entry) == "execution_success"


# memory


def test_a_model_too_large_for_the_card_is_out_of_memory(tmp_path: Path) -> None:
    card = GraphicsCard(memory_mb=4_096)
    with serve_sandbox("comfyui", home=tmp_path, card=card) as served, Client(served) as client:
        entry = client.run(graphs.txt2img(checkpoint="sandbox-sdxl.safetensors"))
        assert how_it_ended(entry) == "execution_error"
        told = entry["status"]["messages"][-1][1]
        assert told["exception_type"] == "torch.OutOfMemoryError"
        assert how_it_ended(client.run(graphs.txt2img())) == "execution_success"


def test_a_picture_too_large_for_the_card_is_out_of_memory(client: Client) -> None:
    entry = client.run(graphs.txt2img(size=4096, batch=7))
    assert entry["status"]["messages"][-1][1]["exception_type"] == "torch.OutOfMemoryError"
    entry = client.run(graphs.txt2img(size=16384, batch=4096))
    assert entry["status"]["messages"][-1][1]["exception_type"] == "RuntimeError"


def test_free_gives_the_memory_back(sandbox: Sandbox, client: Client) -> None:
    client.run(graphs.txt2img())
    assert sandbox.card.loaded("sandbox/comfyui") == ["sandbox-sd15.safetensors"]
    client.post("/free", json={"unload_models": True})
    wait_until(lambda: not sandbox.card.loaded("sandbox/comfyui"), every_s=0.01)
    entry = client.run(graphs.txt2img(prefix="again"))
    assert entry["status"]["messages"][1][1]["nodes"] != []  # the cache stays


def test_changing_models_costs_time_and_memory(tmp_path: Path) -> None:
    models = default_models(load_seconds=0.1)
    with serve_sandbox("comfyui", home=tmp_path, models=models) as served, Client(served) as client:
        for checkpoint in ("sandbox-sd15.safetensors", "sandbox-sdxl.safetensors"):
            client.run(graphs.txt2img(checkpoint=checkpoint))
        swaps = [model for _, model in served.card.swaps]
        assert swaps == ["sandbox-sd15.safetensors", "sandbox-sdxl.safetensors"]
        for generation in served.card.generations:
            assert generation.ended is not None
            assert generation.ended - generation.started >= 0.1


def test_two_servers_on_one_card_see_each_other(tmp_path: Path) -> None:
    card = GraphicsCard(memory_mb=6_000)
    with (
        serve_sandbox("comfyui", home=tmp_path / "a", card=card, name="a") as one,
        serve_sandbox("comfyui", home=tmp_path / "b", card=card, name="b") as other,
        Client(one) as first,
        Client(other) as second,
    ):
        first.run(graphs.txt2img(checkpoint="old-style.ckpt"))
        entry = second.run(graphs.txt2img())
        assert how_it_ended(entry) == "execution_error"
        first.post("/free", json={"unload_models": True})
        wait_until(lambda: card.loaded("a/comfyui") == [], every_s=0.01)
        assert how_it_ended(second.run(graphs.txt2img())) == "execution_success"
        assert card.most_at_once == 1


# faults


@pytest.mark.parametrize("where", ["start", "load", "step 2", "decode", "save"])
def test_it_can_run_out_of_memory_anywhere(sandbox: Sandbox, client: Client, where: str) -> None:
    sandbox.faults.add("out_of_memory", where)
    entry = client.run(graphs.txt2img())
    assert entry["status"]["messages"][-1][1]["exception_type"] == "torch.OutOfMemoryError"
    assert sandbox.card.loaded("sandbox/comfyui") == []
    assert how_it_ended(client.run(graphs.txt2img())) == "execution_success"


def test_a_node_can_fail_with_any_words(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("error", "decode", body="the tiles are loose")
    entry = client.run(graphs.txt2img())
    told = entry["status"]["messages"][-1][1]
    assert (told["node_id"], told["exception_message"]) == ("8", "the tiles are loose\n")


def test_a_picture_can_be_made_with_another_model_than_asked(
    sandbox: Sandbox, client: Client
) -> None:
    honest = _picture(client, client.run(graphs.txt2img()))
    sandbox.restart()
    sandbox.faults.add("wrong_model", "load", times=-1)
    wrong = _picture(client, client.run(graphs.txt2img()))
    assert honest.tobytes() != wrong.tobytes()


def test_somebody_else_can_press_the_button(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("interrupt", "step 2")
    assert how_it_ended(client.run(graphs.txt2img())) == "execution_interrupted"


def test_a_stalled_prompt_goes_on_when_the_fault_is_cleared(
    sandbox: Sandbox, client: Client
) -> None:
    sandbox.faults.add("stall", "step 2")
    prompt_id = client.queue(graphs.txt2img())
    wait_until(lambda: sandbox.faults.struck, every_s=0.01)
    assert client.running() == [prompt_id]
    sandbox.faults.clear()
    assert how_it_ended(client.ended(prompt_id)) == "execution_success"


def test_steps_can_be_slow(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("slow", "step 1", seconds=0.2)
    client.run(graphs.txt2img())
    [generation] = sandbox.card.generations
    assert generation.ended is not None
    assert generation.ended - generation.started >= 0.2


def test_a_result_can_be_lost_from_disk(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("lose_result", "save")
    entry = client.run(graphs.txt2img())
    assert how_it_ended(entry) == "execution_success"
    assert client.file(entry).status_code == 404


def test_a_picture_of_a_batch_can_be_missing(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("partial", "save")
    entry = client.run(graphs.txt2img(batch=2))
    assert len(entry["outputs"]["9"]["images"]) == 1


def test_an_interrupt_can_be_accepted_and_lost(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("stall", "step 2")
    sandbox.faults.add("lose_interrupt")
    prompt_id = client.queue(graphs.txt2img())
    wait_until(lambda: sandbox.faults.struck, every_s=0.01)
    assert client.post("/interrupt", json={"prompt_id": prompt_id}).status_code == 200
    sandbox.faults.clear("stall")
    assert how_it_ended(client.ended(prompt_id)) == "execution_success"


async def _listen(socket: websockets.ClientConnection, heard: list[str]) -> None:
    while True:
        heard.append(json.loads(await socket.recv())["type"])


async def test_sockets_can_be_dropped_in_mid_run(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("drop_socket", "step 2")
    url = sandbox.url.replace("http", "ws") + "/ws?clientId=me"
    async with websockets.connect(url) as socket:
        prompt_id = await asyncio.to_thread(client.queue, graphs.txt2img(), client_id="me")
        heard: list[str] = []
        with pytest.raises(websockets.ConnectionClosedError):
            await _listen(socket, heard)
        assert socket.close_code == 1006
    assert "progress" in heard
    assert "execution_success" not in heard
    assert await asyncio.to_thread(client.ended, prompt_id)


# windows of time that clients must live with


def test_an_interrupt_right_after_posting_may_be_lost(client: Client) -> None:
    """The prompt counts as running before the flag is cleared at its start."""
    ends: set[str] = set()
    for seed in range(40):
        prompt_id = client.queue(graphs.txt2img(seed=seed, steps=1))
        client.post("/interrupt", json={"prompt_id": prompt_id})
        ends.add(how_it_ended(client.ended(prompt_id)))
        if "execution_success" in ends:
            return
    pytest.fail("every interrupt took effect, which is kinder than the real server")


async def test_success_is_told_before_the_history_is_written(
    sandbox: Sandbox, client: Client
) -> None:
    sandbox.faults.add("stall", "history", seconds=0.3)
    url = sandbox.url.replace("http", "ws") + "/ws?clientId=me"
    async with websockets.connect(url) as socket:
        prompt_id = await asyncio.to_thread(client.queue, graphs.plain(), client_id="me")
        while json.loads(await socket.recv())["type"] != "execution_success":
            pass
        assert await asyncio.to_thread(client.entry, prompt_id) == {}
        while (told := json.loads(await socket.recv())).get("data", {}).get("node", "") is not None:
            assert told["type"] == "status"
        assert await asyncio.to_thread(client.entry, prompt_id)


# newer servers


@pytest.fixture
def newer(tmp_path: Path) -> Generator[Client]:
    with (
        serve_sandbox("comfyui", home=tmp_path, newer_comfyui=True, step_seconds=0.05) as served,
        Client(served) as opened,
    ):
        yield opened


@pytest.mark.parametrize("odd", ["x", "", 7, "4B111326-FE65-4014-AB78-6CF589CEF2E5", "c2" * 16])
def test_a_newer_server_takes_only_plain_uuids(newer: Client, odd: object) -> None:
    refused = newer.post("/prompt", json={"prompt": graphs.plain(), "prompt_id": odd})
    assert refused.status_code == 400
    assert refused.json()["error"]["type"] == "invalid_prompt_id"


def test_a_newer_server_makes_an_id_for_null(newer: Client) -> None:
    assert uuid.UUID(newer.queue(graphs.plain(), prompt_id=None))


def test_jobs_of_a_newer_server(newer: Client) -> None:
    done = newer.queue(graphs.plain())
    newer.ended(done)
    running, waiting = (newer.queue(graphs.txt2img(seed=n, steps=60)) for n in (1, 2))
    wait_until(lambda: newer.running() == [running], every_s=0.01)
    listed = newer.get("/api/jobs", params={"limit": 2}).json()
    assert [len(listed["jobs"]), listed["pagination"]["total"]] == [2, 3]
    assert listed["pagination"]["has_more"] is True
    states = {job["id"]: job["status"] for job in newer.get("/api/jobs").json()["jobs"]}
    assert states == {done: "completed", running: "in_progress", waiting: "pending"}
    assert newer.get(f"/api/jobs/{done}").json()["outputs"]["2"]["images"]
    assert newer.get(f"/api/jobs/{uuid.uuid4()}").status_code == 404
    assert newer.get("/api/jobs", params={"status": "sleeping"}).status_code == 400
    for job in (waiting, running):
        assert newer.post(f"/api/jobs/{job}/cancel").json() == {"cancelled": True}
    assert how_it_ended(newer.ended(running)) == "execution_interrupted"
    cancelled = newer.get("/api/jobs", params={"status": "cancelled"}).json()["jobs"]
    assert [job["id"] for job in cancelled] == [running]
    assert newer.entry(waiting) == {}
    assert newer.post(f"/api/jobs/{done}/cancel").json() == {"cancelled": False}
    assert newer.post("/api/jobs/cancel", json={"job_ids": ["x"]}).status_code == 400
    assert newer.post("/api/jobs/cancel", json={"job_ids": [done]}).json() == {"cancelled": False}


def test_cancelling_on_a_newer_server_is_never_lost(newer: Client) -> None:
    for seed in range(5):
        prompt_id = newer.queue(graphs.txt2img(seed=seed, steps=2))
        newer.post(f"/api/jobs/{prompt_id}/cancel")
        wait_until(
            lambda known=prompt_id: known not in newer.running() + newer.waiting(), every_s=0.01
        )
        entry = newer.entry(prompt_id)
        assert not entry or how_it_ended(entry) == "execution_interrupted"


def test_an_older_server_has_no_jobs(client: Client) -> None:
    assert client.get("/api/jobs").status_code == 404


async def test_a_newer_server_previews_as_the_prompt_asks(newer: Client) -> None:
    url = str(newer.base_url).replace("http", "ws").rstrip("/") + "/ws?clientId=me"
    async with websockets.connect(url, max_size=None) as socket:
        extra = {"preview_method": "auto"}
        await asyncio.to_thread(newer.queue, graphs.txt2img(), client_id="me", extra_data=extra)
        while not isinstance(message := await socket.recv(), bytes):
            pass
    assert struct.unpack_from(">II", message) == (1, 1)
    assert Image.open(io.BytesIO(message[8:])).size == (512, 512)
