"""Waiting for something instead of sleeping."""

import time
from collections.abc import Callable
from typing import TypeVar

import pytest

T = TypeVar("T")


def wait_until(
    what: Callable[[], T], *, timeout_s: float = 20.0, every_s: float | None = None, why: str = ""
) -> T:
    """Return the first true value of `what()`; fail when there is none in time.

    Without `every_s` it looks less often the longer it takes: asking a server 20 times a second is
    a good part of what that server does.
    """
    began = time.monotonic()
    while True:
        if value := what():
            return value
        passed = time.monotonic() - began
        if passed > timeout_s:
            pytest.fail(f"not within {timeout_s:g} s: {why or what}")
        time.sleep(min(0.3, max(0.05, passed / 10)) if every_s is None else every_s)
