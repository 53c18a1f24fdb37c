"""Following a job: locating, observing, and sockets that cannot be relied on."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stablequeue.engines.base import Located, Phase, Progress, Ticket
from stablequeue.engines.comfyui import ComfyUI, following, socket
from stablequeue.engines.comfyui.answers import parse_queue
from tests.engines.comfyui.conftest import config
from tests.engines.comfyui.jobs import job
from tests.engines.comfyui.recordings import recorded
from tests.engines.comfyui.scripted import PNG, Scripted, until

pytestmark = pytest.mark.usefixtures("fast")

OTHER = "01950000-0000-7000-8000-00000000000f"


class Seen(list[Progress]):
    """What an observer was told so far."""

    @property
    def last(self) -> Progress:
        return self[-1]


@asynccontextmanager
async def observed(
    engine: ComfyUI, ticket: Ticket
) -> AsyncGenerator[tuple[Seen, asyncio.Task[None]]]:
    seen = Seen()

    async def watch() -> None:
        async for progress in engine.observe(ticket):
            seen.append(progress)

    task = asyncio.create_task(watch())
    try:
        yield seen, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def submitted(engine: ComfyUI, **fields: Any) -> Ticket:
    made = job(**fields)
    return await engine.submit(engine.ticket(made), made)


# Locating.


async def test_a_job_is_found_waiting_running_and_done(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    assert await engine.locate(ticket) is Located.QUEUED
    server.run(ticket.remote_id)
    assert await engine.locate(ticket) is Located.RUNNING
    server.finish(ticket.remote_id)
    assert await engine.locate(ticket) is Located.DONE


async def test_the_queue_is_asked_before_the_history(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    server.calls.clear()

    def ended_meanwhile(_: Any) -> Response:
        answer = JSONResponse({"queue_running": [], "queue_pending": []})
        server.finish(ticket.remote_id)
        return answer

    server.script("GET /queue", ended_meanwhile)
    assert await engine.locate(ticket) is Located.DONE
    assert [c.path.split("/")[1] for c in server.calls] == ["queue", "history"]


async def test_it_is_asked_twice_before_a_job_counts_as_gone(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    empty = JSONResponse({"queue_running": [], "queue_pending": []})
    server.script("GET /queue", empty)
    assert await engine.locate(ticket) is Located.QUEUED
    server.forget_everything()
    server.calls.clear()
    assert await engine.locate(ticket) is Located.GONE
    assert server.count("GET /queue") == 2


async def test_a_picture_that_outlived_its_server_is_done(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    server.saved(server.graph(ticket.remote_id))
    server.forget_everything()
    assert await engine.locate(ticket) is Located.DONE


async def test_half_a_picture_is_not(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    server.saved(server.graph(ticket.remote_id))
    (place,) = server.files
    server.files[place] = PNG[:-4]
    server.forget_everything()
    assert await engine.locate(ticket) is Located.GONE


def test_the_pending_list_is_a_heap_and_is_put_in_order() -> None:
    for recording in recorded("queues"):
        queue = parse_queue(recording)
        numbers = [item.number for item in queue.pending]
        assert numbers == sorted(numbers)
        last = queue.pending[-1].prompt_id
        assert queue.before(last) == len(queue.running) + len(queue.pending) - 1
    unsorted = [[i[0] for i in r["queue_pending"]] for r in recorded("queues")]
    assert any(numbers != sorted(numbers) for numbers in unsorted), "these recordings prove nothing"


# Observing.


async def test_progress_comes_from_messages_and_the_end_from_history(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    async with observed(engine, ticket) as (seen, task):
        await until(lambda: seen and seen.last.phase is Phase.QUEUED)
        server.run(prompt)
        await server.say(me, "execution_start", prompt_id=prompt)
        sampler = next(k for k, n in server.graph(prompt).items() if n["class_type"] == "KSampler")
        await server.say(me, "executing", node=sampler, prompt_id=prompt)
        await server.say(me, "progress", node=sampler, value=2, max=3, prompt_id=prompt)
        await until(lambda: seen.last.phase is Phase.SAMPLING and seen.last.step == 2)
        assert seen.last.steps == 3
        assert seen.last.message == "Sample, step 2 of 3"
        assert seen.last.fraction == pytest.approx(2 / 9)
        await server.say(me, "execution_success", prompt_id=prompt)
        assert not task.done(), "the history does not have it yet"
        server.finish(prompt)
        await server.say(me, "executing", node=None, prompt_id=prompt)
        await asyncio.wait_for(task, 5)
    assert (seen.last.phase, seen.last.fraction) == (Phase.DONE, 1.0)


async def test_somebody_elses_work_before_ours_is_not_a_stall(
    engine: ComfyUI, server: Scripted
) -> None:
    server.running.append([0, "foreign", {"1": {"class_type": "X", "inputs": {}}}, {}, []])
    server.pending.append([0.5, "foreign too", {}, {}, []])
    server.number = 7
    ticket = await submitted(engine)
    async with observed(engine, ticket) as (seen, _):
        await until(lambda: seen)
        assert (seen.last.phase, seen.last.position) == (Phase.WAITING, 2)
        server.running.clear()
        server.pending.pop(0)
        await until(lambda: seen.last.phase is Phase.QUEUED)
        assert seen.last.position == 0


async def test_our_own_job_before_ours_is_a_queue(engine: ComfyUI, server: Scripted) -> None:
    first = await submitted(engine)
    second = await submitted(engine, index=1)
    server.run(first.remote_id)
    async with observed(engine, second) as (seen, _):
        await until(lambda: seen)
        assert (seen.last.phase, seen.last.position) == (Phase.QUEUED, 1)


async def test_messages_about_others_change_nothing(engine: ComfyUI, server: Scripted) -> None:
    ticket = await submitted(engine)
    me = ticket.data["client_id"]
    server.run(ticket.remote_id)
    async with observed(engine, ticket) as (seen, _):
        await server.say(me, "progress", node="5", value=9, max=9, prompt_id=OTHER)
        await server.say(me, "execution_success", prompt_id=OTHER)
        await server.say(me, "executing", node=None, prompt_id=OTHER)
        await server.sockets[me].send_text("no json at all")
        await server.say(me, "progress", node="5", value=1, max=3, prompt_id=ticket.remote_id)
        await until(lambda: seen and seen.last.step)
        assert (seen.last.step, seen.last.steps) == (1, 3)


@pytest.mark.parametrize("with_metadata", [True, False])
async def test_previews_find_their_job(
    engine: ComfyUI, server: Scripted, *, with_metadata: bool
) -> None:
    ticket = await submitted(engine)
    me = ticket.data["client_id"]
    server.run(ticket.remote_id)
    about = {"prompt_id": ticket.remote_id, "node_id": "5"} if with_metadata else None
    async with observed(engine, ticket) as (seen, _):
        if with_metadata:
            await server.show(me, b"foreign", {"prompt_id": OTHER})
            await server.sockets[me].send_bytes(b"\0\0")
            await server.sockets[me].send_bytes(b"\0\0\0\x04\xff\xff\xff\xffxx")
            await server.sockets[me].send_bytes(b"\0\0\0\x03\0\0\0\x01xtext")
        else:
            await server.show(me, b"before anything of ours", None)
            await server.say(me, "progress", node="5", value=1, max=3, prompt_id=ticket.remote_id)
        await server.show(me, b"image", about)
        await until(lambda: [p for p in seen if p.preview])
    assert {p.preview for p in seen} - {None} == {b"image"}


async def test_a_lost_connection_never_ends_an_observation(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    broken = [Response(status_code=s) for s in (503, 500, 401)] + [PlainTextResponse("<html>")]
    async with observed(engine, ticket) as (seen, task):
        await until(lambda: seen)
        server.script("GET /queue", *broken)
        await until(lambda: not server.scripts["GET /queue"])
        server.finish(ticket.remote_id)
        await asyncio.wait_for(task, 5)
    assert seen.last.phase is Phase.DONE


async def test_an_observation_ends_when_the_server_forgot_the_job(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    async with observed(engine, ticket) as (seen, task):
        await until(lambda: seen)
        server.forget_everything()
        await asyncio.wait_for(task, 5)
    assert seen.last.phase is not Phase.DONE


async def test_an_observer_that_looked_before_the_job_was_sent_looks_anew(
    engine: ComfyUI, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Longer than the test: a look that did not find it must not count again with each message.
    monkeypatch.setattr(following, "POLL_S", 30.0)
    monkeypatch.setattr(following, "POLL_WITHOUT_PUSH_S", 30.0)
    made = job()
    ticket = engine.ticket(made)
    async with observed(engine, ticket) as (seen, task):
        submitting = asyncio.create_task(engine.submit(ticket, made))
        await until(lambda: server.count("GET /queue"))
        sent = await submitting
        server.run(sent.remote_id)
        for step in (1, 2, 3):
            await server.say(
                sent.data["client_id"],
                "progress",
                node="5",
                value=step,
                max=40,
                prompt_id=sent.remote_id,
            )
            await until(lambda step=step: task.done() or (seen and seen.last.step == step))
            assert not task.done()


async def test_an_observation_may_begin_before_the_job_is_sent(
    engine: ComfyUI, server: Scripted
) -> None:
    release = asyncio.Event()

    async def slowly(call: Any) -> Response:
        await release.wait()
        return server.accept(call.json)

    server.script("POST /prompt", slowly)
    ticket = engine.ticket(job())
    submitting = asyncio.create_task(engine.submit(ticket, job()))
    async with observed(engine, ticket) as (seen, task):
        await until(lambda: server.count("GET /queue") > 4)
        assert not task.done()
        release.set()
        await submitting
        await until(lambda: seen and seen.last.phase is Phase.QUEUED)


# Sockets.


async def test_every_session_has_an_id_of_its_own(server: Scripted) -> None:
    for attempt in (1, 2):
        async with ComfyUI(config(server)) as engine:
            await submitted(engine, attempt=attempt)
    assert len(set(server.opened)) == 2


async def test_a_cut_socket_is_opened_again_and_progress_goes_on(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.run(prompt)
    async with observed(engine, ticket) as (seen, task):
        await server.sockets[me].close(1011)
        await until(lambda: server.opened.count(me) == 2 and me in server.sockets)
        # What a reconnect is told: which node runs, but not of which prompt.
        await server.say(me, "executing", node="5")
        await server.say(me, "progress", node="5", value=3, max=3, prompt_id=prompt)
        await until(lambda: seen and seen.last.step == 3)
        server.finish(prompt)
        await asyncio.wait_for(task, 5)
    assert seen.last.phase is Phase.DONE


async def test_a_silent_socket_is_replaced_while_our_prompt_runs(
    engine: ComfyUI, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENCE_S", 0.2)
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.run(prompt)
    async with observed(engine, ticket) as (seen, task):
        # The first connection was closed on both ends, so its id is used again: no zombie.
        await until(lambda: server.opened == [me, me] and me in server.sockets)
        await server.say(me, "progress", node="5", value=1, max=3, prompt_id=prompt)
        await until(lambda: seen.last.step == 1)
        server.finish(prompt)
        await asyncio.wait_for(task, 5)


async def test_a_zombie_socket_does_not_keep_the_result(
    engine: ComfyUI, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SILENCE_S", 0.2)
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.sockets.pop(me)  # it stays open, and nobody writes to it any more
    server.run(prompt)
    async with observed(engine, ticket) as (seen, task):
        await until(lambda: len(server.opened) == 2)
        server.finish(prompt)
        await asyncio.wait_for(task, 5)
    assert seen.last.phase is Phase.DONE


async def test_without_a_socket_the_end_is_found_by_polling_and_is_no_stall(
    server: Scripted,
) -> None:
    server.refuse_sockets = True
    async with ComfyUI(config(server)) as engine:
        ticket = await submitted(engine)
        server.run(ticket.remote_id)
        async with observed(engine, ticket) as (seen, task):
            await until(lambda: seen)
            assert seen.last.phase is Phase.WAITING, "steps that nobody tells are no stall"
            assert "no progress" in seen.last.message
            server.finish(ticket.remote_id)
            await asyncio.wait_for(task, 5)
    assert seen.last.phase is Phase.DONE
    assert len(server.handshake_headers) == 1


async def test_a_later_session_takes_the_messages_of_an_earlier_one_over(
    server: Scripted,
) -> None:
    async with ComfyUI(config(server)) as earlier:
        ticket = await submitted(earlier)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.run(prompt)
    async with ComfyUI(config(server)) as later, observed(later, ticket) as (seen, _):
        await until(lambda: server.opened == [me, me] and me in server.sockets)
        await server.say(me, "progress", node="5", value=2, max=3, prompt_id=prompt)
        await until(lambda: seen and seen.last.step == 2)
        assert seen.last.fraction == pytest.approx(2 / 9), "the graph is read from the queue"


async def test_a_frame_of_many_megabytes_does_not_close_the_socket(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await submitted(engine)
    me, prompt = ticket.data["client_id"], ticket.remote_id
    server.run(prompt)
    async with observed(engine, ticket) as (seen, _):
        await server.show(me, bytes(9 * 2**20), {"prompt_id": prompt})
        await server.say(me, "progress", node="5", value=2, max=3, prompt_id=prompt)
        await until(lambda: seen and seen.last.step == 2)
    assert server.opened == [me]


async def test_a_restart_is_noticed_by_its_numbers(engine: ComfyUI, server: Scripted) -> None:
    server.number = 40
    first = await submitted(engine)
    async with observed(engine, first) as (seen, task):
        await until(lambda: seen)
        server.forget_everything()
        await submitted(engine, index=1)
        await asyncio.wait_for(task, 2)
    assert seen.last.phase is not Phase.DONE


async def test_pings_are_ours_because_the_server_sends_none() -> None:
    assert 0 < socket.PING_S <= 30
