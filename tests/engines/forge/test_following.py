"""Where a job is and how far: locate, observe, cancel."""

import asyncio
import math
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse

from stablequeue.engines.base import Located, Phase, Progress, Ticket
from stablequeue.engines.forge import Forge, boot
from stablequeue.errors import EngineBusy, Interrupted
from tests.engines.forge.making import config, inside, resolved, running, submitted, until
from tests.engines.forge.recordings import picture, sequence
from tests.engines.forge.scripted import Scripted, missing

pytestmark = pytest.mark.usefixtures("fast")


async def left_behind(server: Scripted, **fields: Any) -> Ticket:
    """Submit a job in a session that ends; return the ticket as it was before sending."""
    async with Forge(config(server)) as engine:
        job = await resolved(engine, **fields)
        ticket = engine.ticket(job)
        await engine.submit(ticket, job)
        await server.job(len(server.jobs) - 1 if server.jobs else 0)
    return ticket


# locate


async def test_a_job_is_located_through_its_life(server: Scripted, engine: Forge) -> None:
    ticket = await left_behind(server)
    assert await engine.locate(ticket) is Located.RUNNING
    server.jobs[0].go.set()
    await until(lambda: server.completed)
    assert await engine.locate(ticket) is Located.DONE
    server.completed.clear()
    assert await engine.locate(ticket) is Located.DONE  # its file is there
    server.files.clear()
    assert await engine.locate(ticket) is Located.GONE


async def test_a_job_never_sent_is_gone(server: Scripted, engine: Forge) -> None:
    ticket = engine.ticket(await resolved(engine))
    asked = server.count("POST /internal/progress")
    assert await engine.locate(ticket) is Located.GONE
    assert server.count("POST /internal/progress") - asked == 2  # it asked twice


async def test_a_request_still_arriving_is_not_gone(server: Scripted, engine: Forge) -> None:
    ticket = engine.ticket(await resolved(engine))
    first = JSONResponse({"active": False, "queued": False, "completed": False})
    server.script("POST /internal/progress", first)
    server.pending.append(ticket.remote_id)
    server.busy()
    assert await engine.locate(ticket) is Located.QUEUED


async def test_a_restarted_server_does_not_have_it_unless_its_file_is_there(
    server: Scripted, engine: Forge
) -> None:
    ticket = await submitted(engine)
    server.restart()
    async with Forge(config(server)) as another:
        assert await another.locate(ticket) is Located.GONE
        server.files[ticket.data["file"]] = picture()
        assert await another.locate(ticket) is Located.DONE


async def test_files_that_may_not_be_read_prove_nothing_but_a_restart_does(
    server: Scripted, engine: Forge
) -> None:
    ticket = await submitted(engine)
    path = f"HEAD /file={ticket.data['file']}"
    server.active = ""
    server.always(path, JSONResponse({"detail": "Not authenticated"}, 401))
    async with Forge(config(server)) as another:
        assert await another.locate(ticket) is Located.UNKNOWN
        server.always(path, JSONResponse({"detail": "File not allowed"}, 403))
        assert await another.locate(ticket) is Located.UNKNOWN
        server.restart()
        assert await another.locate(ticket) is Located.GONE


async def test_without_web_page_nobody_can_tell(server: Scripted) -> None:
    server.webui = False
    ticket = await left_behind(server)
    async with Forge(config(server)) as another:
        assert await another.locate(ticket) is Located.UNKNOWN


