"""Bringing results home: from the answer, from the file, and never a half-done one."""

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image
from starlette.responses import JSONResponse, Response

from stablequeue.engines.base import EngineJob, RawResult, Ticket
from stablequeue.engines.forge import Forge, collecting
from stablequeue.errors import (
    EngineAuthFailed,
    EngineUnreachable,
    Interrupted,
    JobFailed,
    JobRejected,
    OutOfMemory,
    ProtocolError,
    ResultLost,
    StoreUnavailable,
    WrongModel,
)
from tests.engines.forge.making import (
    OTHER,
    config,
    inside,
    made,
    resolved,
    running,
    submitted,
    until,
)
from tests.engines.forge.recordings import job as recorded
from tests.engines.forge.recordings import picture
from tests.engines.forge.scripted import STAMP, Cut, Scripted, nonsense

pytestmark = pytest.mark.usefixtures("fast")
POST = "POST /sdapi/v1/txt2img"


def files_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


async def collected(
    engine: Forge, server: Scripted, spool: Path, outcome: str, **fields: Any
) -> RawResult:
    """Submit a job, let it end so, collect."""
    ticket = await submitted(engine, **fields)
    async with running(engine, ticket, spool) as collecting_task:
        job = server.jobs[-1]
        job.outcome = outcome
        job.go.set()
        return await collecting_task


async def answered(engine: Forge, server: Scripted, spool: Path, name: str) -> RawResult:
    """Collect a job that is answered as recorded, and whose request was the recorded one."""
    reply = recorded(name)["response"]
    told = json.loads(reply["info"])
    server.script(POST, JSONResponse(reply))
    server.state["job_timestamp"] = told["job_timestamp"]
    ticket = await submitted(engine, seed=told["all_seeds"][0])
    return await engine.collect(ticket, spool)


