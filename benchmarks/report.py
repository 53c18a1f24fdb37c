"""The table of figures, and the machine they were taken on."""

import os
import platform
import sqlite3
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of the figures -->"
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


def table(rows: Iterable[Row], figures: Iterable[Figure], begun: str) -> str:
    """Return the figures as Markdown."""
    today = datetime.now(UTC).date().isoformat()
    release = version("stablequeue")
    lines = [
        f"Measured on {today} by `make bench` with StableQueue {release}.",
        f"Machine: {machine()}.",
        f"Load of the last minute: {begun} before, {load()} after.",
        "",
        "| figure | Prefect's worker as it comes | tuned | ours | ratio to tuned | goal |",
        "| --- | --- | --- | --- | ---: | --- |",
    ]
    lines += [
        f"| {one.name} | {one.stock} | {one.tuned} | {one.ours} | {one.ratio or '-'}"
        f" | {one.goal or '-'} |"
        for one in rows
    ]
    lines += ["", "| figure | measured | goal | load | how |", "| --- | --- | --- | ---: | --- |"]
    lines += [
        f"| {one.name} | {one.value} | {one.goal or '-'} | {one.load or '-'} | {one.note} |"
        for one in figures
    ]
    return "\n".join(lines)


def write(text: str, document: Path) -> None:
    """Put the table between the marks of the document."""
    old = document.read_text(encoding="utf-8") if document.exists() else f"{BEGIN}\n{END}\n"
    before, _, rest = old.partition(BEGIN)
    _, _, after = rest.partition(END)
    document.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")