async def test_task_ids_that_are_not_there_yet_are_waited_for(
    server: Scripted, engine: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = engine.ticket(await resolved(engine))
    server.always("POST /internal/progress", missing())
    with pytest.raises(EngineBusy):
        await engine.locate(ticket)
    monkeypatch.setattr(boot, "LATE_ROUTES_S", 0.0)
    assert await engine.locate(ticket) is Located.UNKNOWN


async def test_recorded_a_failed_job_stays_active_until_the_next_one(
    server: Scripted, engine: Forge
) -> None:
    states = [entry["json"] for entry in sequence("failed_job_task_state_after")]
    assert states[0]["active"]
    assert states[2]["state"]["job_count"] == 0  # and yet nothing runs
    ticket = await left_behind(server)
    server.jobs[0].outcome = "fail"
    server.jobs[0].go.set()
    await until(lambda: server.state["job_count"] == 0)
    assert await engine.locate(ticket) is Located.DONE
    assert await engine.cancel(ticket)


async def test_recorded_a_refused_job_stays_queued_for_ever(
    server: Scripted, engine: Forge
) -> None:
    assert sequence("bad_init_image_leaks_pending")[0]["json"]["queued"]
    ticket = engine.ticket(await resolved(engine))
    server.pending.append(ticket.remote_id)
    assert await engine.locate(ticket) is Located.GONE
    assert await engine.cancel(ticket)


async def test_an_upscale_is_gone_once_the_server_rests(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    (tmp_path / "in.png").write_bytes(picture())
    inputs = {"init_image": tmp_path / "in.png"}
    ticket = await left_behind(server, mode="upscale", init_image="x", inputs=inputs)
    assert await engine.locate(ticket) is Located.RUNNING
    assert not await engine.cancel(ticket)  # it might be anybody's
    server.jobs[0].go.set()
    await until(lambda: server.state["job_count"] == 0)
    assert await engine.locate(ticket) is Located.GONE
    assert await engine.cancel(ticket)
    assert server.count("POST /sdapi/v1/interrupt") == 0


# observe


async def observed(engine: Forge, ticket: Ticket, into: list[Progress]) -> None:
    async for progress in engine.observe(ticket):
        into.append(progress)  # noqa: PERF401 - read while it grows


@asynccontextmanager
async def watched(server: Scripted, engine: Forge, spool: Path) -> AsyncGenerator[list[Progress]]:
    """Give what is seen of a job, while it is; then let the job end, and the watching with it."""
    ticket = await submitted(engine)
    job = await server.job()
    seen: list[Progress] = []
    observing = asyncio.create_task(observed(engine, ticket, seen))
    yield seen
    job.go.set()
    await engine.collect(ticket, spool)
    await asyncio.wait_for(observing, 5)


async def test_the_steps_of_the_job_before_are_not_shown_as_ours(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    async with watched(server, engine, tmp_path) as seen:
        server.state |= {"job_count": 1, "job_no": 0, "sampling_step": 0, "sampling_steps": 40}
        await until(lambda: seen and seen[-1].phase is Phase.SAMPLING)
        assert {progress.steps for progress in seen} == {0}
        server.state |= {"sampling_step": 1, "sampling_steps": 2}
        server.progress = 0.5
        await until(lambda: seen[-1].steps == 2)


async def test_progress_goes_from_loading_to_the_end_and_never_back(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    async with watched(server, engine, tmp_path) as seen:
        server.state["job_count"] = -1
        await until(lambda: seen and seen[-1].phase is Phase.LOADING)
        # Two passes, as recorded: the second begins before the first one's end was told.
        for count, number, step, fraction in ((2, 0, 2, 0.25), (2, 1, 0, 0.2), (2, 1, 3, 0.9)):
            server.state |= {"job_count": count, "job_no": number, "sampling_step": step}
            server.progress = fraction
            length = len(seen)
            await until(lambda length=length: len(seen) > length + 1)
            assert seen[-1].phase is Phase.SAMPLING
            assert seen[-1].message == f"Pass {number + 1} of 2, step {step} of 4"
        server.state["job_no"] = 2
        await until(lambda: seen[-1].phase is Phase.FINISHING)
    fractions = [progress.fraction for progress in seen if progress.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 0.9


async def test_recorded_progress_of_two_passes_never_goes_back(
    server: Scripted, engine: Forge
) -> None:
    told = [entry for entry in sequence("run_progress_hires") if "json" in entry]
    tasks = [entry["json"] for entry in told if "POST" in entry]
    states = [entry["json"] for entry in told if "GET" in entry]
    ticket = await submitted(engine)
    await server.job()
    server.script("POST /internal/progress", *(JSONResponse(task) for task in tasks))
    server.script("GET /sdapi/v1/progress", *(JSONResponse(state) for state in states))
    seen: list[Progress] = []
    observing = asyncio.create_task(observed(engine, ticket, seen))
    await until(lambda: len(seen) >= len(states))
    observing.cancel()
    fractions = [progress.fraction for progress in seen if progress.fraction is not None]
    assert fractions == sorted(fractions)
    assert max(fractions) >= 0.75


async def test_recorded_loading_of_a_model_is_told_as_such(server: Scripted, engine: Forge) -> None:
    told = [entry for entry in sequence("interrupt_during_model_load") if "json" in entry]
    ticket = await submitted(engine)
    await server.job()
    server.script("POST /internal/progress", JSONResponse(told[0]["json"]))
    server.script("GET /sdapi/v1/progress", JSONResponse(told[1]["json"]))
    async for progress in engine.observe(ticket):
        assert progress.phase is Phase.LOADING
        break


async def test_previews_are_asked_for_by_their_number(server: Scripted, engine: Forge) -> None:
    ticket = await submitted(engine)
    await server.job()
    asked: list[int] = []

    def preview(call: Any) -> JSONResponse:
        asked.append(call.json["id_live_preview"])
        new = call.json["id_live_preview"] == -1
        told = {"active": True, "queued": False, "completed": False, "progress": 0.5}
        data = "data:image/png;base64,aGVsbG8="
        return JSONResponse({**told, "live_preview": data if new else None, "id_live_preview": 7})

    server.always("POST /internal/progress", preview)
    seen: list[Progress] = []
    observing = asyncio.create_task(observed(engine, ticket, seen))
    await until(lambda: len(asked) > 3)
    observing.cancel()
    assert seen[0].preview == b"hello"
    assert asked[:3] == [-1, 7, 7]
    assert seen[1].preview is None


async def test_a_queued_job_has_a_place_without_the_leaked_ids(
    server: Scripted, engine: Forge
) -> None:
    ticket = await left_behind(server)
    server.active = ""
    server.pending = ["leaked", "theirs", ticket.remote_id]
    (await inside(engine, "session").boot()).leaked.add("leaked")
    async for progress in engine.observe(ticket):
        assert (progress.phase, progress.position) == (Phase.QUEUED, 2)
        break


async def test_observing_survives_faults_and_nonsense(server: Scripted, engine: Forge) -> None:
    ticket = await submitted(engine)
    await server.job()
    faults = [JSONResponse({}, 503), JSONResponse([1]), JSONResponse({"active": "maybe"})]
    server.script("POST /internal/progress", *faults)
    odd = {"active": True, "progress": 7.5, "live_preview": "data:image/png;base64,@@@"}
    server.script("POST /internal/progress", JSONResponse(odd))
    async for progress in engine.observe(ticket):
        assert progress.fraction is not None
        assert 0 <= progress.fraction <= 1
        assert not math.isnan(progress.fraction)
        assert progress.preview is None
        break


async def test_observing_ends_when_the_job_ended_whoever_sent_it(
    server: Scripted, engine: Forge
) -> None:
    ticket = await left_behind(server)
    seen: list[Progress] = []
    observing = asyncio.create_task(observed(engine, ticket, seen))
    await until(lambda: seen)
    server.jobs[0].go.set()
    await asyncio.wait_for(observing, 5)
    again: list[Progress] = []
    server.completed.clear()
    await asyncio.wait_for(observed(engine, ticket, again), 5)  # forgotten, but its file is there


async def test_without_web_page_what_runs_is_ours_while_our_request_is_open(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    server.webui = False
    async with watched(server, engine, tmp_path) as seen:
        server.state |= {"sampling_step": 3}
        await until(lambda: len(seen) > 5)
        assert (seen[-1].phase, seen[-1].step, seen[-1].steps) == (Phase.SAMPLING, 3, 4)
        assert any(call.query.get("skip_current_image") == "false" for call in server.calls)


# cancel


async def test_a_running_job_of_ours_is_interrupted(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    ticket = await submitted(engine)
    job = await server.job()

    def stop(_: Any) -> JSONResponse:
        server.state["interrupted"] = True
        job.outcome = "stop"
        job.go.set()
        return JSONResponse({})

    server.script("POST /sdapi/v1/interrupt", stop)
    async with running(engine, ticket, tmp_path) as task:
        assert await engine.cancel(ticket)
        with pytest.raises(Interrupted, match="as we asked"):
            await task
    assert await engine.cancel(ticket)  # already over is fine
    assert server.count("POST /sdapi/v1/interrupt") == 1


async def test_another_session_interrupts_by_the_ticket(server: Scripted, engine: Forge) -> None:
    ticket = await left_behind(server)

    def stop(_: Any) -> JSONResponse:
        server.jobs[0].outcome = "stop"
        server.jobs[0].go.set()
        return JSONResponse({})

    server.script("POST /sdapi/v1/interrupt", stop)
    assert await engine.cancel(ticket)


async def test_a_job_that_goes_on_is_not_certainly_cancelled(
    server: Scripted, engine: Forge
) -> None:
    ticket = await submitted(engine)
    await server.job()
    assert not await engine.cancel(ticket)


@pytest.mark.parametrize("where", ["waiting", "ended", "unknown"])
async def test_somebody_else_s_job_is_never_interrupted(
    server: Scripted, engine: Forge, where: str
) -> None:
    ticket = engine.ticket(await resolved(engine))
    server.busy()
    server.active = "theirs"
    if where == "waiting":
        server.pending.append(ticket.remote_id)
    if where == "ended":
        server.completed.append(ticket.remote_id)
    assert await engine.cancel(ticket) is (where != "waiting")
    assert server.count("POST /sdapi/v1/interrupt") == 0


async def test_a_job_just_sent_is_interrupted_once_it_is_known(
    server: Scripted, engine: Forge
) -> None:
    ticket = await submitted(engine)
    job = await server.job()
    unseen = {"active": False, "queued": False, "completed": False}
    server.script("POST /internal/progress", *(JSONResponse(unseen) for _ in range(2)))

    def stop(_: Any) -> JSONResponse:
        job.outcome = "stop"
        job.go.set()
        return JSONResponse({})

    server.script("POST /sdapi/v1/interrupt", stop)
    assert await engine.cancel(ticket)
    assert server.count("POST /sdapi/v1/interrupt") == 1


async def test_without_web_page_only_an_open_request_of_ours_is_interrupted(
    server: Scripted, engine: Forge
) -> None:
    server.webui = False
    ticket = await submitted(engine)
    job = await server.job()

    def stop(_: Any) -> JSONResponse:
        job.outcome = "stop"
        job.go.set()
        return JSONResponse({})

    async with Forge(config(server)) as another:
        assert not await another.cancel(ticket)
    assert server.count("POST /sdapi/v1/interrupt") == 0
    server.script("POST /sdapi/v1/interrupt", stop)
    assert await engine.cancel(ticket)
    assert server.count("POST /sdapi/v1/interrupt") == 1


# older than task ids


def old(server: Scripted) -> None:
    server.flavour, server.ids = "automatic1111", False
    server.always("GET /sdapi/v1/schedulers", missing())


async def test_before_1_8_a_job_is_followed_by_all_the_server_does(
    server: Scripted, engine: Forge, tmp_path: Path
) -> None:
    old(server)
    ticket = await submitted(engine)
    job = await server.job()
    server.state |= {"sampling_step": 2}
    async for progress in engine.observe(ticket):
        assert (progress.phase, progress.step) == (Phase.SAMPLING, 2)
        break
    async with Forge(config(server)) as another:
        assert await another.locate(ticket) is Located.RUNNING  # it may be ours
        assert not await another.cancel(ticket)
        job.go.set()
        await engine.collect(ticket, tmp_path)
        assert await another.locate(ticket) is Located.DONE
        server.files.clear()
        assert await another.locate(ticket) is Located.GONE


async def test_before_1_8_an_open_request_of_ours_is_interrupted(
    server: Scripted, engine: Forge
) -> None:
    old(server)
    ticket = await submitted(engine)
    job = await server.job()

    def stop(_: Any) -> JSONResponse:
        job.outcome = "stop"
        job.go.set()
        return JSONResponse({})

    server.script("POST /sdapi/v1/interrupt", stop)
    assert await engine.cancel(ticket)
