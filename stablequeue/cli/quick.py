"""Importing httpx without what we never use of it: its own command line and HTTP/2.

`import httpx` also imports httpx's command line when click, pygments and rich are installed (they
are), and HTTP/2 when h2 is. That is two thirds of its time, and httpx itself leaves both out
cleanly where these packages are missing.
"""

import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import cast

_LEFT_OUT = ("httpx._main", "h2")


@contextmanager
def quick_httpx() -> Generator[None]:
    """Let whoever imports httpx inside get it quickly; nothing changes if it is imported."""
    absent = () if "httpx" in sys.modules else _LEFT_OUT
    names = [name for name in absent if name not in sys.modules]
    for name in names:
        sys.modules[name] = cast("ModuleType", None)  # as Python marks what is known not to be
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
