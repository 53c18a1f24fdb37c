"""Waiting for something instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def wait_until(
    what: Callable[[], T], *, timeout_s: float = 20.0, every_s: float = 0.05, why: str = ""
) -> T:
    """Return the first true value of `what()`; fail when there is none in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := what():
            return value
        if time.monotonic() > deadline:
            pytest.fail(f"not within {timeout_s:g} s: {why or what}")
        time.sleep(every_s)
