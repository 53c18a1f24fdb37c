"""Making the pictures of a job: what is there is looked up, what is not is made, once."""

import asyncio
import errno
import os
from collections.abc import Coroutine
from typing import Any

import pytest

from stablequeue.catalogue import AttemptState, JobState, Outcome
from stablequeue.engines.base import Located, RawResult, Ticket
from stablequeue.errors import (
    EngineAuthFailed,
    EngineBusy,
    EngineStalled,
    EngineUnreachable,
    Interrupted,
    JobFailed,
    JobRejected,
    OutOfMemory,
    QueueError,
    Refused,
    ResultLost,
    StoreUnavailable,
)
from stablequeue.pipeline.generate import MOST_ATTEMPTS, generate
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.spool import attempt_folder, read_result, write_result
from tests.pipeline.conftest import Bench
from tests.pipeline.scripted import HANG, Scripted, picture


async def until(condition: Any) -> None:
    """Let other tasks go on until something is so; the test's own limit ends a wait for ever."""
    while not condition():  # noqa: ASYNC110 - a condition of threads and files
        await asyncio.sleep(0.001)


async def cancelled(work: Coroutine[Any, Any, Any], when: Any) -> None:
    """Cancel some work when something is so, and see it end so."""
    task = asyncio.create_task(work)
    await until(when)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def open_attempt(bench: Bench, job: Job, *, server: str = "gpu-a") -> int:
    """Leave an attempt as a process that died has left it; return its id."""
    ticket = Ticket(engine="comfyui", remote_id="0-1")
    return bench.catalogue.begin_attempt(
        job.id, 0, server=server, engine="comfyui", make_ticket=lambda _: ticket
    ).id


async def test_every_picture_is_made_once_and_at_most_as_many_as_the_engine_likes_at_once(
    bench: Bench,
) -> None:
    job = bench.job(count=5)
    go_on = asyncio.Event()
    bench.engine.ends = {"0-1": go_on, "1-1": go_on}
    working = asyncio.create_task(generate(job))
    await until(lambda: bench.engine.waiting == 2)
    go_on.set()

    assert await working == []

    assert bench.engine.most_at_once == bench.engine.depth == 2
    begun = [call for call in bench.engine.calls if call.startswith("submit")]
    assert sorted(begun) == [f"submit {index}-1" for index in range(5)]
    assert bench.states(job) == [f"{index}-1 collected" for index in range(5)]
    assert job.made == set(range(5))
    assert job.in_flight == {}

    again = bench.job(job.id)
    bench.engine.calls.clear()
    assert await generate(again) == []
    assert bench.engine.calls == []
    assert again.made == set(range(5))


async def test_a_result_that_lies_complete_in_the_spool_is_taken_without_asking_the_server(
    bench: Bench,
) -> None:
    job = bench.job()
    open_attempt(bench, job)
    folder = attempt_folder(job.spool, 0, 1)
    write_result(folder, RawResult(assets=(picture(folder),)))

    assert await generate(job) == []

    assert bench.engine.calls == []
    assert bench.states(job) == ["0-1 collected"]


@pytest.mark.parametrize("where", [Located.QUEUED, Located.RUNNING, Located.DONE])
async def test_a_ticket_the_server_knows_is_followed_and_nothing_is_made_again(
    bench: Bench, where: Located
) -> None:
    job = bench.job()
    open_attempt(bench, job)
    bench.engine.locates = [where]

    assert await generate(job) == []

    assert bench.engine.calls == ["locate 0-1", "collect 0-1"]
    assert bench.states(job) == ["0-1 collected"]


async def test_a_cancelled_job_that_goes_on_follows_what_still_runs(bench: Bench) -> None:
    job = bench.job()
    attempt = open_attempt(bench, job)
    bench.catalogue.update_attempt(attempt, AttemptState.CANCELLING)

    await generate(job)

    assert bench.states(job) == ["0-1 collected"]


async def test_a_result_whose_spool_is_gone_is_fetched_again(bench: Bench) -> None:
    job = bench.job()
    await generate(job)
    folder = attempt_folder(job.spool, 0, 1)
    (folder / "0.png").unlink()
    assert read_result(folder) is None
    bench.engine.calls.clear()

    await generate(bench.job(job.id))

    assert bench.engine.calls == ["locate 0-1", "collect 0-1"]
    assert read_result(folder) is not None


async def test_what_the_server_does_not_have_is_begun_anew_under_another_id(bench: Bench) -> None:
    job = bench.job()
    open_attempt(bench, job)
    bench.engine.locates = [Located.GONE]

    await generate(job)

    assert bench.states(job) == ["0-1 gone", "0-2 collected"]
    first, second = bench.catalogue.attempts(job.id)
    assert first.note == "the server does not have it"
    assert first.ticket.remote_id != second.ticket.remote_id
    assert not second.repeat


