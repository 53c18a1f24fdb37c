"""What only people at a terminal see: the progress bar and the list that follows."""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stablequeue.cli import main
from stablequeue.cli.look import remark, status
from stablequeue.client import Client, JobView, ViewState
from stablequeue.errors import PrefectUnreachable
from tests.cli.conftest import NOWHERE


class Terminal(io.StringIO):
    """Looks like a terminal."""

    def isatty(self) -> bool:
        return True


def at_terminal(monkeypatch: pytest.MonkeyPatch, home: Path) -> Terminal:
    """Make both outputs one terminal of 80 columns; not as a fixture, pytest would undo it."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", screen)
    settings = {
        "COLUMNS": "80",
        "LINES": "24",
        "TERM": "xterm",
        "STABLEQUEUE_HOME": str(home),
        "STABLEQUEUE_PREFECT_API_URL": NOWHERE,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return screen


def job(state: ViewState = ViewState.RUNNING, **fields: Any) -> JobView:
    """Return a view."""
    return JobView(job_id="01a1fbe9-13f5-7f3e-ac75-1eec5e277800", state=state, **fields)


def test_a_bar_follows_the_job_and_hostile_prompts_cannot_draw_on_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wait(_: Client, __: str, *, on_progress: Callable[[JobView], None]) -> JobView:
        on_progress(job(phase="Generating", prompt="[red]a\x1b]0;owned\x07", progress=0.5))
        ended = job(ViewState.COMPLETED, phase="Completed")
        on_progress(ended)
        return ended

    monkeypatch.setattr(Client, "wait", wait)
    terminal = at_terminal(monkeypatch, tmp_path)
    assert main(["watch", "5e277800"]) == 0
    assert "[red]a\\x1b]0;owned\\x07" in terminal.getvalue()
    assert "\x1b]0;owned" not in terminal.getvalue()
    assert "generating 50%" in terminal.getvalue()


def test_the_list_is_drawn_anew_until_ctrl_c(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    terminal = at_terminal(monkeypatch, tmp_path)

    def nap(_: float) -> None:
        if terminal.getvalue().count("5e277800") > 1:
            raise KeyboardInterrupt

    seen = iter([True, False] + [True] * 5)

    def jobs(*_: object, **__: object) -> list[JobView]:
        if next(seen):
            return [job(phase="Generating", prompt="a fox", server="gpu-a")]
        message = "no Prefect server answers"
        raise PrefectUnreachable(message)

    monkeypatch.setattr(Client, "jobs", jobs)
    monkeypatch.setattr("stablequeue.cli.look.time.sleep", nap)
    assert main(["watch"]) == 130
    assert "no Prefect server answers" in terminal.getvalue()


@pytest.mark.parametrize(
    ("seen", "shown"),
    [
        (job(ViewState.WAITING, phase="Queued", place=3), "waiting #3"),
        (job(ViewState.WAITING, phase="Parked"), "waiting (Parked)"),
        (job(phase="Running"), "running"),
        (job(phase="Generating", progress=0.256), "generating 26%"),
        (job(phase="Waiting", progress=0.0), "waiting"),
        (job(phase="Waiting", progress=0.5), "waiting 50%"),
        (job(ViewState.CANCELLING, phase="Cancelling"), "cancelling"),
        (job(ViewState.FAILED, phase="TimedOut", progress=0.5), "failed"),
        (job(ViewState.UNKNOWN), "unknown"),
    ],
)
def test_a_state_fits_one_cell(seen: JobView, shown: str) -> None:
    assert status(seen) == shown


def test_a_job_that_waits_says_what_for() -> None:
    away = "gpu: no answer while asking what it is"
    assert remark(job(ViewState.WAITING, why="next in line")) == "next in line"
    assert remark(job(ViewState.WAITING, pinned=True)) == "moved to the front"
    assert remark(job(ViewState.WAITING, message=away)) == away
    assert remark(job(ViewState.WAITING, message=away, why="gpu is paused")) == (
        f"gpu is paused; {away}"
    )
