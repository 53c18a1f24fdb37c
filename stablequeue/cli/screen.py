"""Where results for people go: a terminal with colours and a width, or a pipe with neither.

Rich is imported for a terminal only: what is piped into `grep` shall be whole lines, soon.
"""

import sys
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from stablequeue.cli.text import one_line, visible

if TYPE_CHECKING:
    from rich.console import Console

Style = Callable[[int, int], str]
"""Gives a cell's style for its row and column."""

_NARROWEST = 12
_PIPE_WIDTH = 1000


class Screen:
    """Standard output, or standard error. Text is made fit for a terminal here."""

    def __init__(self, *, stderr: bool = False) -> None:
        self._stderr = stderr

    @property
    def terminal(self) -> bool:
        """Whether people look at it directly."""
        return (sys.stderr if self._stderr else sys.stdout).isatty()

    @cached_property
    def console(self) -> "Console":
        """Rich's console; nothing printed to it is taken for markup."""
        from rich.console import Console  # noqa: PLC0415  # 0.1 s

        return Console(stderr=self._stderr, highlight=False, markup=False, emoji=False)

    @property
    def width(self) -> int:
        """Columns."""
        return self.console.width if self.terminal else _PIPE_WIDTH

    def line(self, text: str = "") -> None:
        """Print a line."""
        stream = sys.stderr if self._stderr else sys.stdout
        print(one_line(text), file=stream, flush=True)

    def table(
        self,
        headers: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        flexible: int | None = None,
        style: Style | None = None,
    ) -> None:
        """Print a table, each row in one line.

        Args:
            headers: Of the columns.
            rows: Of as many cells.
            flexible: Column that is cut on a terminal so that a row fits.
            style: For a terminal.
        """
        cells = [[one_line(cell) for cell in row] for row in rows]
        widths = _widths([list(headers), *cells])
        if flexible is not None and self.terminal:
            _fit(cells, widths, flexible, self.width)
        if not self.terminal:
            for row in (list(headers), *cells):
                self.line_as_is(_padded(row, widths))
            return
        from rich.text import Text  # noqa: PLC0415

        self.console.print(Text(_padded(headers, widths), style="bold"), soft_wrap=True)
        for at, row in enumerate(cells):
            text = Text()
            for place, cell in enumerate(row):
                text.append(cell, style=style(at, place) if style else "")
                text.append(" " * (widths[place] - _length(cell) + 2))
            text.rstrip()
            self.console.print(text, soft_wrap=True)

    def pairs(self, values: Sequence[tuple[str, str]]) -> None:
        """Print names and values in two columns; values may have several lines."""
        width = max((len(name) for name, _ in values), default=0)
        for name, value in values:
            first, *rest = visible(value).split("\n")
            self._pair(name.ljust(width), first)
            for line in rest:
                self._pair(" " * width, line)

    def _pair(self, name: str, value: str) -> None:
        if not self.terminal:
            self.line_as_is(f"{name}  {value}".rstrip())
            return
        from rich.text import Text  # noqa: PLC0415

        self.console.print(Text.assemble((name, "bold"), "  ", value), soft_wrap=True)

    def line_as_is(self, text: str) -> None:
        """Print a line that is fit for a terminal already."""
        print(text, file=sys.stderr if self._stderr else sys.stdout, flush=True)


def _widths(rows: Sequence[Sequence[str]]) -> list[int]:
    return [max(map(_length, column)) for column in zip(*rows, strict=True)]


def _fit(cells: Sequence[list[str]], widths: list[int], flexible: int, width: int) -> None:
    """Cut one column so that every row fits into `width`."""
    from rich.cells import set_cell_size  # noqa: PLC0415

    room = width - sum(widths) + widths[flexible] - 2 * (len(widths) - 1)
    room = max(_NARROWEST, min(room, widths[flexible]))
    widths[flexible] = room
    for row in cells:
        if _length(row[flexible]) > room:
            row[flexible] = set_cell_size(row[flexible], room - 1) + "…"


def _padded(row: Sequence[str], widths: Sequence[int]) -> str:
    padded = (cell + " " * (width - _length(cell)) for cell, width in zip(row, widths, strict=True))
    return "  ".join(padded).rstrip()


def _length(text: str) -> int:
    """Return how many columns a terminal gives a text; many characters take two, some none."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len  # noqa: PLC0415

    return cell_len(text)
