"""Lending warm processes; no process is started here but where a test says so."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
import pytest_asyncio
from typing_extensions import override

from stablequeue.errors import Refused
from stablequeue.worker.channel import Message
from stablequeue.worker.runners import CAN_FORK, Runners
from stablequeue.worker.warm_process import Runner

NOBODY = "http://127.0.0.1:9/api"


def _hear(runner: Runner, message: Message) -> None:
    del runner, message


class Slow(Runners):
    """Its processes are ready when `may_start` says so, and none stands ready before."""

    def __init__(self) -> None:
        super().__init__(_hear, spare=0)
        self.may_start = asyncio.Event()
        self.fails = False

    @override
    async def _start_one(self) -> Runner:
        await self.may_start.wait()
        if self.fails:
            message = "no memory"
            raise Refused(message)
        return self._new(reusable=True)

    @override
    async def _wait_ready(self, runner: Runner) -> None:
        del runner


async def _taken(runners: Runners) -> "asyncio.Task[Runner]":
    taking = asyncio.create_task(runners.take())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not taking.done()
    return taking


async def test_a_run_that_waits_for_a_new_process_gets_one_that_becomes_free_earlier() -> None:
    runners = Slow()
    runners.may_start.set()
    busy = await runners.take()
    runners.may_start.clear()
    first, second = await _taken(runners), await _taken(runners)
    runners.give_back(busy)
    assert await first is busy
    runners.may_start.set()
    assert await second is not busy


async def test_who_does_not_wait_any_more_takes_no_process_from_others() -> None:
    runners = Slow()
    gone, other = await _taken(runners), await _taken(runners)
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    runners.may_start.set()
    one = await other
    assert await runners.take() is not one


async def test_a_process_that_cannot_be_started_is_told_to_who_waits_for_it() -> None:
    runners = Slow()
    runners.fails = True
    waiting = await _taken(runners)
    runners.may_start.set()
    with pytest.raises(Refused, match="no memory"):
        await waiting


async def _template(runners: Runners, *, other_than: int) -> int:
    async with asyncio.timeout(80):
        while runners.template_pid in {0, other_than}:  # noqa: ASYNC110 - a process tells nobody
            await asyncio.sleep(0.05)
    return runners.template_pid


@pytest_asyncio.fixture
async def forked(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Runners]:
    """Give real processes, forked from a template; no run is given to them."""
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)
    monkeypatch.setenv("PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED", "false")
    runners = Runners(_hear)
    await runners.start()
    yield runners
    await runners.close()


@pytest.mark.skipif(not CAN_FORK, reason="forks")
@pytest.mark.timeout(180)
async def test_a_killed_template_is_replaced_and_a_run_ends_with_the_process_that_never_read_it(
    forked: Runners,
) -> None:
    """Its connection is reset then, not closed; and with its template gone nobody tells its end."""
    runner = await forked.take()
    before = await _template(forked, other_than=0)
    os.kill(before, signal.SIGKILL)
    await _template(forked, other_than=before)  # before somebody needs it
    os.kill(runner.pid, signal.SIGSTOP)
    performing = asyncio.create_task(runner.perform({"run": {"id": "r"}}))
    await asyncio.sleep(0)  # the order is written
    os.kill(runner.pid, signal.SIGKILL)
    async with asyncio.timeout(20):
        assert await performing < 0
    assert not runner.lives


@pytest.mark.skipif(not CAN_FORK, reason="forks")
@pytest.mark.timeout(180)
async def test_a_process_asked_of_a_template_that_never_read_it_comes_from_the_next(
    forked: Runners,
) -> None:
    before = await _template(forked, other_than=0)
    first = await forked.take()
    os.kill(before, signal.SIGSTOP)
    taking = [asyncio.create_task(forked.take()) for _ in range(2)]  # one stands ready, at most
    template = cast("Any", forked)._template
    async with asyncio.timeout(20):
        while not template._asked:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
    os.kill(before, signal.SIGKILL)
    async with asyncio.timeout(80):
        taken = await asyncio.gather(*taking)
    assert len({first.pid, *(runner.pid for runner in taken)}) == 3


@pytest.mark.skipif(not CAN_FORK, reason="forks")
@pytest.mark.timeout(180)
async def test_a_forked_process_that_cannot_start_says_why(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", NOBODY)  # asked for its version before anything else
    runners = Runners(_hear, spare=0)
    await runners.start()
    try:
        with pytest.raises(Refused, match="the lines above say why"):
            await runners.take()
    finally:
        await runners.close()
    assert "Failed to reach API" in capfd.readouterr().err
