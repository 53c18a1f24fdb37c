"""Handing jobs over: what is sent, and when."""

import asyncio
import base64
import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.responses import JSONResponse

from stablequeue.engines.base import Phase
from stablequeue.engines.forge import Forge
from stablequeue.errors import EngineAuthFailed, EngineUnreachable, JobRejected
from tests.engines.forge.making import OTHER, RANDOM, config, inside, resolved, submitted, until
from tests.engines.forge.recordings import job as recorded
from tests.engines.forge.recordings import picture
from tests.engines.forge.scripted import Dropped, Scripted

pytestmark = pytest.mark.usefixtures("fast")


async def sent(engine: Forge, server: Scripted, **fields: Any) -> dict[str, Any]:
    """Submit a job and return the body that arrived."""
    await submitted(engine, **fields)
    return (await server.job()).request


async def test_every_override_is_sent_every_time(server: Scripted, engine: Forge) -> None:
    ticket = await submitted(engine)
    body = (await server.job()).request
    assert body["override_settings"] == {
        "sd_model_checkpoint": RANDOM,
        "forge_additional_modules": [],
        "CLIP_stop_at_last_layers": 1,
        "samples_filename_pattern": f"{ticket.remote_id}-[seed]",
        "samples_save": True,
        "samples_format": "png",
        "save_to_dirs": False,
        "save_images_add_number": False,
        "save_images_replace_action": "Replace",
        "save_incomplete_images": False,
        "return_grid": False,
        "grid_save": False,
        "return_mask": False,
        "return_mask_composite": False,
        "enable_pnginfo": True,
        "add_model_name_to_info": True,
        "add_model_hash_to_info": True,
    }
    assert body["override_settings_restore_afterwards"] is True
    assert ticket.data["file"] == f"outputs/txt2img-images/{ticket.remote_id}-5.png"


async def test_one_picture_with_its_own_seed_and_id_is_asked_for(
    server: Scripted, engine: Forge
) -> None:
    ticket = await submitted(engine, seed=2**53 - 1, guidance=2.5)
    body = (await server.job()).request
    wanted = {
        "prompt": "a cat",
        "seed": 2**53 - 1,
        "n_iter": 1,
        "batch_size": 1,
        "send_images": True,
        "save_images": True,
        "sampler_name": "Euler",
        "scheduler": "Automatic",
        "distilled_cfg_scale": 2.5,
        "force_task_id": ticket.remote_id,
        "enable_hr": False,
    }
    assert wanted.items() <= body.items()


async def test_the_hires_pass_says_what_the_server_s_own_page_says(
    server: Scripted, engine: Forge
) -> None:
    # Without hr_additional_modules the recorded server ends with a TypeError.
    assert recorded("txt2img_hires_default_modules_null")["status"] == 500
    hires = {"scale": 2, "upscaler": "latent", "steps": 3, "denoising_strength": 0.4}
    body = await sent(engine, server, hires=hires, cfg_scale=6)
    wanted = {
        "enable_hr": True,
        "hr_scale": 2,
        "hr_upscaler": "Latent",
        "hr_second_pass_steps": 3,
        "denoising_strength": 0.4,
        "hr_additional_modules": ["Use same choices"],
        "hr_cfg": 6,
    }
    assert wanted.items() <= body.items()


async def test_loras_are_tags_with_the_text_weight_first(server: Scripted, engine: Forge) -> None:
    body = await sent(
        engine,
        server,
        loras=[
            {"name": "tiny-lora", "weight": 0.7, "text_weight": 0.3},
            {"name": "tinyalias", "weight": 1},
        ],
    )
    assert body["prompt"] == "a cat <lora:tiny-lora:0.3:0.7> <lora:tiny-lora:1>"


async def test_automatic1111_gets_neither_forge_s_fields_nor_its_modules(
    server: Scripted, engine: Forge
) -> None:
    server.flavour = "automatic1111"
    body = await sent(engine, server, hires={"scale": 2})
    assert not {"distilled_cfg_scale", "hr_additional_modules", "hr_cfg"} & body.keys()
    assert "forge_additional_modules" not in body["override_settings"]
    assert body["override_settings"]["sd_vae"] == "Automatic"


