"""What `/internal/progress` and `/sdapi/v1/progress` know of jobs.

The board of task ids leaks and lies as the recorded server's does: an id whose pictures could not
be decoded stays pending for ever, one whose job raised stays current until the next job starts,
and only the last 16 ended ones are remembered.
"""

import base64
import io
import random
import string
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

from PIL import Image

_REMEMBERED = 16
_WAITING = "Waiting..."


class TaskBoard:
    """Ids of tasks: waiting, current, ended."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self.pending: dict[str, None] = {}
        self.current: str | None = None
        self.finished: deque[str] = deque(maxlen=_REMEMBERED)

    def new_id(self, kind: str) -> str:
        """Return an id for a job that came without one."""
        letters = self._rng.choices(string.ascii_uppercase + string.digits, k=7)
        return f"task({kind}-{''.join(letters)})"

    def add(self, task: str) -> None:
        """Note a waiting task; one that waits already keeps its place."""
        self.pending.setdefault(task)

    def start(self, task: str) -> None:
        """Make a task the current one."""
        self.current = task
        self.pending.pop(task, None)

    def finish(self, task: str) -> None:
        """Note that a task ended by itself or was interrupted. Not called for one that raised."""
        if self.current == task:
            self.current = None
        self.finished.append(task)

    def waiting_text(self, task: str) -> str:
        """Return what is said of a task that does not run."""
        if task not in self.pending:
            return _WAITING
        return f"In queue: {[*self.pending].index(task) + 1}/{len(self.pending)}"

    def list_pending(self) -> dict[str, Any]:
        """Return `GET /internal/pending-tasks`."""
        return {"size": len(self.pending), "tasks": [*self.pending]}


class JobState:
    """The one state of the one job that runs, or ran last.

    Attributes:
        job_count: Iterations; -1 until the model is loaded, 0 when idle.
        sampling_steps: Of the present pass; keeps the last job's until sampling begins.
        see: Paints what the picture looks like by now.
    """

    def __init__(self, wall: Callable[[], float]) -> None:
        self._wall = wall
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job = ""
        self.job_count = 0
        self.job_timestamp = "0"
        self.job_no = 0
        self.sampling_step = self.sampling_steps = 0
        self.textinfo: str | None = None
        self.time_start = time.monotonic()
        self.id_live_preview = 0
        self.see: Callable[[], Image.Image] | None = None
        self._preview: Image.Image | None = None
        self._preview_step = 0

    def begin(self, job: str) -> None:
        """Start a job: flags of the last one are cleared, also an interrupt sent while idle."""
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job, self.job_count, self.job_no = job, -1, 0
        self.job_timestamp = datetime.fromtimestamp(self._wall()).strftime("%Y%m%d%H%M%S")  # noqa: DTZ006 - the server's own local time
        self.sampling_step = 0
        self.textinfo = None
        self.time_start = time.monotonic()
        self.id_live_preview, self._preview, self._preview_step = 0, None, 0
        self.see = None

    def end(self) -> None:
        """End a job. The flags stay, which is how an interrupted job can be told."""
        self.job, self.job_count, self.see = "", 0, None

    def next_pass(self) -> None:
        """Count one pass as done."""
        self.job_no += 1
        self.sampling_step = self._preview_step = 0

    def fraction(self, base: float = 0.0) -> float:
        """Return how much is done, 0 to 1."""
        done = base
        if self.job_count > 0:
            done += self.job_no / self.job_count
            if self.sampling_steps > 0:
                done += self.sampling_step / self.sampling_steps / self.job_count
        return min(done, 1.0)

    def elapsed(self) -> float:
        """Return seconds since the job began."""
        return time.monotonic() - self.time_start

    def to_json(self) -> dict[str, Any]:
        """Return `state` of `GET /sdapi/v1/progress`."""
        return {
            "skipped": self.skipped,
            "interrupted": self.interrupted,
            "stopping_generation": self.stopping_generation,
            "job": self.job,
            "job_count": self.job_count,
            "job_timestamp": self.job_timestamp,
            "job_no": self.job_no,
            "sampling_step": self.sampling_step,
            "sampling_steps": self.sampling_steps,
        }

    def refresh_preview(self, every: int) -> None:
        """Make a new preview when at least `every` steps passed since the last one."""
        due = every > 0 and self.sampling_step - self._preview_step >= every
        if due and self.see is not None:
            self._preview = self.see()
            self._preview_step = self.sampling_step
            self.id_live_preview += 1

    def preview(self, kind: str) -> str | None:
        """Return the last preview as base64, or None."""
        return encode_preview(self._preview, kind) if self._preview is not None else None


def encode_preview(picture: Image.Image, kind: str) -> str:
    """Return `picture` as base64 of `kind` (png, jpeg or webp)."""
    buffer = io.BytesIO()
    (picture if kind != "jpeg" else picture.convert("RGB")).save(buffer, kind)
    return base64.b64encode(buffer.getvalue()).decode("ascii")
