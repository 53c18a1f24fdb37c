"""The engine against the sandbox's Forge, which behaves as recorded, over real sockets."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from stablequeue.engines.base import Located, Phase
from stablequeue.engines.forge import Forge
from stablequeue.errors import Interrupted, OutOfMemory, WrongModel
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from tests.engines.forge.making import config, resolved, running, submitted

UEBERMALT = "sub dir/deeper/übermalt (日本).safetensors"
OLD = "old-style.ckpt"


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serve_sandbox("forge", step_seconds=0.01) as served:
        yield served


@pytest.fixture(params=["forge", "automatic1111"])
def either(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    with serve_sandbox("forge", forge={"flavour": request.param}) as served:
        yield served


async def made(engine: Forge, spool: Path, **fields: Any) -> Any:
    ticket = await submitted(engine, **{"checkpoint": OLD, **fields})
    return await engine.collect(ticket, spool)


async def test_every_mode_on_both_flavours(either: Sandbox, tmp_path: Path) -> None:
    async with Forge(config(either.url)) as engine:
        info = await engine.probe()
        assert info.sandbox
        assert info.vram_total > 0
        for n, fields in enumerate(
            [
                {"checkpoint": ""},
                {"checkpoint": UEBERMALT.upper().replace("/", "\\")},
                {"loras": [{"name": "style/ink wash [v1]", "weight": 0.7, "text_weight": 0.3}]},
                {"prompt": "a <lora:add-detail:0.5> cat"},
                {"vae": "ae"},
                {"clip_skip": 2},
                {"sampler": "dpmpp_2m", "scheduler": "karras", "hires": {"scale": 2}},
                {"mode": "img2img", "init_image": "x"},
                {"mode": "inpaint", "init_image": "x", "mask_image": "x"},
                {"mode": "upscale", "init_image": "x"},
            ]
        ):
            spool = tmp_path / str(n)
            spool.mkdir()
            first = tmp_path / "0" / "0000.png"
            inputs = {"init_image": first, "mask_image": first}
            result = await made(engine, spool, inputs=inputs, **fields)
            (asset,) = result.assets
            doubled = fields.get("hires") or fields.get("mode") == "upscale"
            assert Image.open(asset.path).size == ((128, 128) if doubled else (64, 64))
            assert not result.warnings


async def test_a_separate_image_model_with_its_modules(sandbox: Sandbox, tmp_path: Path) -> None:
    async with Forge(config(sandbox.url)) as engine:
        encoders = ["clip_l", "t5xxl_fp16"]
        fields = {"checkpoint": "", "unet": "sandbox-flux-dev", "text_encoders": encoders}
        result = await made(engine, tmp_path, vae="ae", **fields)
        assert set(result.effective["models"]) == {"sandbox-flux-dev", *encoders, "ae"}


async def test_another_model_than_asked_is_never_a_result(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.faults.add("wrong_model", "start", body="sandbox-sd15.safetensors")
    async with Forge(config(sandbox.url)) as engine:
        with pytest.raises(WrongModel):
            await made(engine, tmp_path)
        assert (await made(engine, tmp_path)).assets


async def test_faults_during_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    async with Forge(config(sandbox.url)) as engine:
        sandbox.faults.add("out_of_memory", "step 2")
        with pytest.raises(OutOfMemory):
            await made(engine, tmp_path)
        sandbox.faults.add("interrupt", "step 2")
        with pytest.raises(Interrupted):
            await made(engine, tmp_path)
        sandbox.faults.add("partial", "start")
        with pytest.raises(Interrupted):
            await made(engine, tmp_path)


async def test_a_lost_answer_is_recovered_without_a_second_generation(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    sandbox.faults.add("close", "after POST /sdapi/v1/txt2img")
    async with Forge(config(sandbox.url)) as engine:
        assert (await made(engine, tmp_path)).effective["recovered"]
    generations = [entry for entry in sandbox.state.journal if entry["what"] == "forge.start"]
    assert len(generations) == 1


async def test_a_server_that_dies_is_found_again(sandbox: Sandbox, tmp_path: Path) -> None:
    async with Forge(config(sandbox.url)) as engine:
        lost = await submitted(engine, checkpoint=OLD, steps=500)
        done = await resolved(engine, checkpoint=OLD)
        async with running(engine, lost, tmp_path) as collecting:
            await asyncio.to_thread(sandbox.restart)
            with pytest.raises(Exception, match="no longer has the job"):
                await collecting
        assert await engine.locate(lost) is Located.GONE
        ticket = await engine.submit(engine.ticket(done), done)
        await engine.collect(ticket, tmp_path)
        await asyncio.to_thread(sandbox.restart)
        assert await engine.locate(ticket) is Located.DONE  # its file outlived the process


async def test_cancelling_ours_leaves_a_foreign_job_alone(sandbox: Sandbox, tmp_path: Path) -> None:
    async with (
        Forge(config(sandbox.url)) as engine,
        httpx.AsyncClient(base_url=sandbox.url, timeout=30) as human,
    ):
        ticket = await submitted(engine, checkpoint=OLD, steps=1000)
        body = {"prompt": "theirs", "steps": 5, "width": 64, "height": 64}
        theirs = asyncio.create_task(human.post("/sdapi/v1/txt2img", json=body))
        async with running(engine, ticket, tmp_path) as collecting:
            async for progress in engine.observe(ticket):
                if progress.phase is Phase.SAMPLING:
                    break
            assert await engine.cancel(ticket)
            with pytest.raises(Interrupted, match="as we asked"):
                await collecting
        answer = await theirs
        assert len(answer.json()["images"]) == 1
        state = (await human.get("/sdapi/v1/progress")).json()["state"]
        assert state["interrupted"] is False


async def test_settings_of_a_fresh_installation_stay_as_they_are(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    async with (
        Forge(config(sandbox.url)) as engine,
        httpx.AsyncClient(base_url=sandbox.url) as human,
    ):
        before = (await human.get("/sdapi/v1/options")).json()
        await made(engine, tmp_path, clip_skip=2, vae="ae", checkpoint=UEBERMALT)
        after = (await human.get("/sdapi/v1/options")).json()
    # The hash of what was loaded last is not ours to keep.
    assert {k: v for k, v in after.items() if k != "sd_checkpoint_hash"} == {
        k: v for k, v in before.items() if k != "sd_checkpoint_hash"
    }


async def test_with_both_logins_everything_is_reached(tmp_path: Path) -> None:
    forge = {"api_auth": "u:p", "gradio_auth": "g:h"}
    both = {"username": "u", "password": "p", "ui_username": "g", "ui_password": "h"}
    with serve_sandbox("forge", forge=forge) as served:
        served.faults.add("close", "after POST /sdapi/v1/txt2img")
        async with Forge(config(served.url, **both)) as engine:
            assert (await made(engine, tmp_path)).effective["recovered"]


async def test_without_web_page_a_job_is_made_but_cannot_be_looked_for(tmp_path: Path) -> None:
    with serve_sandbox("forge", forge={"nowebui": True}) as served:
        async with Forge(config(served.url)) as engine:
            job = await resolved(engine, checkpoint=OLD)
            ticket = await engine.submit(engine.ticket(job), job)
            assert (await engine.collect(ticket, tmp_path)).assets
        async with Forge(config(served.url)) as another:
            assert await another.locate(ticket) is Located.UNKNOWN
