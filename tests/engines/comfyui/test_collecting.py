"""Bringing results home: whole, once, and only if they are what was asked for."""

import asyncio
import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import HTMLResponse, JSONResponse, Response

from stablequeue.engines.base import Kind, Located, Ticket
from stablequeue.engines.comfyui import ComfyUI, following, freeing
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.errors import (
    EngineAuthFailed,
    EngineError,
    EngineUnreachable,
    Interrupted,
    JobFailed,
    OutOfMemory,
    ProtocolError,
    ResultLost,
    StoreUnavailable,
    WrongModel,
)
from tests.engines.comfyui.conftest import config
from tests.engines.comfyui.jobs import PICTURE, job, lora, request, resolution
from tests.engines.comfyui.recordings import recorded
from tests.engines.comfyui.scripted import PNG, Call, CutShort, Scripted, until

pytestmark = pytest.mark.usefixtures("fast")

WEBM = b"\x1a\x45\xdf\xa3" + bytes(60)


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def submitted(engine: ComfyUI, **fields: Any) -> Ticket:
    made = job(**fields)
    return await engine.submit(engine.ticket(made), made)


async def finished(engine: ComfyUI, server: Scripted, **fields: Any) -> Ticket:
    ticket = await submitted(engine)
    server.run(ticket.remote_id)
    server.finish(ticket.remote_id, **fields)
    return ticket


