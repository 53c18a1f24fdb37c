"""Several requests at once, of which the first failure is told and the rest are stopped."""

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def together(coroutines: Iterable[Coroutine[Any, Any, T]], at_once: int = 8) -> list[T]:
    """Run coroutines, at most `at_once` at a time; return their results in the given order.

    Unlike a TaskGroup it raises the first failure itself, not a group of them.
    """
    gate = asyncio.Semaphore(at_once)

    async def gated(coroutine: Coroutine[Any, Any, T]) -> T:
        async with gate:
            return await coroutine

    waiting = list(coroutines)
    tasks = [asyncio.create_task(gated(coroutine)) for coroutine in waiting]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for coroutine in waiting:
            coroutine.close()  # those that never started would warn otherwise