async def test_before_1_9_no_scheduler_is_sent(server: Scripted, engine: Forge) -> None:
    server.flavour = "automatic1111"
    server.always("GET /sdapi/v1/schedulers", JSONResponse({"detail": "Not Found"}, 404))
    server.lists["/sdapi/v1/samplers"] = [{"name": "DPM++ 2M Karras", "aliases": []}]
    body = await sent(engine, server, sampler="dpmpp_2m", scheduler="karras")
    assert body["sampler_name"] == "DPM++ 2M Karras"
    assert "scheduler" not in body


async def test_a_section_s_own_fields_are_sent_too(server: Scripted, engine: Forge) -> None:
    section = {
        "payload": {"eta": 0.5, "refiner_checkpoint": "other-sd15"},
        "override_settings": {"eta_ancestral": 0.5},
        "script_name": "X/Y/Z plot",
        "script_args": [1, "x"],
    }
    scripts = {"ControlNet": {"args": [{"a": 1}]}}
    body = await sent(engine, server, sections={"forge": section}, alwayson_scripts=scripts)
    assert (body["eta"], body["refiner_checkpoint"]) == (0.5, OTHER)
    assert body["override_settings"]["eta_ancestral"] == 0.5
    assert (body["script_name"], body["script_args"]) == ("x/y/z plot", [1, "x"])
    assert body["alwayson_scripts"] == {"controlnet": {"args": [{"a": 1}]}}


