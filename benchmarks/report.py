"""The table of figures, and the machine they were taken on."""

import os
import platform
import sqlite3
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

END = "<!-- end of the figures -->"
PACKAGES = ("prefect", "pydantic", "sqlalchemy", "httpx", "Pillow")


@dataclass(frozen=True)
class Figure:
    """One row of the table.

    Attributes:
        name: What was measured.
        value: With its unit.
        goal: With its unit; empty: none is set.
        note: How, and against which reference.
        load: One-minute load average when it was taken.
    """

    name: str
    value: str
    goal: str = ""
    note: str = ""
    load: str = ""


def load() -> str:
    """Return the load of the last minute."""
    return f"{os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else "?"


def seconds(times: Iterable[float]) -> str:
    """Return the median, and the least and most."""
    taken = sorted(times)
    return f"{statistics.median(taken):.2f} s ({taken[0]:.2f} to {taken[-1]:.2f})"


def machine() -> str:
    """Describe what this is measured on."""
    cores, memory_gb = os.cpu_count(), _memory_gb()
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return (
        f"{platform.system()} {platform.machine()}, {cores} cores, {memory_gb}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {packages}"
    )


def _memory_gb() -> str:
    try:
        pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError):
        return "memory unknown"
    return f"{pages / 2**30:.0f} GB of memory"


@dataclass(frozen=True)
class Row:
    """One row of the main table; `ratio` is how many times better ours is than stock tuned."""

    name: str
    stock: str
    tuned: str
    ours: str
    ratio: str
    goal: str


def heading(command: str, begun: str) -> str:
    """Say when, where and beside what was measured.

    Args:
        command: What measures this again.
        begun: The load before.
    """
    today = datetime.now(UTC).date().isoformat()
    return (
        f"Measured on {today} by `{command}` with StableQueue {version('stablequeue')}.\n"
        f"Machine: {machine()}.\n"
        f"Load of the last minute: {begun} before, {load()} after.\n"
    )


def comparison(rows: Iterable[Row]) -> str:
    """Return the main table as Markdown."""
    return _table(
        ("figure", "Prefect's worker as it comes", "tuned", "ours", "ratio to tuned", "goal"),
        [(one.name, one.stock, one.tuned, one.ours, one.ratio, one.goal) for one in rows],
        numbers=4,
    )


def table(figures: Iterable[Figure]) -> str:
    """Return figures of ours alone as Markdown."""
    return _table(
        ("figure", "measured", "goal", "load", "how"),
        [(one.name, one.value, one.goal, one.load, one.note) for one in figures],
        numbers=3,
    )


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], *, numbers: int) -> str:
    """Return a table; the column `numbers` is aligned to the right."""
    rules = ["---:" if index == numbers else "---" for index in range(len(names))]
    lines = [names, rules, *([cell or "-" for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def write(text: str, document: Path, command: str) -> None:
    """Put what a command measured between its marks in the document."""
    begin = f"<!-- figures: written by {command} -->"
    old = document.read_text(encoding="utf-8") if document.exists() else ""
    if begin not in old:
        old = f"{old}\n{begin}\n{END}\n"
    before, _, rest = old.partition(begin)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{begin}\n\n{text}\n{END}{after}", encoding="utf-8")