async def test_where_nobody_can_look_one_repeat_is_made_and_recorded_and_no_second(
    bench: Bench,
) -> None:
    job = bench.job()
    open_attempt(bench, job)
    bench.engine.locates = [Located.UNKNOWN]
    bench.engine.collects = [EngineUnreachable("gpu-a", "it is away")]
    with pytest.raises(EngineUnreachable):
        await generate(job)
    assert bench.states(job) == ["0-1 gone", "0-2 open"]
    repeated = bench.catalogue.attempts(job.id)[1]
    assert repeated.repeat
    assert repeated.note.startswith("automatic repeat")

    bench.engine.locates = [Located.UNKNOWN]
    with pytest.raises(ResultLost, match="lost twice"):
        await generate(bench.job(job.id))

    assert bench.states(job) == ["0-1 gone", "0-2 failed"]
    assert sum(call.startswith("submit") for call in bench.engine.calls) == 1


async def test_a_ticket_of_another_server_is_given_up_and_the_picture_made_here(
    bench: Bench,
) -> None:
    job = bench.job()
    open_attempt(bench, job, server="gpu-b")

    await generate(job)

    assert bench.states(job) == ["0-1 gone", "0-2 collected"]
    assert "gpu-b" in bench.catalogue.attempts(job.id)[0].note
    assert not [call for call in bench.engine.calls if call.startswith("locate")]


async def test_a_picture_another_process_loses_again_and_again_is_given_up(bench: Bench) -> None:
    job = bench.job()
    open_attempt(bench, job)
    locate = bench.engine.locate

    async def begun_elsewhere(ticket: Ticket) -> Located:
        await locate(ticket)
        last = bench.catalogue.last_attempt(job.id, 0)
        assert last
        bench.catalogue.update_attempt(last.id, AttemptState.GONE)
        open_attempt(bench, job)
        return Located.GONE

    bench.engine.locate = begun_elsewhere
    with pytest.raises(ResultLost, match=f"lost {MOST_ATTEMPTS} times"):
        await generate(job)


async def test_another_ticket_the_server_chose_is_kept_for_who_comes_after(bench: Bench) -> None:
    job = bench.job()
    chosen = Ticket(engine="comfyui", remote_id="theirs", data={"as": "told"})
    bench.engine.submits = [chosen]

    await generate(job)

    (attempt,) = bench.catalogue.attempts(job.id)
    assert attempt.ticket == chosen
    assert bench.engine.calls[-1] == "collect theirs"


@pytest.mark.parametrize(
    ("error", "again"),
    [(JobRejected("gpu-a", "no such node"), False), (EngineUnreachable("gpu-a", "gone"), True)],
)
async def test_what_the_server_did_not_take_is_a_failed_attempt(
    bench: Bench, error: QueueError, again: bool
) -> None:
    job = bench.job()
    bench.engine.submits = [error]

    with pytest.raises(type(error)):
        await generate(job)
    assert bench.states(job) == ["0-1 failed"]
    assert bench.catalogue.attempts(job.id)[0].note == str(error)
    assert job.in_flight == {}

    if again:
        assert await generate(job) == []
        assert bench.states(job) == ["0-1 failed", "0-2 collected"]


@pytest.mark.parametrize(
    "error", [EngineUnreachable("gpu-a", "cut"), EngineAuthFailed("gpu-a", "401")]
)
async def test_a_lost_connection_leaves_the_ticket_to_be_looked_for(
    bench: Bench, error: QueueError
) -> None:
    job = bench.job()
    bench.engine.collects = [error]

    with pytest.raises(type(error)):
        await generate(job)
    assert bench.states(job) == ["0-1 open"]

    assert await generate(job) == []
    assert bench.states(job) == ["0-1 collected"]
    assert bench.engine.calls.count("submit 0-1") == 1


async def test_a_failure_ends_the_attempt_with_its_reason(bench: Bench) -> None:
    job = bench.job()
    bench.engine.collects = [JobFailed("gpu-a", "the node exploded")]

    with pytest.raises(JobFailed, match="the node exploded"):
        await generate(job)

    (attempt,) = bench.catalogue.attempts(job.id)
    assert (attempt.state, attempt.error) == (AttemptState.FAILED, "job_failed")
    assert "the node exploded" in attempt.note


