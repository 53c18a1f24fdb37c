"""Text from prompts, servers and Prefect, made fit for a terminal.

A prompt may hold escape sequences that recolour, move or retitle a terminal, and characters that
turn the direction of writing round. None of them reaches it raw.
"""

from collections.abc import Mapping
from datetime import datetime

_JOINERS = {"\u200d", "\ufe0f", "\u200c"}  # parts of emoji and of several scripts
_LONGEST_LINE = 2000


def visible(text: str) -> str:
    """Return `text` with control and direction characters written out, newlines kept."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or char == "\n" or char in _JOINERS
        else " "
        if char == "\t"
        else char.encode("unicode_escape").decode("ascii")
        for char in text
    )


def one_line(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return `text` in one line, at most `longest` characters."""
    line = visible(" ".join(text.split()))
    return line if len(line) <= longest else line[: longest - 1] + "…"


def local_time(when: datetime | None, now: datetime) -> str:
    """Return a time for a table, in local time: `14:03:09` today, else with its date."""
    if when is None:
        return ""
    here = when.astimezone()
    if here.date() == now.astimezone().date():
        return here.strftime("%H:%M:%S")
    return here.strftime("%Y-%m-%d %H:%M")


def seconds(duration: float) -> str:
    """Return a duration for people: `8 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = max(0, round(duration))
    if whole < 60:  # noqa: PLR2004
        return f"{whole} s"
    if whole < 3600:  # noqa: PLR2004
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def pairs(values: Mapping[str, object]) -> list[tuple[str, str]]:
    """Return `values` without the empty ones, as lines of a two column table."""
    return [(name, str(value)) for name, value in values.items() if value not in ("", None, [], ())]
