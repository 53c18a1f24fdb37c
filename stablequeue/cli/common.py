"""What every command has: options, settings, and ways to print."""

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from stablequeue.cli.text import one_line, visible
from stablequeue.errors import BadRequest

if TYPE_CHECKING:
    from rich.console import Console

    from stablequeue.client import Client
    from stablequeue.settings import Settings

_EVERYWHERE = Group("Options of every command", sort_key=100)
_PIPE_WIDTH = 1000


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
        for item in self.setting:
            name, equals, value = item.partition("=")
            if not equals or not name:
                raise BadRequest("--setting", f"{item!r} is not NAME=VALUE")
            field_name = name.strip().replace("-", "_")
            several = field_name == "input_folders"
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

    def emit(self, data: Any, human: "Callable[[Console], None] | str") -> None:
        """Print a command's result: `data` with --json, else for people."""
        if self.json:
            # ASCII only: also characters that terminals obey are escaped.
            put(json.dumps(data, indent=2, default=str))
        elif isinstance(human, str):
            if human:
                put(visible(human))
        else:
            human(console())


DEFAULTS = Common()
"""What a command gets when none of its common options is given."""


def put(text: str, *, stderr: bool = False) -> None:
    """Print, at once."""
    print(text, file=sys.stderr if stderr else sys.stdout, flush=True)  # the one place


class _OneLine(logging.Formatter):
    """Log lines may quote servers and prompts."""

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


def console(*, stderr: bool = False) -> "Console":
    """Return a console for people; what goes into a pipe is neither cut nor wrapped."""
    from rich.console import Console  # noqa: PLC0415  # 0.1 s, and --json does not need it

    made = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not made.is_terminal:
        made.width = _PIPE_WIDTH
    return made


def show_table(
    target: "Console",
    headers: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    flexible: int | None = None,
    styles: Callable[[int, int], str] | None = None,
) -> None:
    """Print a table.

    Args:
        target: Where.
        headers: Of the columns.
        rows: Any text; made fit for a terminal here.
        flexible: Column that is cut so that each row fits one line.
        styles: Gives a cell's style for (row, column).
    """
    from rich.cells import cell_len, set_cell_size  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    cells = [[one_line(cell) for cell in row] for row in rows]
    if flexible is not None:
        widths = [
            max(cell_len(text) for text in (header, *(row[at] for row in cells)))
            for at, header in enumerate(headers)
        ]
        others = sum(width + 2 for at, width in enumerate(widths) if at != flexible)
        room = max(12, target.width - others - 1)
        for row in cells:
            if cell_len(row[flexible]) > room:
                row[flexible] = set_cell_size(row[flexible], room - 1) + "…"
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for header in headers:
        table.add_column(header, no_wrap=True, overflow="ignore")
    for at, row in enumerate(cells):
        table.add_row(
            *(
                Text(cell, style=styles(at, place) if styles else "")
                for place, cell in enumerate(row)
            )
        )
    target.print(table, crop=False, soft_wrap=True)


def show_pairs(target: "Console", values: Sequence[tuple[str, str]]) -> None:
    """Print names and values in two columns; values may have several lines."""
    from rich.table import Table  # noqa: PLC0415
    from rich.text import Text  # noqa: PLC0415

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in values:
        table.add_row(Text(name, style="bold"), Text(visible(value)))
    target.print(table)
