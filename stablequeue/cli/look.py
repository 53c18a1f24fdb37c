"""`ls`, `watch`, `show`: looking at jobs."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common, put
from stablequeue.cli.screen import Screen
from stablequeue.cli.text import local_time, one_line, pairs, seconds
from stablequeue.errors import NotFound, PrefectError
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.catalogue import Attempt
    from stablequeue.client import Client
    from stablequeue.prefect_api import LogLine
    from stablequeue.views import JobView, Picture

State = Literal[
    "waiting",
    "running",
    "paused",
    "cancelling",
    "completed",
    "degraded",
    "censored",
    "failed",
    "cancelled",
    "expired",
    "crashed",
]

_STYLES = {
    "running": "cyan",
    "cancelling": "yellow",
    "paused": "yellow",
    "completed": "green",
    "degraded": "yellow",
    "censored": "yellow",
    "failed": "red",
    "crashed": "red",
    "expired": "yellow",
    "unknown": "yellow",
}
_HEADERS = ("ID", "STATE", "SERVER", "TIER", "TIME", "JOB", "")
_STATE, _JOB = 1, 5
_LONGEST_MESSAGE = 60
_WATCH_EVERY_S = 1.0
_LOG_LINES = 500


def ls(
    *,
    all_: Annotated[
        bool, Parameter(name=("--all", "-a"), help="Also ended jobs of long ago.")
    ] = False,
    state: Annotated[list[State] | None, Parameter(help="Only these; may be repeated.")] = None,
    server: Annotated[str, Parameter(help="Only this server's.")] = "",
    tag: Annotated[str, Parameter(help="Only with this tag.")] = "",
    limit: Annotated[int, Parameter(help="At most so many.")] = 50,
    common: Common = DEFAULTS,
) -> int:
    """List the queue: running, waiting in their order, ended.

    Ended jobs that Prefect no longer has, or that were cleared, are shown with --all or --state.
    """
    from stablequeue.views import ViewState  # noqa: PLC0415

    with common.client() as queue:
        jobs = queue.jobs(
            states=[ViewState(one) for one in state or ()],
            server=server,
            tag=tag,
            limit=max(1, limit),
            history=all_ or bool(state),
        )
        _warn(queue, common)
    common.emit([job.to_json() for job in jobs], lambda target: _list(target, jobs))
    return 0


def watch(
    job: Annotated[str, Parameter(help="Its id; empty: the whole queue.")] = "",
    /,
    *,
    server: Annotated[str, Parameter(help="Only this server's jobs.")] = "",
    common: Common = DEFAULTS,
) -> int:
    """Follow one job, or the whole queue, until Ctrl-C.

    Following one job ends with it, with the exit code `submit --wait` would have.
    """
    with common.client() as queue:
        if job:
            from stablequeue.cli.follow import follow  # noqa: PLC0415

            return follow(queue, job, common)
        return _watch_queue(queue, server, common)


def show(
    job: Annotated[str, Parameter(help="Its id, full or short.")],
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Show everything about a job.

    With -v also the lines of its log, in time.
    """
    with common.client() as queue:
        seen = queue.job(job)
        look = queue.session.look
        try:
            stored = look.request(seen.job_id)
        except NotFound:
            stored = None
        attempts = queue.session.catalogue.attempts(seen.job_id) if stored else []
        pictures = queue.pictures(seen.job_id) if stored else []
        request = dict(stored.data) if stored else {}
        logs = _logs(queue, seen, common)
        skipped = dict(queue.skipped(seen)) if seen.state.value == "waiting" else {}
        _warn(queue, common)
    data = {
        **seen.to_json(),
        "skipped": skipped,
        "request": request,
        "attempts": [_attempt_json(attempt) for attempt in attempts],
        "files": [picture.to_json() for picture in pictures],
    }
    if common.verbose:
        data["log"] = [
            {"time": line.time, "level": line.level, "message": line.message} for line in logs
        ]

    def human(target: Screen) -> None:
        _show(target, seen, request)
        if skipped:
            target.line()
            target.pairs([(f"not on {alias}", why) for alias, why in sorted(skipped.items())])
        if attempts:
            target.line()
            _show_attempts(target, attempts)
        if pictures:
            target.line()
            show_pictures(target, pictures)
        for line in logs:
            target.line(one_line(f"{line.time.astimezone():%H:%M:%S} {line.message}"))

    common.emit(data, human)
    return 0


def _list(target: Screen, jobs: "Sequence[JobView]") -> None:
    if not jobs:
        target.line('The queue is empty. Add to it with: stablequeue submit "a prompt"')
        return
    now = datetime.now(UTC)
    rows = [_row(job, now) for job in jobs]
    target.table(
        _HEADERS,
        rows,
        flexible=_JOB,
        style=lambda at, place: _STYLES.get(jobs[at].state.value, "") if place == _STATE else "",
    )


def _row(job: "JobView", now: datetime) -> list[str]:
    return [
        job.short,
        status(job),
        job.server,
        job.tier,
        _time(job, now),
        title(job),
        remark(job),
    ]


def remark(job: "JobView") -> str:
    """Return what the state alone does not say: of a waiting job, why it waits or has its place."""
    if job.state.value == "waiting":
        why = job.why or ("moved to the front" if job.pinned else "")
        return one_line("; ".join(filter(None, (why, job.message))), _LONGEST_MESSAGE)
    if job.state.value == "completed" or job.message.casefold() == job.state.value:
        return ""
    return one_line(job.message, _LONGEST_MESSAGE)


