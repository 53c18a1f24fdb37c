"""Text made fit for a terminal, and tables of it."""

import io
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.cli import text
from stablequeue.cli.screen import Screen

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOSTILE = "\x1b]0;owned\x07\x1b[31mred\x9b2J \u202egnp.exe \x00 \r\n\u2028 end"


@given(st.text(alphabet=st.characters()))
def test_nothing_that_a_terminal_obeys_is_left(value: str) -> None:
    line = text.one_line(value)
    assert all(char.isprintable() or char in "\u200d\u200c\ufe0f" for char in line)
    assert all(char.isprintable() or char in "\n\u200d\u200c\ufe0f" for char in text.visible(value))


def test_hostile_text_stays_readable() -> None:
    line = text.one_line(HOSTILE)
    assert "\\x1b]0;owned\\x07" in line
    assert "\\u202e" in line
    assert line.endswith("end")


def test_a_long_line_is_cut() -> None:
    assert text.one_line("x" * 5000, 10) == "x" * 9 + "…"


def test_times_and_durations_read_well() -> None:
    assert text.local_time(None, NOW) == ""
    assert len(text.local_time(NOW, NOW)) == len("12:00:00")
    assert text.local_time(NOW - timedelta(days=40), NOW).startswith("2026-10-")
    assert [text.seconds(value) for value in (-1, 8.4, 200, 7500)] == [
        "0 s",
        "8 s",
        "3 min 20 s",
        "2 h 5 min",
    ]


@given(st.lists(st.lists(st.text(max_size=30), min_size=3, max_size=3), max_size=5))
def test_a_table_has_one_line_a_row_whatever_stands_in_it(rows: list[list[str]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        out = io.StringIO()
        patch.setattr(sys, "stdout", out)
        Screen().table(("A", "B", "C"), rows, flexible=1)
    assert len(out.getvalue().splitlines()) == len(rows) + 1


class Terminal(io.StringIO):
    """Looks like a terminal of 40 columns."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_row_is_cut_to_its_width_and_no_markup_is_obeyed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setenv("TERM", "dumb")
    rows = [["1", "[bold]" + "long " * 20, "x"], ["22", "猫" * 30, "y"]]
    Screen().table(("A", "PROMPT", "B"), rows, flexible=1, style=lambda _, __: "red")
    lines = out.getvalue().splitlines()
    assert len(lines) == 3
    assert "[bold]" in lines[1]
    assert lines[1].endswith("x")
    assert lines[2].endswith("y")


def test_values_of_several_lines_stay_below_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    Screen().pairs([("prompt", "a\nb"), ("x", HOSTILE)])
    out = capsys.readouterr().out
    assert out.startswith("prompt  a\n        b\nx       ")
    assert "\x1b" not in out
