"""Several calls at the same time."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

CALLS_AT_ONCE = 4
"""More only wait for each other in Prefect's one process."""

T = TypeVar("T")
R = TypeVar("R")


def each(items: Sequence[T], act: Callable[[T], R]) -> list[R]:
    """Do one call for each of many things, some at the same time; the first failure is raised.

    Returns:
        What the calls returned, in the order of `items`.
    """
    if len(items) <= 1:
        return [act(item) for item in items]
    with ThreadPoolExecutor(max_workers=CALLS_AT_ONCE) as pool:
        return list(pool.map(act, items))
