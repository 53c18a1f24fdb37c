"""Finishing what a cancellation must not cut off."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Await `work` to its end even when cancelled meanwhile; the cancellation follows it.

    Raises:
        CancelledError: It was cancelled meanwhile, or `work` was.
    """
    task = asyncio.ensure_future(work)
    cancelled = await _to_its_end(task)
    if cancelled is not None:
        raise cancelled
    return task.result()


async def the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await `work`, which answers a cancellation, to its end; further ones ask for nothing new."""
    task = asyncio.ensure_future(work)
    await _to_its_end(task)
    return task.result()


def forget_cancels() -> None:
    """Let the current task go on as if nobody had cancelled it."""
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()


async def _to_its_end(task: "asyncio.Task[Any]") -> asyncio.CancelledError | None:
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    return cancelled