async def test_inpainting_sends_flat_picture_grey_mask_and_every_setting(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(picture("RGBA", colour=(1, 2, 3, 254)))
    how = {
        "mask_blur": 7,
        "only_masked": True,
        "padding": 5,
        "invert": True,
        "fill": "latent noise",
    }
    body = await sent(
        engine,
        server,
        mode="inpaint",
        init_image="x",
        mask_image="y",
        inpaint=how,
        inputs={"init_image": tmp_path / "a.png", "mask_image": tmp_path / "a.png"},
    )
    wanted = {
        "mask_blur": 7,
        "inpaint_full_res": True,
        "inpaint_full_res_padding": 5,
        "inpainting_mask_invert": 1,
        "inpainting_fill": 2,
        "include_init_images": False,
        "denoising_strength": 0.75,
    }
    assert wanted.items() <= body.items()
    modes = [
        Image.open(io.BytesIO(base64.b64decode(raw))).mode
        for raw in (body["init_images"][0], body["mask"])
    ]
    assert modes == ["RGB", "L"]
    assert server.count("POST /sdapi/v1/img2img") == 1


async def test_a_job_waits_while_somebody_else_uses_the_server(
    server: Scripted, engine: Forge
) -> None:
    server.busy()
    job = await resolved(engine)
    ticket = engine.ticket(job)
    submitting = asyncio.create_task(engine.submit(ticket, job))
    async for progress in engine.observe(ticket):
        if progress.phase is Phase.WAITING and progress.message:
            assert progress.message == "Waiting for somebody else on the server"
            assert progress.position == 1
            break
    assert not server.jobs
    server.rest()
    await submitting
    await server.job()


async def test_our_own_picture_before_this_one_is_not_somebody_else(
    server: Scripted, engine: Forge
) -> None:
    await submitted(engine)
    first = await server.job()
    server.busy()  # as the server says of any job, ours too
    job = replace(await resolved(engine), index=1)
    ticket = engine.ticket(job)
    submitting = asyncio.create_task(engine.submit(ticket, job))
    looks = server.count("GET /sdapi/v1/progress")
    await until(lambda: server.count("GET /sdapi/v1/progress") > looks + 2)
    async for progress in engine.observe(ticket):
        assert (progress.phase, progress.message) == (Phase.QUEUED, "")
        break
    first.go.set()
    server.rest()
    await submitting


async def test_a_model_being_loaded_counts_as_somebody_else(
    server: Scripted, engine: Forge
) -> None:
    await submitted(engine)  # so that nothing needs to be stored any more
    (await server.job()).go.set()
    await until(lambda: server.completed)
    server.busy(job="", job_count=-1)
    job = await resolved(engine)
    submitting = asyncio.create_task(engine.submit(engine.ticket(job), job))
    looks = server.count("GET /sdapi/v1/progress")
    await until(lambda: server.count("GET /sdapi/v1/progress") > looks + 2)
    assert len(server.posted()) == 1
    server.rest()
    await submitting


async def test_ids_that_leaked_into_the_waiting_list_do_not_block_for_ever(
    server: Scripted, engine: Forge
) -> None:
    server.pending = ["task(img2img-U8W6AQH)", "task(img2img-X3M042S)"]
    looks = server.count("GET /internal/pending-tasks")
    await submitted(engine)
    assert server.count("GET /internal/pending-tasks") - looks > 2  # it was in no hurry
    (await server.job()).go.set()
    async with Forge(config(server)) as another:
        looks = server.count("GET /internal/pending-tasks")
        await submitted(another)
        assert server.count("GET /internal/pending-tasks") - looks <= 3  # remembered for this boot


async def test_ids_that_move_are_other_people_s_jobs(server: Scripted, engine: Forge) -> None:
    server.pending = ["theirs-1"]
    job = await resolved(engine)
    submitting = asyncio.create_task(engine.submit(engine.ticket(job), job))
    for n in range(20):  # each of their jobs is short: we only ever look in between
        server.state["job_timestamp"] = f"2026112100{n:04d}"
        seen = server.count("GET /internal/pending-tasks")
        await until(lambda seen=seen: server.count("GET /internal/pending-tasks") > seen + 1)
        assert not submitting.done()
    server.pending.clear()
    await submitting


async def test_never_two_requests_of_one_session_at_once(server: Scripted, engine: Forge) -> None:
    await submitted(engine)
    first = await server.job()
    job = await resolved(engine)
    server.rest()  # as if the server had not registered ours yet
    second = asyncio.create_task(engine.submit(engine.ticket(job), job))
    looks = server.count("GET /sdapi/v1/progress")
    await until(lambda: server.count("GET /sdapi/v1/progress") > looks + 3)
    assert len(server.posted()) == 1
    first.go.set()
    await second
    assert len(server.posted()) == 2


async def test_a_refusal_that_comes_at_once_is_told_by_submit(
    server: Scripted, engine: Forge
) -> None:
    refusal = recorded("txt2img_alwayson_unknown")
    server.script("POST /sdapi/v1/txt2img", JSONResponse(refusal["response"], refusal["status"]))
    with pytest.raises(JobRejected, match="ADetailer"):
        await submitted(engine)
    server.script("POST /sdapi/v1/txt2img", JSONResponse({"detail": "Not authenticated"}, 401))
    with pytest.raises(EngineAuthFailed):
        await submitted(engine)


async def test_a_picture_that_cannot_be_read_is_refused_before_anything_is_sent(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    (tmp_path / "bad.png").write_bytes(b"no")
    with pytest.raises(JobRejected, match="init_image"):
        await submitted(
            engine, mode="img2img", init_image="x", inputs={"init_image": tmp_path / "bad.png"}
        )
    assert not server.posted("/sdapi/v1/img2img")


async def test_a_server_that_went_away_did_not_take_the_job(
    server: Scripted, engine: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = await resolved(engine)

    async def nowhere(*_: object) -> Any:
        raise EngineUnreachable("gpu-a", "no connection")

    monkeypatch.setattr(inside(engine, "client"), "run", nowhere)
    with pytest.raises(EngineUnreachable):
        await engine.submit(engine.ticket(job), job)
    assert not server.jobs


async def test_a_submit_that_is_cancelled_while_waiting_sends_nothing(
    server: Scripted, engine: Forge
) -> None:
    server.busy()
    job = await resolved(engine)
    ticket = engine.ticket(job)
    submitting = asyncio.create_task(engine.submit(ticket, job))
    await until(lambda: server.count("GET /sdapi/v1/progress") > 2)
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await submitting
    server.rest()
    assert await engine.cancel(ticket)
    assert not server.posted()
    assert server.count("POST /sdapi/v1/interrupt") == 0


async def test_a_connection_dropped_after_an_answer_without_a_word_is_survived(
    server: Scripted, engine: Forge
) -> None:
    # A real server does so after each 500, which is how it answers for its flags.
    async def slowly(_: object) -> JSONResponse:
        await asyncio.sleep(0.1)  # its connection ends meanwhile
        return JSONResponse({"state": {"job": "not reached"}})

    server.script("GET /sdapi/v1/cmd-flags", Dropped({"error": "x", "body": {"a": True}}, 500))
    server.script("GET /sdapi/v1/progress", slowly)
    assert await inside(engine, "client").flags() == {"a": True}
    assert (await inside(engine, "client").state()).idle
    assert server.count("GET /sdapi/v1/progress") == 2