async def test_a_result_is_spooled_with_its_infotext_and_what_was_used(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    result = await collected(engine, server, tmp_path, "finish", checkpoint=OTHER)
    (asset,) = result.assets
    assert files_in(tmp_path) == ["0000.png"]
    assert Image.open(asset.path).mode == "RGBA"  # as it came
    assert asset.infotext.startswith("a cat\nSteps: 4, Sampler: Euler")
    assert result.warnings == ()
    assert result.effective["models"] == {"other-sd15": "b1ee8ef881"}
    assert result.effective["seed"] == 5
    assert (await engine.probe()).version == "f2.0.1v1.10.1-1.10.1"


async def test_generating_has_no_time_limit(server: Scripted, tmp_path: Path) -> None:
    async with Forge(config(server, read_timeout_s=0.2)) as engine:
        ticket = await submitted(engine)
        async with running(engine, ticket, tmp_path) as task:
            begun = asyncio.get_running_loop().time()
            await until(lambda: asyncio.get_running_loop().time() > begun + 1)
            server.jobs[0].go.set()
            assert (await task).assets


async def test_a_server_that_dies_right_after_its_answer_spoils_nothing(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    job = await server.job()
    for call in ("GET /app_id", "GET /sdapi/v1/progress", "GET /sdapi/v1/sd-models"):
        server.always(call, JSONResponse({}, 503))
    job.go.set()
    assert (await engine.collect(ticket, tmp_path)).assets


async def test_a_grid_in_front_is_left_out(engine: Forge, server: Scripted, tmp_path: Path) -> None:
    result = await answered(engine, server, tmp_path, "txt2img_batch2_iter2_save")
    (asset,) = result.assets
    assert Image.open(asset.path).size == (64, 64)  # the grid has 128
    assert asset.infotext


async def test_pictures_after_the_one_asked_for_are_left_out(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    assert len(recorded("txt2img_batch2_iter2_nosave")["response"]["images"]) == 4
    server.files = {}
    server.defaults["outdir_txt2img_samples"] = ""  # so that no file is looked for
    result = await answered(engine, server, tmp_path, "txt2img_batch2_iter2_nosave")
    assert len(result.assets) == 1


async def test_a_script_s_pictures_are_all_kept(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    reply = recorded("txt2img_batch2_iter2_save")["response"]
    server.script(POST, JSONResponse(reply))
    script = {"forge": {"script_name": "prompt matrix"}}
    ticket = await submitted(engine, sections=script)
    assert len((await engine.collect(ticket, tmp_path)).assets) == 4


async def test_a_jpeg_is_told_by_its_bytes_and_warned_of(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.defaults["outdir_txt2img_samples"] = ""
    result = await answered(engine, server, tmp_path, "options_changed_during_run")
    (asset,) = result.assets
    assert (asset.path.suffix, asset.mime) == (".jpg", "image/jpeg")
    assert "JPEG instead of PNG" in result.warnings[0]


@pytest.mark.parametrize(
    "name",
    [
        "interrupt_single",
        "interrupt_before_first_step",
        "skip_single",
        "interrupt_during_model_load",
    ],
)
async def test_recorded_interrupted_jobs_answered_with_200_are_not_stored(
    engine: Forge, server: Scripted, tmp_path: Path, name: str
) -> None:
    assert recorded(name)["status"] == 200
    with pytest.raises(Interrupted) as refused:
        await answered(engine, server, tmp_path, name)
    assert refused.value.retryable
    assert not files_in(tmp_path)


async def test_somebody_s_interrupt_is_told_by_the_flag_that_stays(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.defaults["outdir_txt2img_samples"] = ""  # the file cannot tell
    ticket = await submitted(engine)
    async with running(engine, ticket, tmp_path) as task:
        job = await server.job()
        job.outcome = "stop"
        server.state["interrupted"] = True
        job.go.set()
        with pytest.raises(Interrupted, match="by somebody there"):
            await task


async def test_an_interrupt_seen_only_while_running_counts_too(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.defaults["outdir_txt2img_samples"] = ""
    ticket = await submitted(engine)

    async def observe() -> None:
        async for _ in engine.observe(ticket):
            return

    observing = asyncio.create_task(observe())
    job = await server.job()
    server.state["skipped"] = True
    await observing
    post = inside(engine, "desk").posts[ticket.remote_id]
    await until(lambda: STAMP in post.stopped_stamps)
    server.state["skipped"] = False  # another job has begun since
    job.outcome = "stop"
    job.go.set()
    with pytest.raises(Interrupted):
        await engine.collect(ticket, tmp_path)


async def test_a_flag_left_by_another_job_does_not_spoil_ours(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.flavour = "automatic1111"  # nothing but the flag and the file can tell
    server.defaults["outdir_txt2img_samples"] = ""
    ticket = await submitted(engine)
    async with running(engine, ticket, tmp_path) as task:
        job = await server.job()
        job.go.set()
        await until(lambda: server.state["job_count"] == 0)
        server.state |= {"interrupted": True, "job_timestamp": "20301231235959"}
        assert (await task).assets


async def test_an_interrupt_that_came_too_late_does_not_spoil_a_finished_picture(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    async with running(engine, ticket, tmp_path) as task:
        job = await server.job()
        server.state["interrupted"] = True
        job.go.set()
        assert (await task).assets  # RGBA: it was saved, so it is whole


async def test_without_a_saved_file_a_picture_is_not_finished(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    # Neither flag nor our own interrupt is known, but finished pictures are saved.
    with pytest.raises(Interrupted):
        await collected(engine, server, tmp_path, "stop")


async def test_automatic1111_s_finished_pictures_are_told_by_their_file(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.flavour = "automatic1111"
    result = await collected(engine, server, tmp_path, "finish")
    assert Image.open(result.assets[0].path).mode == "RGB"
    assert any(c.method == "HEAD" for c in server.calls)


async def test_with_hidden_folders_a_missing_file_says_nothing(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.flavour = "automatic1111"
    server.lists["/sdapi/v1/cmd-flags"] = {"hide_ui_dir_config": True}
    ticket = await submitted(engine)
    async with running(engine, ticket, tmp_path) as task:
        job = await server.job()
        job.request["override_settings"].clear()
        server.memory["samples_filename_pattern"] = "[model]"
        job.go.set()
        assert (await task).assets


@pytest.mark.parametrize(
    "change",
    [
        {"Model": "other", "Model hash": "ffffffffff"},
        {"Sampler": "DPM++ 2M"},
        {"Seed": 6},
        {"Module 1": "ae"},
        {"Clip skip": 2},
        {"Lora hashes": '"x: 123"'},
    ],
)
async def test_a_picture_made_otherwise_than_asked_is_never_a_result(
    engine: Forge, server: Scripted, tmp_path: Path, change: dict[str, Any]
) -> None:
    server.changes = change
    with pytest.raises(WrongModel):
        await collected(engine, server, tmp_path, "finish")
    assert not files_in(tmp_path)


async def test_equal_base_names_are_told_apart_by_the_hash_learnt_since(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    before = [
        {"title": "a/model.ckpt", "hash": None, "filename": "/m/a/model.ckpt"},
        {"title": "b/model.ckpt", "hash": None, "filename": "/m/b/model.ckpt"},
    ]
    server.lists["/sdapi/v1/sd-models"] = before
    ticket = await submitted(engine, checkpoint="a/model.ckpt")
    server.lists["/sdapi/v1/sd-models"] = [
        {**before[0], "title": "a/model.ckpt [aaaaaaaaaa]", "hash": "aaaaaaaaaa"},
        {**before[1], "title": "b/model.ckpt [bbbbbbbbbb]", "hash": "bbbbbbbbbb"},
    ]
    server.changes = {"Model hash": "bbbbbbbbbb"}
    (await server.job()).go.set()
    with pytest.raises(WrongModel):
        await engine.collect(ticket, tmp_path)


async def test_a_rounded_size_is_a_warning(engine: Forge, server: Scripted, tmp_path: Path) -> None:
    ticket = await submitted(engine, width=72, height=64)
    job = await server.job()
    job.request["width"] = 64
    job.go.set()
    result = await engine.collect(ticket, tmp_path)
    assert result.warnings == ("it made 64 x 64 pixels instead of 72 x 64",)


async def test_failures_during_the_run(engine: Forge, server: Scripted, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="it broke"):
        await collected(engine, server, tmp_path, "fail")
    with pytest.raises(OutOfMemory):
        await collected(engine, server, tmp_path, "memory")
    bad = {"forge": {"override_settings": {"no_such_option": 1}}}
    with pytest.raises(JobRejected, match="no_such_option"):
        await collected(engine, server, tmp_path, "finish", sections=bad)


async def lost(engine: Forge, server: Scripted, **fields: Any) -> tuple[Ticket, EngineJob]:
    """Submit a job; its connection is gone."""
    job = await resolved(engine, **fields)
    ticket = await engine.submit(engine.ticket(job), job)
    await server.job()
    await inside(engine, "desk").posts[ticket.remote_id].give_up()
    return ticket, job


async def test_a_lost_connection_is_made_good_by_the_saved_file(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    async with running(engine, ticket, tmp_path) as task:
        await until(lambda: server.count("POST /internal/progress") > 3)
        assert not task.done()
        server.jobs[0].go.set()
        result = await task
    assert result.effective["recovered"] is True
    assert result.effective["models"] == {"random-sd15": "01cfe36ece"}
    assert result.assets[0].infotext.startswith("a cat\n")
    assert len(server.posted()) == 1


async def test_another_session_collects_with_the_ticket_alone_even_the_first_one(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    _, job = await lost(engine, server)
    server.jobs[0].go.set()
    await until(lambda: server.completed)
    before = Ticket.from_json(engine.ticket(job).to_json())  # as committed before it was sent
    async with Forge(config(server)) as another:
        for _ in range(2):
            result = await another.collect(before, tmp_path)
            assert [asset.path.name for asset in result.assets] == ["0000.png"]


async def test_a_recovered_picture_is_compared_too(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.changes = {"Model": "other", "Model hash": "ffffffffff"}
    ticket, _ = await lost(engine, server)
    server.jobs[0].go.set()
    with pytest.raises(WrongModel):
        await engine.collect(ticket, tmp_path)


async def test_a_forgotten_job_is_found_by_its_file(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.jobs[0].go.set()
    await until(lambda: server.completed)
    server.completed.clear()  # 16 others have ended since
    assert (await engine.collect(ticket, tmp_path)).assets


async def test_a_server_that_lost_the_job_is_told_apart(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.restart()
    with pytest.raises(ResultLost, match="restarted"):
        await engine.collect(ticket, tmp_path)


async def test_a_job_that_failed_while_the_connection_was_lost_stays_active_but_is_over(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.jobs[0].outcome = "fail"
    server.jobs[0].go.set()
    await until(lambda: server.state["job_count"] == 0)
    assert server.active == ticket.remote_id
    with pytest.raises(JobFailed, match="console"):
        await engine.collect(ticket, tmp_path)


async def test_an_ended_job_without_a_file_is_lost(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.jobs[0].outcome = "stop"
    server.jobs[0].go.set()
    await until(lambda: server.completed)
    with pytest.raises(ResultLost, match="no picture was saved"):
        await engine.collect(ticket, tmp_path)


async def test_a_request_that_is_never_answered_is_given_up_after_a_restart(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket = await submitted(engine)  # the connection stays open, as after a power cut
    async with running(engine, ticket, tmp_path) as task:
        await server.job()
        server.restart()
        with pytest.raises(ResultLost):
            await task


async def test_a_request_whose_job_ended_long_ago_is_given_up(
    engine: Forge, server: Scripted, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collecting, "ENDED_UNANSWERED_S", 0.1)
    ticket = await submitted(engine)
    async with running(engine, ticket, tmp_path) as task:
        job = await server.job()
        server.completed.append(job.task_id)
        server.active = ""
        server.files[ticket.data["file"]] = picture(
            "RGBA",
            infotext="a cat\nSteps: 4, Sampler: Euler, Seed: 5, Model: random-sd15,"
            " Model hash: 01cfe36ece",
        )
        assert (await task).effective["recovered"]


@pytest.mark.parametrize("status", [502, 503, 504])
async def test_a_proxy_s_impatience_is_not_the_job_s_end(
    engine: Forge, server: Scripted, tmp_path: Path, status: int
) -> None:
    ticket = await submitted(engine)
    job = await server.job()
    post = inside(engine, "desk").posts[ticket.remote_id]
    await post.give_up()
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    future.set_result(_response(status))
    post.answer = future
    async with running(engine, ticket, tmp_path) as task:
        await until(lambda: server.count("POST /internal/progress") > 3)
        job.go.set()
        assert (await task).effective["recovered"]


def _response(status: int) -> httpx.Response:
    return httpx.Response(status, text="Gateway Time-out")


async def test_a_broken_answer_is_recovered_from_the_file(
    automatic: Scripted, tmp_path: Path
) -> None:
    async def cut(call: Any) -> Response:
        await automatic.run(call)  # it runs, and its answer is cut off
        return Cut()

    automatic.script(POST, cut)
    async with Forge(config(automatic)) as engine:
        assert (await made(engine, tmp_path)).effective["recovered"]
    assert len(automatic.posted()) == 1


async def test_without_web_page_a_lost_answer_leaves_the_ticket_open(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    server.webui = False
    ticket, _ = await lost(engine, server)
    with pytest.raises(EngineUnreachable, match="--nowebui"):
        await engine.collect(ticket, tmp_path)


async def test_a_server_that_stays_away_leaves_the_ticket_open(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    for away in (JSONResponse({}, 503), nonsense("<html>Starting...")):
        server.always("POST /internal/progress", away)
        with pytest.raises(EngineUnreachable):  # anything else would end the attempt
            await engine.collect(ticket, tmp_path)


def login_as(word: str) -> dict[str, Any]:
    return {"ui_username": "g", "ui_password": word}


async def test_files_behind_the_web_page_s_login_are_fetched_with_it(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.jobs[0].go.set()
    await until(lambda: server.files)
    path = f"/file={ticket.data['file']}"

    def guarded(call: Any) -> Response:
        if "access-token-unsecure=secret" not in call.headers.get("cookie", ""):
            return JSONResponse({"detail": "Not authenticated"}, 401)
        return Response(server.files[ticket.data["file"]], media_type="image/png")

    def login(call: Any) -> Response:
        if call.body != b"username=g&password=h":
            return JSONResponse({"detail": "Incorrect credentials."}, 400)
        answer = JSONResponse({"success": True})
        answer.set_cookie("access-token-unsecure", "secret")
        return answer

    for method in ("GET", "HEAD"):
        server.always(f"{method} {path}", guarded)
    server.always("POST /login", login)
    with pytest.raises(ResultLost, match="--ui-username"):
        await engine.collect(ticket, tmp_path)
    async with Forge(config(server, **login_as("no"))) as wrong:
        with pytest.raises(EngineAuthFailed, match="login of its web page"):
            await wrong.collect(ticket, tmp_path)
    async with Forge(config(server, **login_as("h"))) as right:
        assert (await right.collect(ticket, tmp_path)).assets


async def test_a_damaged_file_is_not_a_result(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    ticket, _ = await lost(engine, server)
    server.jobs[0].go.set()
    await until(lambda: server.completed)
    server.files[ticket.data["file"]] = server.files[ticket.data["file"]][:-30]
    with pytest.raises(ProtocolError):
        await engine.collect(ticket, tmp_path)
    assert not files_in(tmp_path)


async def test_a_full_disk_parks_instead_of_failing(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    with pytest.raises(StoreUnavailable):
        await collected(engine, server, tmp_path / "gone", "finish")


async def test_upscaling_brings_the_picture_back(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(picture())
    ticket = await submitted(
        engine, mode="upscale", init_image="x", inputs={"init_image": tmp_path / "in.png"}
    )
    job = await server.job()
    sent = {"upscaler_1": "Lanczos", "upscaling_resize": 2.0, "resize_mode": 0}
    assert sent.items() <= job.request.items()
    job.go.set()
    spool = tmp_path / "spool"
    await asyncio.to_thread(spool.mkdir)
    (asset,) = (await engine.collect(ticket, spool)).assets
    assert Image.open(asset.path).size == (128, 128)


async def test_a_damaged_answer_to_upscaling_is_refused(
    engine: Forge, server: Scripted, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(picture())
    server.script("POST /sdapi/v1/extra-single-image", JSONResponse({"image": "@@@"}))
    ticket = await submitted(
        engine, mode="upscale", init_image="x", inputs={"init_image": tmp_path / "in.png"}
    )
    with pytest.raises(ProtocolError):
        await engine.collect(ticket, tmp_path)
