"""Following one job to its end."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from stablequeue.catalogue import JobState
from stablequeue.client.reading import Reading
from stablequeue.client.session import Session
from stablequeue.errors import NotFound, PrefectError
from stablequeue.views import JobView

_FIRST_S, _LATER_S = 0.25, 0.75
_SOON_S = 10.0
_SEND_EVERY_S = 2.0
_HOLDS_EVERY_S = 3.0
"""What is paused is asked so often, and not at once: most jobs start before."""

OnProgress = Callable[[JobView], None]


def wait(
    session: Session,
    reading: Reading,
    job_id: str,
    *,
    on_progress: OnProgress | None = None,
    timeout: float | None = None,
) -> JobView:
    """Follow a job; see `Client.wait`."""
    began = time.monotonic()
    tried = began - _SEND_EVERY_S
    asked = began
    last: JobView | None = None
    while True:
        holds = time.monotonic() - asked >= _HOLDS_EVERY_S
        seen = reading.job(job_id, holds=holds)
        if holds:
            asked = time.monotonic()
        elif last is not None and seen.state is last.state:
            seen = replace(seen, why=last.why)
        if on_progress is not None and seen != last:
            on_progress(seen)
        last = seen
        now = time.monotonic()
        if seen.ended or (timeout is not None and now - began >= timeout):
            return seen
        if not seen.flow_run_id and now - tried >= _SEND_EVERY_S:
            tried = now
            _send(session, seen.job_id)
        time.sleep(_FIRST_S if now - began < _SOON_S else _LATER_S)


def _send(session: Session, job_id: str) -> None:
    """Send an accepted job that could not be sent before; if it still cannot, wait on."""
    from stablequeue.sending import send  # noqa: PLC0415  # needs pydantic

    row = session.look.request(job_id)
    if row.state is JobState.ACCEPTED:
        with suppress(PrefectError, NotFound):
            send(row, api=session.api, catalogue=session.catalogue)