@pytest.mark.parametrize("frees", [[], [EngineBusy("gpu-a", "somebody uses it")]])
async def test_a_picture_without_memory_is_tried_once_more_with_everything_else_unloaded(
    bench: Bench, frees: list[Any]
) -> None:
    job = bench.job(count=3)
    bench.engine.frees = frees
    bench.engine.ends = {"1-1": OutOfMemory("gpu-a", "12 GB are not enough")}

    assert await generate(job) == []

    assert bench.engine.calls.count("free") == 1
    assert bench.states(job) == ["0-1 collected", "1-1 failed", "1-2 collected", "2-1 collected"]


async def test_what_failed_for_another_reason_too_is_not_made_again_for_want_of_memory(
    bench: Bench,
) -> None:
    job = bench.job(count=2)
    bench.engine.ends = {
        "0-1": OutOfMemory("gpu-a", "12 GB are not enough"),
        "1-1": JobFailed("gpu-a", "the fan has stopped"),
    }

    with pytest.raises(OutOfMemory):
        await generate(job)

    assert "free" not in bench.engine.calls
    assert bench.states(job) == ["0-1 failed", "1-1 failed"]


async def test_a_picture_that_finds_no_memory_twice_fails(bench: Bench) -> None:
    job = bench.job()
    bench.engine.collects = [OutOfMemory("gpu-a", "12 GB are not enough") for _ in range(2)]

    with pytest.raises(OutOfMemory):
        await generate(job)

    asked = [call for call in bench.engine.calls if not call.startswith(("observe", "collect"))]
    assert asked == ["submit 0-1", "free", "submit 0-2"]
    assert bench.states(job) == ["0-1 failed", "0-2 failed"]


async def test_one_picture_that_fails_leaves_the_others_and_no_further_one_is_begun(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "depth", 1)
    job = bench.job(count=3)
    bench.engine.collects = [None, JobFailed("gpu-a", "no"), None]

    (failure,) = await generate(job)

    assert (failure.index, str(failure.error)) == (1, "gpu-a: no")
    assert bench.states(job) == ["0-1 collected", "1-1 failed"]


async def test_a_failure_that_may_go_away_is_raised_although_others_are_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scripted, "depth", 1)
    job = bench.job(count=2)
    bench.engine.collects = [None, Interrupted("gpu-a", "somebody stopped it")]

    with pytest.raises(Interrupted):
        await generate(job)
    assert await generate(job) == []

    assert bench.states(job) == ["0-1 collected", "1-1 failed", "1-2 collected"]


async def test_what_parks_the_server_is_raised_before_any_other_failure(bench: Bench) -> None:
    job = bench.job(count=2)
    refused = EngineAuthFailed("gpu-a", "401")
    bench.engine.ends = {"0-1": JobFailed("gpu-a", "no"), "1-1": refused}

    with pytest.raises(EngineAuthFailed):
        await generate(job)

    assert bench.states(job) == ["0-1 failed", "1-1 open"]


async def test_a_full_disk_while_fetching_parks_and_the_result_is_fetched_later(
    bench: Bench,
) -> None:
    job = bench.job()
    bench.engine.collects = [OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))]

    with pytest.raises(StoreUnavailable, match=r"spool: cannot write there: No space left.*room"):
        await generate(job)
    assert bench.states(job) == ["0-1 open"]

    assert await generate(job) == []
    assert bench.engine.calls.count("submit 0-1") == 1


async def test_a_disk_that_fills_while_the_result_is_noted_parks_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.job()

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as broken:
        broken.setattr("stablequeue.pipeline.spool.os.fsync", full)
        with pytest.raises(StoreUnavailable):
            await generate(job)
    assert bench.states(job) == ["0-1 open"]
    assert read_result(attempt_folder(job.spool, 0, 1)) is None

    assert await generate(job) == []


async def test_a_spool_that_cannot_be_made_parks_and_is_no_failure_of_the_job(
    bench: Bench,
) -> None:
    job = bench.job()
    bench.settings.spool.write_text("a file in the way")

    with pytest.raises(StoreUnavailable, match="spool"):
        await generate(job)
    assert bench.states(job) == ["0-1 open"]

    bench.settings.spool.unlink()
    assert await generate(job) == []


async def test_a_stall_stops_the_remote_job_and_may_be_tried_again(bench: Bench) -> None:
    job = bench.job()
    bench.engine.collects = [HANG]
    working = asyncio.create_task(generate(job))
    await job.live.get()  # of handing it over
    live = await job.live.get()
    await until(lambda: bench.engine.waiting)
    live.stalled.set_result("no progress for 300 s")

    with pytest.raises(EngineStalled, match="no progress for 300 s") as stalled:
        await working

    assert stalled.value.retryable
    assert bench.engine.calls[-1] == "cancel 0-1"
    assert bench.engine.waiting == 0
    assert bench.states(job) == ["0-1 cancelled"]
    assert await generate(job) == []