async def test_a_finished_picture_is_brought_home_with_what_made_it(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    await engine.probe()
    result = await engine.collect(await finished(engine, server), tmp_path)
    (asset,) = result.assets
    assert asset.path.read_bytes() == PNG
    assert asset.path.parent == tmp_path
    assert (asset.kind, asset.mime, asset.name) == (Kind.IMAGE, "image/png", "img_00001_.png")
    assert not result.warnings
    effective = result.effective
    assert effective["checkpoint"] == "sub dir/full-random-sd15.safetensors"
    assert (effective["seed"], effective["sampler"], effective["scheduler"]) == (
        7,
        "euler",
        "normal",
    )
    assert (effective["version"], effective["node_count"], effective["seconds"]) == (
        "0.3.64",
        7,
        0.5,
    )


async def test_collecting_twice_leaves_the_same_files(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await finished(engine, server)
    first = await engine.collect(ticket, tmp_path)
    again = await engine.collect(ticket, tmp_path)
    assert [a.path for a in first.assets] == [a.path for a in again.assets]
    assert len(names(tmp_path)) == 1


async def test_the_end_is_awaited_and_history_may_come_after_the_success(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.run(prompt)
    collecting = asyncio.create_task(engine.collect(ticket, tmp_path))
    await until(lambda: server.count("GET /queue"))
    await server.say(me, "execution_success", prompt_id=prompt)
    # It left the queue, and its history is not there at the first look.
    server.script(f"GET /history/{prompt}", JSONResponse({}))
    server.finish(prompt)
    await server.say(me, "executing", node=None, prompt_id=prompt)
    result = await asyncio.wait_for(collecting, 5)
    assert len(result.assets) == 1


async def test_the_last_message_ends_the_wait_long_before_the_next_poll(
    engine: ComfyUI, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "POLL_S", 30.0)
    ticket = await submitted(engine)
    server.run(ticket.remote_id)
    collecting = asyncio.create_task(engine.collect(ticket, tmp_path))
    await until(lambda: server.count("GET /queue"))
    server.finish(ticket.remote_id)
    me = ticket.data["client_id"]
    await server.say(me, "executing", node=None, prompt_id=ticket.remote_id)
    await asyncio.wait_for(collecting, 5)


async def test_another_process_can_collect_with_the_ticket_alone(
    server: Scripted, tmp_path: Path
) -> None:
    async with ComfyUI(config(server)) as earlier:
        stored = (await submitted(earlier)).to_json()
    async with ComfyUI(config(server)) as later:
        ticket = Ticket.from_json(stored)
        collecting = asyncio.create_task(later.collect(ticket, tmp_path))
        await until(lambda: server.count("GET /queue"))
        server.finish(ticket.remote_id)
        result = await asyncio.wait_for(collecting, 5)
    assert len(result.assets) == 1


async def test_every_kind_of_output_is_fetched_and_latents_are_left(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    def entry(name: str, folder: str = "", kind: str = "output") -> dict[str, str]:
        return {"filename": name, "subfolder": folder, "type": kind}

    server.files = {
        ("output", "vid\\a", "v.webm"): WEBM,
        ("output", "", "ünï #1?&.png"): PNG,
        ("temp", "", "p.png"): PNG,
        ("output", "", "s.flac"): b"fLaC" + bytes(60),
    }
    outputs = {
        "1": {"gifs": [entry("v.webm", "vid\\a")], "animated": [True]},
        "2": {"images": [entry("ünï #1?&.png")]},
        "3": {"images": [entry("p.png", kind="temp")]},
        "4": {"audio": [entry("s.flac")], "latents": [entry("l.latent")]},
        "5": {"text": ["hello \ud800 wörld", "again"]},
    }
    ticket = await finished(engine, server, outputs=outputs)
    # Escaped by hand: half a character is valid JSON and no valid text.
    history = Response(json.dumps({ticket.remote_id: server.history[ticket.remote_id]}))
    server.always(f"GET /history/{ticket.remote_id}", history)
    result = await engine.collect(ticket, tmp_path)
    kinds = [asset.kind for asset in result.assets]
    assert kinds == [Kind.VIDEO, Kind.IMAGE, Kind.AUDIO, Kind.TEXT, Kind.TEXT]
    assert result.assets[0].meta["animated"] is True
    assert result.assets[3].path.read_text(encoding="utf-8") == "hello ? wörld"
    assert len(result.warnings) == 1
    assert "l.latent" in result.warnings[0]
    assert all(asset.path.parent == tmp_path for asset in result.assets)


async def test_previews_are_kept_when_nothing_was_saved(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    file = {"filename": "p.png", "subfolder": "", "type": "temp"}
    server.files["temp", "", "p.png"] = PNG
    ticket = await finished(engine, server, outputs={"1": {"images": [file]}})
    assert len((await engine.collect(ticket, tmp_path)).assets) == 1


async def test_a_prompt_that_saved_nothing_failed(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await finished(engine, server, outputs={})
    with pytest.raises(JobFailed, match="SaveImage"):
        await engine.collect(ticket, tmp_path)


@pytest.mark.parametrize(
    ("message", "error"),
    [
        (
            ["execution_error", {"exception_type": "ValueError", "exception_message": "a\nb"}],
            JobFailed,
        ),
        (["execution_error", {"exception_type": "torch.OutOfMemoryError"}], OutOfMemory),
        (["execution_interrupted", {"node_id": "3"}], Interrupted),
    ],
)
async def test_a_failure_is_told_apart_though_outputs_exist(
    engine: ComfyUI,
    server: Scripted,
    tmp_path: Path,
    message: list[Any],
    error: type[EngineError],
) -> None:
    ticket = await finished(engine, server, messages=[message], status="error")
    with pytest.raises(error) as failure:
        await engine.collect(ticket, tmp_path)
    assert type(failure.value) is error
    assert not names(tmp_path)


async def test_a_cached_rerun_whose_file_is_gone_is_lost(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    (entry,) = [e for e in recorded("histories") if "removed" in e["note"]]
    outputs = next(iter(entry["history"].values()))["outputs"]
    ticket = await finished(engine, server, outputs=outputs)
    with pytest.raises(ResultLost) as failure:
        await engine.collect(ticket, tmp_path)
    assert failure.value.retryable
    assert not names(tmp_path)


async def test_a_job_the_server_forgot_is_lost(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    collecting = asyncio.create_task(engine.collect(ticket, tmp_path))
    await until(lambda: server.count("GET /queue"))
    server.forget_everything()
    with pytest.raises(ResultLost):
        await asyncio.wait_for(collecting, 5)


async def test_a_picture_that_outlived_its_server_is_recovered(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    server.saved(server.graph(ticket.remote_id))
    folder = ticket.data["folder"]
    server.files["output", folder, "img_00002_.png"] = PNG
    server.forget_everything()
    result = await engine.collect(ticket, tmp_path)
    assert [a.path.read_bytes() for a in result.assets] == [PNG, PNG]
    assert result.effective["recovered"] is True
    assert result.effective["seed"] == 7


async def test_a_workflow_with_several_outputs_is_not_recovered_by_half(
    engine: ComfyUI, server: Scripted
) -> None:
    save: dict[str, Any] = {"class_type": "SaveImage", "inputs": {"filename_prefix": "x"}}
    workflow = {"1": save, "2": save}
    made = job(request(mode="workflow", workflow=workflow))
    ticket = await engine.submit(engine.ticket(made), made)
    server.saved(server.graph(ticket.remote_id))
    server.forget_everything()
    assert await engine.locate(ticket) is Located.GONE


@pytest.mark.parametrize("changed", ["ckpt_name", "lora_name"])
async def test_a_picture_made_with_another_model_is_never_taken(
    engine: ComfyUI, server: Scripted, tmp_path: Path, changed: str
) -> None:
    made = job(resolved=resolution(loras=(lora(),)))
    ticket = await engine.submit(engine.ticket(made), made)
    for node in server.graph(ticket.remote_id).values():
        if changed in node["inputs"]:
            node["inputs"][changed] = "other.safetensors"
    server.finish(ticket.remote_id)
    with pytest.raises(WrongModel, match=r"other\.safetensors"):
        await engine.collect(ticket, tmp_path)
    assert not names(tmp_path)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (HTMLResponse("<html>sorry</html>"), ProtocolError),
        (CutShort(), EngineUnreachable),
        (Response(status_code=401), EngineAuthFailed),
        (Response(status_code=404), ResultLost),
        (Response(b""), ProtocolError),
    ],
)
async def test_a_file_that_does_not_arrive_whole_is_not_left_behind(
    engine: ComfyUI, server: Scripted, tmp_path: Path, answer: Response, error: type[EngineError]
) -> None:
    ticket = await finished(engine, server)
    server.script("GET /view", answer)
    with pytest.raises(error):
        await engine.collect(ticket, tmp_path)
    assert not [name for name in names(tmp_path) if not name.endswith(".part")]
    result = await engine.collect(ticket, tmp_path)
    assert result.assets[0].path.read_bytes() == PNG


async def test_a_short_absence_of_the_server_is_waited_out(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    server.script("GET /queue", *[Response(status_code=503)] * 5)
    collecting = asyncio.create_task(engine.collect(ticket, tmp_path))
    await until(lambda: server.count("GET /queue") > 5)
    server.finish(ticket.remote_id)
    assert (await asyncio.wait_for(collecting, 5)).assets


async def test_a_long_absence_is_told_and_the_ticket_stays_good(
    engine: ComfyUI, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "PATIENCE_S", 0.2)
    ticket = await submitted(engine)
    server.always("GET /queue", Response(status_code=503))
    with pytest.raises(EngineError) as failure:
        await asyncio.wait_for(engine.collect(ticket, tmp_path), 5)
    assert failure.value.retryable
    server.standing.clear()
    server.finish(ticket.remote_id)
    assert (await engine.collect(ticket, tmp_path)).assets


@pytest.mark.parametrize(
    ("answer", "error"),
    [(Response(status_code=401), EngineAuthFailed), (JSONResponse([1]), ProtocolError)],
)
async def test_refused_credentials_and_lasting_nonsense_end_the_wait(
    engine: ComfyUI, server: Scripted, tmp_path: Path, answer: Response, error: type[EngineError]
) -> None:
    ticket = await submitted(engine)
    server.always("GET /queue", answer)
    with pytest.raises(error):
        await asyncio.wait_for(engine.collect(ticket, tmp_path), 5)


async def test_a_full_disk_is_the_stores_trouble(
    engine: ComfyUI, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = await finished(engine, server)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match="No space"):
        await engine.collect(ticket, tmp_path)


async def test_nothing_is_asked_to_stop_without_an_id(server: Scripted) -> None:
    async with ComfyClient(config(server)) as client:
        with pytest.raises(ValueError, match="somebody else"):
            await client.interrupt("")
    assert not server.calls


# Cancelling.


async def test_a_waiting_job_is_removed_and_nobody_elses(engine: ComfyUI, server: Scripted) -> None:
    server.running.append([0, "foreign", {}, {}, []])
    server.pending.append([1, "foreign too", {}, {}, []])
    ticket = await submitted(engine)
    assert await engine.cancel(ticket) is True
    assert [i[1] for i in (*server.running, *server.pending)] == ["foreign", "foreign too"]
    assert server.count("POST /interrupt") == 0


async def test_a_running_job_is_interrupted_by_its_id(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    server.run(ticket.remote_id)
    assert await engine.cancel(ticket) is True
    (body,) = [c.json for c in server.calls if c.path == "/interrupt"]
    assert body == {"prompt_id": ticket.remote_id}
    assert await engine.locate(ticket) is Located.DONE


async def test_a_lost_interrupt_is_not_taken_for_an_end(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    server.run(ticket.remote_id)
    server.script("POST /interrupt", Response())
    assert await engine.cancel(ticket) is False
    assert await engine.cancel(ticket) is True


async def test_an_old_server_that_would_stop_anybody_is_not_asked_to(
    engine: ComfyUI, server: Scripted
) -> None:
    server.stats["system"]["comfyui_version"] = "0.3.40"
    ticket = await submitted(engine)
    server.running.append([0, "foreign", {}, {}, []])
    assert await engine.cancel(ticket) is True
    assert server.count("POST /interrupt") == 0


async def test_a_job_that_is_over_is_certainly_stopped(engine: ComfyUI, server: Scripted) -> None:
    ticket = await finished(engine, server)
    assert await engine.cancel(ticket) is True
    assert server.count("POST /interrupt") == 0


async def test_a_newer_server_cancels_by_id_itself(engine: ComfyUI, server: Scripted) -> None:
    server.jobs_api = True
    waiting = await submitted(engine)
    running = await submitted(engine, index=1)
    server.run(running.remote_id)
    assert await engine.cancel(waiting) is True
    assert await engine.cancel(running) is True
    assert server.count("POST /interrupt") == server.count("POST /queue") == 0


async def test_a_server_with_jobs_but_without_cancelling_is_asked_the_old_way(
    engine: ComfyUI, server: Scripted
) -> None:
    server.jobs_api = True
    ticket = await submitted(engine)
    server.always(f"POST /api/jobs/{ticket.remote_id}/cancel", Response(status_code=404))
    server.run(ticket.remote_id)
    assert await engine.cancel(ticket) is True
    assert server.count("POST /interrupt") == 1


async def test_a_request_still_under_way_is_waited_for_before_it_counts_as_stopped(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = engine.ticket(job())

    def arrives_late(call: Call) -> Response:
        del call
        answer = JSONResponse({"queue_running": list(server.running), "queue_pending": []})
        server.pending = [[0, ticket.remote_id, {}, {}, []]]
        return answer

    nothing = JSONResponse({"queue_running": [], "queue_pending": []})
    server.script("GET /queue", nothing, arrives_late)
    assert await engine.cancel(ticket) is False
    assert await engine.cancel(ticket) is True


def _free(server: Scripted, *free: int, torch: int | None = None) -> None:
    """Have the server say how much memory is free, in MB, the last for good."""
    for megabytes in free:
        server.stats = json.loads(json.dumps(server.stats))
        (device,) = server.stats["devices"]
        device["vram_free"] = megabytes * 2**20
        device["torch_vram_free"] = (megabytes if torch is None else torch) * 2**20
        server.script("GET /system_stats", JSONResponse(server.stats))


async def test_memory_is_given_back_once_others_can_use_it(
    engine: ComfyUI, server: Scripted
) -> None:
    _free(server, 1_000, 1_000, 4_000, 7_600, 7_600)
    await engine.free_memory()
    asked = [(call.path, call.json) for call in server.calls if call.method == "POST"]
    assert asked == [("/free", {"unload_models": True, "free_memory": True})]
    assert server.calls[0].path == "/system_stats", "how it was before must be known"
    assert len(server.calls) == 6


async def test_memory_that_pytorch_keeps_for_itself_is_not_given_back(
    engine: ComfyUI, server: Scripted
) -> None:
    _free(server, 5_000, 11_000, torch=4_000)
    _free(server, 11_000, 11_000, torch=0)
    await engine.free_memory()
    assert len(server.calls) == 5


async def test_a_server_with_nothing_to_give_back_is_not_waited_for(
    engine: ComfyUI, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeing, "PATIENCE_S", 0.05)
    await engine.free_memory()
    assert 3 <= len(server.calls) <= 5


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[], Path]:
    def make() -> Path:
        path = tmp_path / "in.png"
        path.write_bytes(PNG)
        return path

    return make


async def test_img2img_goes_all_the_way(
    engine: ComfyUI, server: Scripted, tmp_path: Path, picture: Callable[[], Path]
) -> None:
    asked = request(mode="img2img", init_image=PICTURE, checkpoint="tiny-random-sd15", prompt="x")
    made = job(asked, await engine.resolve(asked), inputs={"init_image": picture()})
    ticket = await engine.submit(engine.ticket(made), made)
    server.finish(ticket.remote_id)
    spool = tmp_path / "spool"
    spool.mkdir()
    assert (await engine.collect(ticket, spool)).effective["checkpoint"].startswith("tiny")


async def test_the_seed_that_a_workflow_keeps_is_the_one_recorded(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    workflow = recorded("txt2img")["request"]["prompt"]
    ran = resolution(checkpoint="tiny-random-sd15.safetensors")
    made = job(request(mode="workflow", workflow=workflow), ran, seed=40)
    ticket = await engine.submit(engine.ticket(made), made)
    (posted,) = server.posted()
    assert posted["extra_data"]["extra_pnginfo"]["stablequeue"]["seed"] == 11
    assert ticket.data["asked"]["seed"] == 11, "what stands there if the server forgets the graph"
    server.finish(ticket.remote_id)
    result = await engine.collect(ticket, tmp_path)
    assert result.effective["seed"] == 11
