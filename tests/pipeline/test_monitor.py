"""Following: what people see of a job, and when it counts as stalled."""

import asyncio
from types import SimpleNamespace
from typing import Any, Self

import pytest

from stablequeue.engines.base import Phase, Progress, Ticket
from stablequeue.errors import EngineStalled, PrefectUnreachable, ProtocolError
from stablequeue.pipeline import monitor as monitor_module
from stablequeue.pipeline.generate import generate
from stablequeue.pipeline.job import Job, Live
from stablequeue.pipeline.monitor import SLOW_STEPS, Snapshot, StallWatch, monitor
from tests.pipeline.conftest import Bench
from tests.pipeline.scripted import HANG


class Clock:
    """Time as the test says."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class Watched:
    """A job that is followed while the block lasts."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.seen: list[Snapshot] = []
        self.faults: list[Exception] = []
        self._until = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def report(self, snapshot: Snapshot) -> None:
        if self.faults:
            raise self.faults.pop(0)
        self.seen.append(snapshot)

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(monitor(self.job, self.report, self._until))
        return self

    async def __aexit__(self, *_details: object) -> None:
        self._until.set()
        assert self._task
        await self._task

    def announce(self, index: int = 0) -> Live:
        """Say that a picture is on the server, as `generate` does."""
        stalled: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        ticket = Ticket(engine="comfyui", remote_id=f"{index}-1")
        live = Live(index=index, ticket=ticket, stalled=stalled)
        self.job.live.put_nowait(live)
        return live

    async def until(self, *message: str) -> Snapshot:
        """Wait for a report with one of these messages."""
        while not (found := [one for one in self.seen if one.message in message]):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        return found[-1]


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Give the clock that stalls are measured with; reports come at once."""
    clock = Clock()
    monkeypatch.setattr(monitor_module, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(monitor_module, "REPORT_EVERY_S", 0.001)
    return clock


def sampling(step: int, **more: Any) -> Progress:
    fields: dict[str, Any] = {"fraction": step / 10, "step": step, "steps": 10, **more}
    return Progress(phase=Phase.SAMPLING, **fields)


def test_no_progress_for_long_is_a_stall_and_any_progress_begins_anew() -> None:
    watch = StallWatch(300, now=0)
    watch.seen(sampling(1), 10)
    assert watch.stalled_for(310) == 0
    assert watch.stalled_for(311) == 301
    watch.seen(sampling(1), 311)  # the same again is no progress
    assert watch.stalled_for(312) == 302
    watch.seen(sampling(2), 312)
    assert watch.stalled_for(600) == 0


def test_slow_steps_lengthen_the_patience() -> None:
    watch = StallWatch(300, now=0)
    watch.seen(sampling(1), 0)
    watch.seen(sampling(2), 100)
    assert watch.stalled_for(100 + 100 * SLOW_STEPS) == 0
    assert watch.stalled_for(101 + 100 * SLOW_STEPS) == 100 * SLOW_STEPS + 1


def test_loading_a_model_is_no_slow_step() -> None:
    watch = StallWatch(300, now=0)
    watch.seen(Progress(phase=Phase.LOADING), 0)
    watch.seen(sampling(1), 200)
    watch.seen(sampling(2), 201)
    assert watch.stalled_for(502) == 301


@pytest.mark.parametrize("phase", [Phase.LOADING, Phase.SAMPLING, Phase.FINISHING])
def test_a_phase_in_which_the_server_works_may_stall(phase: Phase) -> None:
    watch = StallWatch(300, now=0)
    watch.seen(Progress(phase=phase), 0)
    assert watch.stalled_for(1000) == 1000


@pytest.mark.parametrize("phase", [None, Phase.WAITING, Phase.QUEUED, Phase.DONE])
def test_waiting_its_turn_is_never_a_stall(phase: Phase | None) -> None:
    watch = StallWatch(300, now=0)
    if phase:
        watch.seen(Progress(phase=phase), 0)
    assert watch.stalled_for(1e9) == 0


async def test_a_stall_is_noticed_by_the_clock_and_the_remote_job_stopped(
    bench: Bench, clock: Clock
) -> None:
    job = bench.job()
    job.server = job.server.model_copy(update={"stall_after_s": 0.04})
    bench.engine.collects = [HANG]
    # The first ticket announced is followed while it is handed over, the second to its end.
    bench.engine.observations = [sampling(1), HANG, HANG]

    async with Watched(job) as watched:
        working = asyncio.create_task(generate(job))
        await watched.until("Step 1 of 10")
        clock.now += 1000
        with pytest.raises(EngineStalled, match=r"no progress for 1000 s; .*stablequeue retry"):
            await working

    assert bench.engine.calls[-1] == "cancel 0-1"


async def test_the_words_say_what_the_server_does(bench: Bench) -> None:
    steps = {
        "Waiting for somebody else on the server": Progress(phase=Phase.WAITING),
        "In the server's queue": Progress(phase=Phase.QUEUED),
        "In the server's queue, 3 ahead": Progress(phase=Phase.QUEUED, position=3),
        "Loading the model": Progress(phase=Phase.LOADING),
        "Sampling": Progress(phase=Phase.SAMPLING, fraction=0.1),
        "Step 2 of 10": sampling(2),
        "Finishing the picture": Progress(phase=Phase.FINISHING, fraction=0.9),
        "its own words": Progress(phase=Phase.FINISHING, fraction=0.9, message="its own words"),
    }
    for words, progress in steps.items():
        bench.engine.observations = [progress, HANG]
        async with Watched(bench.job()) as watched:
            watched.announce()
            snapshot = await watched.until(words)
        assert (snapshot.phase, snapshot.picture) == (progress.phase, 1)


async def test_the_share_done_never_goes_back_and_ends_at_one(bench: Bench) -> None:
    job = bench.job(count=2)
    gate = asyncio.Event()
    bench.engine.observations = [sampling(6, preview=b"png"), gate, sampling(2, message="again")]

    async with Watched(job) as watched:
        watched.announce()
        first = await watched.until("Step 6 of 10")
        gate.set()
        await watched.until("Made")
        job.made |= {0, 1}

    assert (first.fraction, first.preview) == (0.3, b"png")
    fractions = [one.fraction for one in watched.seen]
    assert fractions == sorted(fractions)
    last = watched.seen[-1]
    assert (last.phase, last.fraction, last.picture, last.message) == (Phase.DONE, 1.0, 2, "Made")


async def test_a_job_that_was_too_quick_to_see_is_still_reported_whole(bench: Bench) -> None:
    job = bench.job(count=3)
    async with Watched(job) as watched:
        job.made |= {0, 1, 2}
    assert watched.seen[-1] == Snapshot(Phase.DONE, 1.0, 3, 3, "Made")


async def test_nothing_known_is_nothing_told(bench: Bench) -> None:
    async with Watched(bench.job()) as watched:
        pass
    assert watched.seen == []


async def test_a_job_says_what_it_waits_for_before_it_has_begun(bench: Bench) -> None:
    job = bench.job()
    job.waiting_for = "the card host/0"
    async with Watched(job) as watched:
        snapshot = await watched.until("Waiting for the card host/0")
    assert (snapshot.phase, snapshot.fraction) == (Phase.WAITING, 0.0)


async def test_a_report_that_fails_is_tried_again(bench: Bench) -> None:
    job = bench.job()
    job.waiting_for = "the card"
    watched = Watched(job)
    watched.faults = [PrefectUnreachable("away"), PrefectUnreachable("still away")]
    async with watched:
        await watched.until("Waiting for the card")
    assert watched.faults == []


async def test_the_same_is_not_reported_twice(bench: Bench) -> None:
    job = bench.job()
    job.waiting_for = "one"
    async with Watched(job) as watched:
        await watched.until("Waiting for one")
        job.waiting_for = "two"
        await watched.until("Waiting for two")
    assert [one.message for one in watched.seen][:2] == ["Waiting for one", "Waiting for two"]


async def test_progress_that_cannot_be_followed_is_a_warning_and_no_failure(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    job = bench.job()
    bench.engine.observations = [ProtocolError("gpu-a", "nonsense")]
    async with Watched(job) as watched:
        live = watched.announce()
        while "progress cannot be followed: gpu-a: nonsense" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert not live.stalled.done()


async def test_a_ticket_announced_again_is_followed_once(bench: Bench) -> None:
    job = bench.job()
    bench.engine.observations = [HANG, HANG]
    async with Watched(job) as watched:
        watched.announce()
        while bench.engine.waiting < 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        watched.announce()
        while len(bench.engine.calls) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        while bench.engine.waiting > 1:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    assert bench.engine.waiting == 0
    assert bench.engine.calls == ["observe 0-1", "observe 0-1"]
