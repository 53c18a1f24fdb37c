"""What a cancellation must not cut off ends, and the cancellation comes after it."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from stablequeue.uninterrupted import forget_cancels, the_end, uninterrupted

Await = Callable[[Coroutine[Any, Any, str]], Coroutine[Any, Any, str]]


async def _cancelled_twice(await_: Await, work: Callable[[], str]) -> "asyncio.Task[str]":
    go_on = asyncio.Event()

    async def slow() -> str:
        await go_on.wait()
        return work()

    task = asyncio.create_task(await_(slow()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.wait({task}, timeout=0.02)
    assert not task.done()
    go_on.set()
    await asyncio.wait({task})
    return task


def _fails() -> str:
    message = "no"
    raise ValueError(message)


@pytest.mark.parametrize("work", [lambda: "done", _fails])
async def test_the_cancellation_follows_the_work(work: Callable[[], str]) -> None:
    assert (await _cancelled_twice(uninterrupted, work)).cancelled()


async def test_the_end_is_what_the_work_says() -> None:
    assert (await _cancelled_twice(the_end, lambda: "done")).result() == "done"
    with pytest.raises(ValueError, match="no"):
        (await _cancelled_twice(the_end, _fails)).result()


async def test_undisturbed_work_gives_its_result() -> None:
    async def answer() -> str:
        return "done"

    assert await uninterrupted(answer()) == await the_end(answer()) == "done"


async def test_forgotten_cancels_leave_the_task_as_it_was() -> None:
    async def stubborn() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            forget_cancels()
        await asyncio.sleep(0)
        current = asyncio.current_task()
        assert current is not None
        return current.cancelling()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    task.cancel()
    task.cancel()
    assert await task == 0
