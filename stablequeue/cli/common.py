"""What every command has: options, settings, and ways to print."""

import json
import logging
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from stablequeue.cli.screen import Screen
from stablequeue.cli.text import one_line, visible
from stablequeue.errors import BadRequest

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.settings import Settings

_EVERYWHERE = Group("Options of every command", sort_key=100)


@Parameter(name="*", group=_EVERYWHERE)
@dataclass(frozen=True)
class Common:
    """Options that every command has, before or behind its name."""

    json: Annotated[bool, Parameter(help="Print one JSON document.")] = False
    verbose: Annotated[
        bool, Parameter(name=("--verbose", "-v"), help="Say more; show tracebacks.")
    ] = False
    quiet: Annotated[
        bool, Parameter(name=("--quiet", "-q"), help="Print results only, no notes.")
    ] = False
    home: Annotated[Path | None, Parameter(help="Folder for everything StableQueue keeps.")] = None
    setting: Annotated[
        list[str],
        Parameter(help="NAME=VALUE: a setting for this command; stablequeue config show."),
    ] = field(default_factory=list[str])

    def overrides(self) -> dict[str, Any]:
        """Return the settings given on the command line.

        Raises:
            BadRequest: One is not NAME=VALUE.
        """
        found: dict[str, Any] = {"home": self.home} if self.home else {}
        if not self.setting:
            return found
        from stablequeue.settings import PATH_LISTS  # noqa: PLC0415  # pydantic takes 0.1 s

        for item in self.setting:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise BadRequest("--setting", f"{item!r} is not NAME=VALUE")
            field_name = name.strip().replace("-", "_")
            several = field_name in PATH_LISTS
            found[field_name] = value.split(os.pathsep) if several else value
        return found

    def settings(self) -> "Settings":
        """Return the settings in force."""
        from stablequeue.settings import load  # noqa: PLC0415  # pydantic takes 0.1 s

        self.start_logging()
        return load(self.overrides())

    def client(self) -> "Client":
        """Return a client; use it with `with`."""
        from stablequeue.client import Client  # noqa: PLC0415

        return Client(self.settings())

    def start_logging(self) -> None:
        """Send our own log lines to stderr: with -v what is exchanged, else warnings."""
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(_OneLine("%(message)s"))
        logger = logging.getLogger("stablequeue")
        logger.handlers[:] = [handler]
        logger.propagate = False
        level = logging.ERROR if self.quiet else logging.WARNING
        logger.setLevel(logging.INFO if self.verbose else level)

    def note(self, text: str) -> None:
        """Print a remark to stderr, unless told to be quiet."""
        if not self.quiet:
            put(one_line(text), stderr=True)

    def say(self, text: str) -> None:
        """Print a line that only people want: nothing with --json or -q."""
        if not self.quiet and not self.json:
            put(one_line(text))

    def emit(self, data: Any, human: Callable[[Screen], None] | str) -> None:
        """Print a command's result: `data` with --json, else for people."""
        if self.json:
            # ASCII only: also characters that terminals obey are escaped.
            put(json.dumps(data, indent=2, default=str))
        elif isinstance(human, str):
            if human:
                put(visible(human))
        else:
            human(Screen())


DEFAULTS = Common()
"""What a command gets when none of its common options is given."""


def put(text: str, *, stderr: bool = False) -> None:
    """Print, at once."""
    print(text, file=sys.stderr if stderr else sys.stdout, flush=True)  # the one place


class _OneLine(logging.Formatter):
    """Log lines may quote servers and prompts."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))
