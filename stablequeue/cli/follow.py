"""Following one job to its end, with a progress bar on a terminal, lines elsewhere."""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from stablequeue.cli.common import Common, put
from stablequeue.cli.look import show_pictures, status, title
from stablequeue.cli.screen import Screen
from stablequeue.cli.text import one_line

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.views import JobView, Picture

INTERRUPTED = 130


def follow(queue: "Client", job_id: str, common: Common) -> int:
    """Follow a job to its end and print what was stored.

    Returns:
        0 if it brought its pictures (Degraded too), 1 if not, 130 after Ctrl-C: the job goes on.
    """
    try:
        with _shown(common) as progress:
            ended = queue.wait(job_id, on_progress=progress)
    except KeyboardInterrupt:
        put(f"stablequeue: the job goes on; stablequeue watch {job_id}", stderr=True)
        return INTERRUPTED
    pictures = _pictures(queue, ended)
    data = {
        "job_id": ended.job_id,
        "state": ended.state.value,
        "code": ended.code,
        "message": ended.message,
        "advice": ended.advice,
        "server": ended.server,
        "files": [picture.to_json() for picture in pictures],
    }
    common.emit(data, lambda target: show_pictures(target, pictures) if pictures else None)
    _say_how(ended, common)
    return 0 if ended.state.successful else 1


def _pictures(queue: "Client", ended: "JobView") -> "list[Picture]":
    """Return what was stored; a run that never began has no row and so no pictures."""
    from stablequeue.errors import NotFound  # noqa: PLC0415

    try:
        return queue.pictures(ended.job_id)
    except NotFound:
        return []


def _say_how(ended: "JobView", common: Common) -> None:
    if ended.state.value == "degraded":
        common.note(f"warning: {ended.message}")
    elif not ended.state.successful:
        # The code alone stands in for a missing message, so that there always is a reason.
        why = ended.message or ended.code or ended.phase
        line = one_line(f"{ended.short} {ended.state.value}: {why} {ended.advice}".rstrip())
        put(f"stablequeue: {line}", stderr=True)


@contextmanager
def _shown(common: Common) -> "Generator[Callable[[JobView], None]]":
    """Give what shows a job's views on stderr while it goes on."""
    target = None if common.quiet else Screen(stderr=True)
    if target is None:
        yield lambda _: None
    elif target.terminal:
        with _bar(target) as update:
            yield update
    else:
        yield _Lines()


@contextmanager
def _bar(target: Screen) -> "Generator[Callable[[JobView], None]]":
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=target.console, transient=True) as progress:
        task = progress.add_task("", total=1.0)

        def update(job: "JobView") -> None:
            about = one_line(f"{job.short} {status(job)} · {title(job)}", 60)
            done = 1.0 if job.state.successful else job.progress
            if done is None:
                progress.update(task, description=about, refresh=True)
            else:
                progress.update(task, description=about, completed=done, refresh=True)

        yield update


class _Lines:
    """Prints a line when the phase changes, and each tenth of the way."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, job: "JobView") -> None:
        tenth = "" if job.progress is None else f" {int(job.progress * 10) * 10} %"
        reason = job.why or job.message
        why = f": {reason}" if reason and job.state.value == "waiting" else ""
        text = one_line(f"{job.phase or job.state.value}{tenth}{why}")
        if text != self._last:
            self._last = text
            put(one_line(f"{job.short} {text}"), stderr=True)
