"""SIGTERM reaches a flow wherever it strikes, once, and lets it finish what it must."""

import asyncio
import contextvars
import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
from prefect.exceptions import TerminationSignal
from prefect.utilities import engine
from prefect.utilities.engine import capture_sigterm

from stablequeue.worker.stopping import run_stoppable, tell_flows

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")


@pytest.fixture(autouse=True)
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "_prefect_sigterm_handler"
    monkeypatch.setattr(engine, name, getattr(engine, name))  # put back afterwards
    tell_flows()


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def played(loop: asyncio.Runner, flow: Callable[[], Coroutine[Any, Any, None]]) -> int:
    """Run a flow as Prefect's engine does; return the signal that ended it."""

    async def whole() -> None:
        with capture_sigterm():
            await flow()

    try:
        run_stoppable(loop, whole(), contextvars.copy_context())
    except TerminationSignal as end:
        return int(end.signal)
    return 0


async def _for_ever() -> None:
    await asyncio.Event().wait()


def test_a_signal_that_strikes_in_a_callback_is_not_lost(loop: asyncio.Runner) -> None:
    async def flow() -> None:
        asyncio.get_running_loop().call_soon(terminate)
        await _for_ever()

    assert played(loop, flow) == signal.SIGTERM


def test_a_signal_that_strikes_in_another_task_stops_the_flow_and_not_that_task(
    loop: asyncio.Runner,
) -> None:
    seen: list[str] = []

    async def struck() -> None:
        terminate()
        await asyncio.sleep(0)
        seen.append("went on")

    async def flow() -> None:
        beside = asyncio.create_task(struck())
        try:
            await _for_ever()
        except asyncio.CancelledError:
            await beside
            raise

    assert played(loop, flow) == signal.SIGTERM
    assert seen == ["went on"]


def test_what_is_sent_because_of_the_end_is_sent_to_its_end(loop: asyncio.Runner) -> None:
    """A task that answers its cancelling must not be cancelled a second time meanwhile."""
    sent: list[str] = []

    async def worker() -> None:
        try:
            await _for_ever()
        except asyncio.CancelledError:
            for _ in range(20):
                await asyncio.sleep(0)
            sent.append("interrupt")
            raise

    async def flow() -> None:
        task = asyncio.create_task(worker())
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(terminate)
        try:
            await _for_ever()
        except asyncio.CancelledError:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

    assert played(loop, flow) == signal.SIGTERM
    assert sent == ["interrupt"]


def test_a_second_signal_does_not_break_off_the_clean_up(loop: asyncio.Runner) -> None:
    done: list[str] = []

    async def flow() -> None:
        asyncio.get_running_loop().call_soon(terminate)
        try:
            await _for_ever()
        except asyncio.CancelledError:
            terminate()
            await asyncio.sleep(0)
            done.append("cleaned up")
            raise

    assert played(loop, flow) == signal.SIGTERM
    assert done == ["cleaned up"]


def test_what_a_flow_leaves_behind_is_ended_and_the_next_one_runs(loop: asyncio.Runner) -> None:
    left: list[asyncio.Task[None]] = []

    async def flow() -> None:
        left.append(asyncio.create_task(_for_ever()))

    assert played(loop, flow) == 0
    assert left[0].cancelled()
    assert played(loop, flow) == 0


def test_outside_a_loop_the_signal_is_raised_as_prefect_does() -> None:
    handler = engine._prefect_sigterm_handler  # pyright: ignore[reportPrivateUsage]
    with pytest.raises(TerminationSignal) as raised:
        handler(signal.SIGTERM)
    assert raised.value.signal == signal.SIGTERM