async def test_a_cancelled_job_is_stopped_on_its_server(bench: Bench) -> None:
    job = bench.job()
    bench.engine.collects = [HANG]
    await cancelled(generate(job), lambda: bench.engine.waiting)

    assert bench.engine.calls.count("cancel 0-1") == 1
    assert bench.states(job) == ["0-1 cancelled"]
    assert bench.engine.waiting == 0


@pytest.mark.parametrize("answer", [False, EngineUnreachable("gpu-a", "away"), HANG])
async def test_a_stop_the_server_does_not_confirm_is_left_to_be_settled(
    bench: Bench, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stablequeue.pipeline.generate._CANCEL_WITHIN_S", 0.02)
    job = bench.job()
    bench.engine.submits, bench.engine.cancels = [HANG], [answer]

    await cancelled(generate(job), lambda: bench.engine.waiting)

    assert bench.engine.calls == ["submit 0-1", "cancel 0-1"]
    assert bench.states(job) == ["0-1 cancelling"]


@pytest.mark.parametrize("step", ["submits", "collects"])
async def test_a_process_that_only_ends_itself_leaves_the_remote_job_running(
    bench: Bench, step: str
) -> None:
    async def no() -> bool:
        return False

    job = bench.job()
    job.wants_interrupt = no
    setattr(bench.engine, step, [HANG])
    await cancelled(generate(job), lambda: bench.engine.waiting)

    assert not [call for call in bench.engine.calls if call.startswith("cancel")]
    assert bench.states(job) == ["0-1 open"]


async def test_every_picture_under_way_is_stopped_when_the_job_is_cancelled(bench: Bench) -> None:
    job = bench.job(count=4)
    slow = asyncio.Event()
    bench.engine.collects, bench.engine.cancels = [HANG, HANG], [True, slow]

    async def answer_late() -> None:
        await until(lambda: any("cancelled" in state for state in bench.states(job)))
        for _ in range(50):  # time enough to end without it
            await asyncio.sleep(0.001)
        slow.set()

    answering = asyncio.create_task(answer_late())
    await cancelled(generate(job), lambda: bench.engine.waiting == 2)

    assert bench.engine.waiting == 0, "an interrupt was cut off"
    assert bench.states(job) == ["0-1 cancelled", "1-1 cancelled"]
    await answering


async def test_a_second_cancel_does_not_cut_off_the_interrupt_of_the_first(bench: Bench) -> None:
    job = bench.job()
    late = asyncio.Event()
    bench.engine.collects, bench.engine.cancels = [HANG], [late]
    making = asyncio.create_task(generate(job))
    await until(lambda: bench.engine.waiting)
    making.cancel()
    await until(lambda: "cancel 0-1" in bench.engine.calls)

    making.cancel()
    await asyncio.wait({making}, timeout=0.05)
    assert not making.done(), "it left while the server was being asked"
    late.set()

    with pytest.raises(asyncio.CancelledError):
        await making
    assert bench.states(job) == ["0-1 cancelled"]


async def test_a_job_cancelled_from_elsewhere_begins_no_further_picture(bench: Bench) -> None:
    job = bench.job()
    bench.catalogue.finish(job.id, Outcome(state=JobState.CANCELLED))

    with pytest.raises(Refused, match="was cancelled"):
        await generate(job)

    assert bench.engine.calls == []


async def test_two_servers_on_one_card_generate_one_after_the_other(bench: Bench) -> None:
    first, second = bench.job(), bench.job()
    bench.engine.collects = [HANG]
    running = asyncio.create_task(generate(first))
    await until(lambda: bench.engine.waiting)
    second.server = second.server.model_copy(update={"alias": "gpu-b"})

    waits = asyncio.create_task(generate(second))
    await until(lambda: second.waiting_for)
    assert second.waiting_for == "the card host/0"
    assert bench.engine.most_at_once == 1

    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await waits
    assert second.waiting_for == ""
    assert bench.states(second) == ["0-1 collected"]


async def test_a_job_cancelled_while_it_waits_for_the_card_has_asked_nothing(
    bench: Bench,
) -> None:
    first, second = bench.job(), bench.job()
    bench.engine.collects = [HANG]
    running = asyncio.create_task(generate(first))
    await until(lambda: bench.engine.waiting)
    bench.engine.calls.clear()

    await cancelled(generate(second), lambda: second.waiting_for)

    assert second.waiting_for == ""
    assert bench.engine.calls == []
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_job_that_was_not_resolved_is_not_generated(bench: Bench) -> None:
    job = bench.job()
    job.resolution = None

    with pytest.raises(Refused, match="not resolved"):
        await generate(job)

    assert bench.states(job) == []
