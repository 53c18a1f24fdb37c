"""In which order a server takes what waits, and why: the worker's own policy, asked again here.

The worker host writes what it knows of its cards into the run folder. Where that is missing or
damaged, jobs are shown by tier and place alone.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from math import isfinite
from pathlib import Path
from typing import Any, cast

from stablequeue.prefect_api import Run
from stablequeue.servers import ANY
from stablequeue.views import TIERS, USUAL_TIER, JobView, ViewState
from stablequeue.wanting import WAITING, is_held_back, lacked_by_waiting, wanted_by
from stablequeue.worker.policy import order
from stablequeue.worker.state_file import read_state
from stablequeue.worker.waiting import PICTURE_S, Card, Waiting, models_of

_SOON = timedelta(seconds=5)

Skipped = Mapping[str, str]
"""Why servers do not take a job, by alias."""

_HELD = "another job waits for a model that it names, too"


@dataclass(frozen=True)
class HostState:
    """What the worker host knows.

    Attributes:
        cards: By the alias of the server.
        quarantined: Why a server takes nothing now, by alias.
        overtaken: How often a run was overtaken, by run id.
        skipped: Which servers do not take a run and why, by run id.
    """

    cards: Mapping[str, Card] = field(default_factory=dict[str, Card])
    quarantined: Mapping[str, str] = field(default_factory=dict[str, str])
    overtaken: Mapping[str, int] = field(default_factory=dict[str, int])
    skipped: Mapping[str, Skipped] = field(default_factory=dict[str, Skipped])


def host_state(run_folder: Path) -> HostState:
    """Read what the worker host wrote; what cannot be read is as if it were not there."""
    data = read_state(run_folder)
    servers = _mapping(data.get("servers"))
    return HostState(
        cards={alias: _card(_mapping(about)) for alias, about in servers.items()},
        quarantined={
            alias: why
            for alias, about in servers.items()
            if isinstance(why := _mapping(about).get("quarantined"), str) and why
        },
        overtaken={
            run: int(times)
            for run, times in _mapping(data.get("overtaken")).items()
            if _is_number(times) and times >= 0
        },
        skipped={
            run: {alias: str(why) for alias, why in _mapping(reasons).items()}
            for run, reasons in _mapping(data.get("skipped")).items()
        },
    )


def really(
    views: Sequence[JobView], runs: Mapping[str, Run], state: HostState, *, server: str, limit: int
) -> list[JobView]:
    """Return views with the waiting ones in the order in which they are taken, and why.

    Args:
        views: As `views.in_order` gives them.
        runs: By job id.
        state: What the worker host knows.
        server: Only jobs of this server are shown; it takes those for any server too. Empty: each
            server's jobs keep the lines they have together.
        limit: So many are shown.
    """
    waiting = [job for job in views if job.state is ViewState.WAITING]
    lines: dict[str, list[JobView]] = {}
    for job in waiting:
        lines.setdefault(server or job.pool or job.server, []).append(job)
    for alias, line in lines.items():
        known = alias in state.cards and alias != ANY
        lines[alias] = (
            _ranked(line, runs, alias, state, limit)
            if known
            else [_noted(job, "", alias, state) for job in line]
        )
    taken = {alias: iter(line) for alias, line in lines.items()}
    return [
        next(taken[server or job.pool or job.server]) if job.state is ViewState.WAITING else job
        for job in views
    ]


def _ranked(
    line: Sequence[JobView], runs: Mapping[str, Run], alias: str, state: HostState, limit: int
) -> list[JobView]:
    """Return the jobs of a server as its card takes them; those it does not take come last."""
    held = _held_back(line, runs, alias)
    able = {
        job.flow_run_id: job
        for job in line
        if job.job_id in runs
        and job.job_id not in held
        and alias not in state.skipped.get(job.flow_run_id, {})
        and not _is_later(job)
    }
    waiting = [_waiting(job, runs[job.job_id], state) for job in able.values()]
    ranked = order(waiting, state.cards[alias], limit)
    first = [_noted(able[one.run.run_id], one.reason, alias, state) for one in ranked]
    shown = {job.job_id for job in first}
    rest = [
        _noted(job, _HELD if job.job_id in held else "", alias, state)
        for job in line
        if job.job_id not in shown
    ]
    return [*first, *rest]


def _held_back(line: Sequence[JobView], runs: Mapping[str, Run], alias: str) -> set[str]:
    """Return the jobs that stay back because others wait for a model that these name, too."""
    now = datetime.now(UTC)
    later = [job for job in line if job.job_id in runs and job.due is not None and job.due > now]
    lacked = lacked_by_waiting(alias, [(_tier(job), runs[job.job_id].tags) for job in later])
    if not lacked:
        return set()
    waiting = {job.job_id for job in later}
    return {
        job.job_id
        for job in line
        if job.job_id in runs
        and job.job_id not in waiting
        and is_held_back(lacked, _tier(job), wanted_by(_request(runs[job.job_id])))
    }


def _request(run: Run) -> Mapping[str, Any]:
    return _mapping(run.parameters.get("request"))


def _tier(job: JobView) -> int:
    return TIERS.index(job.tier if job.tier in TIERS else USUAL_TIER)


def _waiting(job: JobView, run: Run, state: HostState) -> Waiting:
    return Waiting(
        run_id=run.id,
        job_id=job.job_id,
        tier=_tier(job),
        place=job.due.timestamp() if job.due else 0.0,
        created=run.created.timestamp() if run.created else 0.0,
        models=models_of(_request(run)),
        pictures=job.count,
        overtaken=state.overtaken.get(run.id, 0),
        pinned=job.pinned,
    )


def _noted(job: JobView, reason: str, alias: str, state: HostState) -> JobView:
    """Say why a job has its place, or what keeps it from one."""
    skipped = state.skipped.get(job.flow_run_id, {})
    waits_for_something = job.message or alias in state.quarantined
    notes = [reason] if reason and not waits_for_something else []
    if job.due is not None and _is_later(job) and job.phase != WAITING:
        notes.append(f"not before {job.due.astimezone():%Y-%m-%d %H:%M}")
    if alias in state.quarantined:
        notes.append(f"{alias} takes nothing now: {state.quarantined[alias]}")
    notes += [f"not on {name}: {why}" for name, why in sorted(skipped.items())]
    return replace(job, why="; ".join(notes)) if notes else job


def _is_later(job: JobView) -> bool:
    """Whether somebody asked for the job to start at a time that has not come."""
    return job.due is not None and job.due > datetime.now(UTC) + _SOON


def _card(about: Mapping[str, Any]) -> Card:
    loaded: Any = about.get("loaded")
    names = cast("list[Any]", loaded) if isinstance(loaded, list) else []
    holds, picture = about.get("holds"), about.get("picture_s")
    swaps = _mapping(about.get("swap_s"))
    return Card(
        loaded=tuple(name for name in names if isinstance(name, str)),
        holds=holds if isinstance(holds, int) and holds > 0 else 1,
        swap_s={name: float(cost) for name, cost in swaps.items() if _is_number(cost)},
        picture_s=float(cast("float", picture)) if _is_number(picture) else PICTURE_S,
    )


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, dict) else {}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