def title(job: "JobView") -> str:
    """Return what a job is about, in few words."""
    name = one_line(job.prompt, 200) or job.mode
    return f"{name} (x{job.count})" if job.count > 1 else name


def status(job: "JobView") -> str:
    """Return a job's state as one cell: state, phase, percent or place."""
    text = job.state.value
    if job.state.value == "waiting":
        text = f"waiting #{job.place}" if job.place else "waiting"
        quiet = {"", "Queued", "Scheduled", "Late", "AwaitingRetry"}
        return text if job.phase in quiet else f"{text} ({job.phase})"
    if job.ended:
        return text
    if job.phase and job.phase.casefold() not in {text, "unknown"}:
        text = job.phase.lower() if job.state.value == "running" else f"{text} ({job.phase})"
    idle = job.phase == "Waiting" and not job.progress
    if job.progress is not None and job.state.value == "running" and not idle:
        text = f"{text} {job.progress:.0%}"
    return text


def _time(job: "JobView", now: datetime) -> str:
    if job.ended:
        return local_time(job.finished_at, now)
    if job.state.value == "waiting":
        return local_time(job.accepted_at, now)
    if job.started_at is None:
        return ""
    return seconds((now - job.started_at).total_seconds())


def _watch_queue(queue: "Client", server: str, common: Common) -> int:
    """Show the list anew every second; into a pipe, print each change as a line."""
    target = Screen()
    if common.json or not target.terminal:
        return _print_changes(queue, server, common)
    console = target.console
    with console.screen(hide_cursor=True):
        while True:
            try:
                jobs = queue.jobs(server=server, limit=max(5, console.height - 3), history=False)
            except PrefectError as error:
                console.clear()
                target.line(str(error))
            else:
                console.clear()
                _list(target, jobs)
            time.sleep(_WATCH_EVERY_S)


def _print_changes(queue: "Client", server: str, common: Common) -> int:
    import json  # noqa: PLC0415

    seen: dict[str, JobView] = {}
    first = True
    while True:
        jobs = queue.jobs(server=server, limit=200, history=False)
        for job in reversed(jobs):
            before = seen.get(job.job_id)
            if before == job or (first and job.ended):
                continue
            if common.json:
                put(json.dumps(job.to_json()))
            elif before is None or status(before) != status(job):
                put(one_line(f"{job.short} {status(job)} {job.server} {title(job)}"))
        seen = {job.job_id: job for job in jobs}
        first = False
        time.sleep(_WATCH_EVERY_S)


def _logs(queue: "Client", seen: "JobView", common: Common) -> "list[LogLine]":
    if not common.verbose or not seen.in_prefect:
        return []
    return queue.session.api.logs(seen.flow_run_id, limit=_LOG_LINES)


def _warn(queue: "Client", common: Common) -> None:
    if not queue.prefect_answered:
        common.note(
            "Prefect does not answer (stablequeue up starts it); this is what the catalogue knows."
        )


def _attempt_json(attempt: "Attempt") -> dict[str, Any]:
    return {
        "picture": attempt.index,
        "attempt": attempt.attempt,
        "state": attempt.state.value,
        "server": attempt.server,
        "remote_id": attempt.ticket.remote_id,
        "repeat": attempt.repeat,
        "note": attempt.note,
        "error": attempt.error,
        "created_at": attempt.created_at,
        "updated_at": attempt.updated_at,
    }


def _show(target: Screen, job: "JobView", request: dict[str, Any]) -> None:
    now = datetime.now(UTC)
    target.pairs(
        pairs(
            {
                "job": job.job_id,
                "state": status(job),
                "phase": job.phase,
                "message": job.message,
                "waits": job.why,
                "code": job.code,
                "advice": job.advice,
                "server": job.server,
                "tier": job.tier,
                "accepted": local_time(job.accepted_at, now),
                "started": local_time(job.started_at, now),
                "ended": local_time(job.finished_at, now),
                "seed": job.seed if job.seed >= 0 else "",
                "tags": ", ".join(job.tags),
                "source": job.source,
                "flow run": job.flow_run_id,
                **{name: _value(value) for name, value in request.items() if name not in _SHOWN},
            }
        ),
    )


def _show_attempts(target: Screen, attempts: "Sequence[Attempt]") -> None:
    target.table(
        ("PICTURE", "ATTEMPT", "STATE", "SERVER", "REMOTE ID", "NOTE"),
        [
            [
                str(one.index + 1),
                f"{one.attempt}{' (repeat)' if one.repeat else ''}",
                one.state.value,
                one.server,
                one.ticket.remote_id,
                " ".join(filter(None, (one.error, one.note))),
            ]
            for one in attempts
        ],
        flexible=5,
    )


_SHOWN = {"schema_version", "seed", "tags", "server", "tier", "source"}


def _value(value: Any) -> str:
    import json  # noqa: PLC0415

    return value if isinstance(value, str) else one_line(json.dumps(value))


def show_pictures(target: Screen, pictures: "Sequence[Picture]") -> None:
    """Print stored files as a table, each with its full path."""
    target.table(
        ("PICTURE", "SEED", "SIZE", "SHA-256", "FILE"),
        [
            [
                str(one.asset.index + 1),
                str(one.asset.seed),
                f"{one.asset.width}x{one.asset.height} {size(one.asset.size)}",
                one.asset.sha256[:12],
                one.path,
            ]
            for one in pictures
        ],
    )
