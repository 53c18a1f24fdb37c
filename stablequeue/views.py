"""What people are shown of a job: Prefect's run and the catalogue's outcome as one.

Prefect knows whether a job waits or runs; the catalogue knows what was asked and what came out. A
run that has ended may be gone from Prefect (it is removed after a while), its outcome stays; a run
made in Prefect's pages has no row in the catalogue until it starts.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, cast

from stablequeue.catalogue import ENDED, Asset, JobState, Outcome, StoredRequest
from stablequeue.ids import short_id
from stablequeue.prefect_api.model import Run, StateType, parse_time

JOB_TAG = "job:"
OUR_TAGS = (JOB_TAG, "server:", "tier:")
"""How the tags begin that say what a run is."""

PINNED = "pinned"
"""Tag of a run that a person moved to the front: no other one overtakes it."""

TIERS = ("interactive", "normal", "bulk")
USUAL_TIER = "normal"
"""The tier of jobs that name none, and the queue of runs made elsewhere."""

NOT_SENT = "Not sent yet"
DELETED = "its run was deleted in Prefect"

_LATER = timedelta(seconds=30)
"""A run that ends so much later than the outcome says ended in another way since."""


class ViewState(StrEnum):
    """Where a job is, in one word; `JobView.phase` is finer."""

    WAITING = "waiting"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELLING = "cancelling"
    COMPLETED = "completed"
    DEGRADED = "degraded"
    CENSORED = "censored"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    CRASHED = "crashed"
    UNKNOWN = "unknown"
    """Prefect does not answer, so nobody can say whether it waits or runs."""

    @property
    def ended(self) -> bool:
        """Whether the job is over (it may be retried)."""
        return self in _ENDED

    @property
    def successful(self) -> bool:
        """Whether it brought what was asked, perhaps with warnings."""
        return self in {ViewState.COMPLETED, ViewState.DEGRADED}


_ENDED = frozenset(ViewState(state.value) for state in ENDED)
_NAMED_ENDINGS = {"degraded", "censored", "expired"}
_OF_RUN = {
    StateType.SCHEDULED: ViewState.WAITING,
    StateType.PENDING: ViewState.RUNNING,
    StateType.RUNNING: ViewState.RUNNING,
    StateType.PAUSED: ViewState.PAUSED,
    StateType.CANCELLING: ViewState.CANCELLING,
    StateType.COMPLETED: ViewState.COMPLETED,
    StateType.FAILED: ViewState.FAILED,
    StateType.CANCELLED: ViewState.CANCELLED,
    StateType.CRASHED: ViewState.CRASHED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class JobView:
    """A job as people see it.

    Attributes:
        state: One word.
        phase: Prefect's name of the run's state, e.g. Queued, Generating, Parked.
        message: One line: progress, or how it ended.
        code: Stable code of the error it ended with; empty otherwise.
        advice: What to do about it.
        server: As asked, or the one that took it.
        place: From 1: which of its server's waiting jobs it is. 0: it does not wait, or the list
            was cut off before.
        progress: 0 to 1 while it runs, None while unknown.
        seed: Of picture 0; -1 while a run made elsewhere has not begun, and for a workflow that
            keeps the seeds it brings.
        due: While it waits: not before, and its place in the order.
        flow_run_id: Prefect's run; empty when there is none (any more).
        in_prefect: Whether Prefect has the run now.
        pinned: Whether somebody moved it to the front.
        why: While it waits: why it has its place, where that is known.
    """

    job_id: str
    state: ViewState
    phase: str = ""
    message: str = ""
    code: str = ""
    advice: str = ""
    server: str = ""
    pool: str = ""
    tier: str = "normal"
    mode: str = "txt2img"
    prompt: str = ""
    count: int = 1
    seed: int = -1
    tags: tuple[str, ...] = ()
    source: str = ""
    accepted_at: datetime | None = None
    due: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    place: int = 0
    progress: float | None = None
    flow_run_id: str = ""
    in_prefect: bool = False
    pinned: bool = False
    why: str = ""

    @property
    def short(self) -> str:
        """The job's short id."""
        return short_id(self.job_id)

    @property
    def ended(self) -> bool:
        """Whether the job is over."""
        return self.state.ended

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        data = asdict(self)
        for name, value in data.items():
            if isinstance(value, datetime):
                data[name] = value.isoformat()
        return {**data, "state": self.state.value, "tags": list(self.tags)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A stored file.

    Attributes:
        path: Where it is: a path on this machine, or an s3:// URL.
        asset: Everything the catalogue knows of it.
    """

    path: str
    asset: Asset = field(repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON data."""
        asset = self.asset
        return {
            "path": self.path,
            "id": asset.id,
            "job_id": asset.job_id,
            "index": asset.index,
            "ordinal": asset.ordinal,
            "kind": str(asset.kind),
            "mime": asset.mime,
            "sha256": asset.sha256,
            "size": asset.size,
            "width": asset.width,
            "height": asset.height,
            "seed": asset.seed,
            "prompt": asset.prompt,
            "server": asset.server,
            "engine": asset.engine,
            "models": dict(asset.models),
            "store": asset.store,
            "key": asset.key,
            "warnings": list(asset.warnings),
            "created_at": asset.created_at.isoformat(),
        }


def job_id_of(run: Run) -> str:
    """Return the job a run works on: what it was made with, else the run's own id."""
    given = run.parameters.get("job_id")
    if isinstance(given, str) and given:
        return given
    for tag in run.tags:
        if tag.startswith(JOB_TAG) and len(tag) > len(JOB_TAG):
            return tag.removeprefix(JOB_TAG)
    return run.id


def due(run: Run) -> datetime | None:
    """Return when a waiting run is due; Prefect serves the runs of a queue in this order.

    Its `expected_start_time` stays what it was when the run was created.
    """
    return parse_time(run.raw.get("next_scheduled_start_time")) or run.expected_start


def view(
    stored: StoredRequest | None,
    outcome: Outcome | None,
    run: Run | None,
    *,
    prefect_answers: bool = True,
) -> JobView:
    """Return a job's view; at least one of `stored` and `run` is given.

    Args:
        stored: Its row in the catalogue.
        outcome: How it ended, as far as the catalogue knows.
        run: Its run in Prefect.
        prefect_answers: Whether a missing run means that there is none.
    """
    if run is not None and run.final and stored is not None and stored.state is JobState.ACCEPTED:
        run = None  # its old one: it waits to be sent to another server
    about = _asked(stored, run)
    if run is not None:
        about |= {
            "flow_run_id": run.id,
            "in_prefect": True,
            "due": due(run),
            "pool": run.pool,
            "pinned": PINNED in run.tags,
        }
        if not run.final:
            return JobView(**about, **_live(stored, run))
    ended = _ending(outcome, run)
    if ended is not None:
        return JobView(**about, **ended)
    assert stored is not None  # noqa: S101  # an ended run alone has an ending
    if stored.state is JobState.ACCEPTED:
        return JobView(**about, state=ViewState.WAITING, phase=NOT_SENT)
    if prefect_answers and stored.flow_run_id:
        return JobView(**about, state=ViewState.CANCELLED, phase="Deleted", message=DELETED)
    return JobView(**about, state=ViewState.UNKNOWN, started_at=stored.started_at)


def in_order(views: list[JobView]) -> list[JobView]:
    """Return views as a queue shows them: running, waiting in their order, ended (newest first).

    Waiting jobs stand by tier, then those moved to the front first, then by the time they are due.
    """
    active = [v for v in views if not v.ended and v.state is not ViewState.WAITING]
    waiting = [v for v in views if v.state is ViewState.WAITING]
    ended = [v for v in views if v.ended]
    active.sort(key=lambda v: _time(v.started_at or v.due or v.accepted_at))
    waiting.sort(key=_waiting_key)
    ended.sort(key=lambda v: _time(v.finished_at or v.accepted_at), reverse=True)
    return [*active, *waiting, *ended]


def _waiting_key(job: JobView) -> tuple[int, bool, float]:
    tier = TIERS.index(job.tier) if job.tier in TIERS else TIERS.index(USUAL_TIER)
    return tier, not job.pinned, _time(job.due or job.accepted_at)


def _time(when: datetime | None) -> float:
    return when.timestamp() if when else 0.0


def _asked(stored: StoredRequest | None, run: Run | None) -> dict[str, Any]:
    """Return what the job is; until it has started the run's parameters are the truth."""
    data: Mapping[str, Any] = stored.data if stored else {}
    if run is not None and (stored is None or stored.started_at is None):
        given = run.parameters.get("request")
        if isinstance(given, dict):
            data = cast("Mapping[str, Any]", given)
    about: dict[str, Any] = {
        "job_id": stored.job_id if stored else job_id_of(run) if run else "",
        "prompt": _text(data, "prompt") or _text(data, "positive_prompt"),
        "mode": _text(data, "mode") or "txt2img",
        "tier": _text(data, "tier") or "normal",
        "count": _number(data, "count", 1),
        "seed": _seed(stored, data),
        "tags": tuple(str(tag) for tag in cast("list[Any]", data.get("tags") or ())),
        "source": _text(data, "source"),
        "server": stored.server if stored else _text(data, "server"),
    }
    if stored is not None:
        about |= {
            "accepted_at": stored.accepted_at,
            "flow_run_id": stored.flow_run_id,
            "source": stored.source,
        }
    elif run is not None:
        about["accepted_at"] = run.created
        about["server"] = about["server"] or run.pool
    return about


def _seed(stored: StoredRequest | None, data: Mapping[str, Any]) -> int:
    """Return the seed of the first picture; -1: not fixed yet, or a workflow keeps its own."""
    asked = _number(data, "seed", -1)
    own = _text(data, "mode") == "workflow" and asked < 0 and _number(data, "count", 1) == 1
    return asked if stored is None or own else stored.seed


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name)
    return value if isinstance(value, str) else ""


def _number(data: Mapping[str, Any], name: str, default: int) -> int:
    value = data.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else default


def _live(stored: StoredRequest | None, run: Run) -> dict[str, Any]:
    started = stored.started_at if stored else None
    return {
        "state": _OF_RUN[run.state_type],
        "phase": run.state_name,
        "message": run.state_message,
        "started_at": started or run.started,
    }


def _ending(outcome: Outcome | None, run: Run | None) -> dict[str, Any] | None:
    """Return how the job ended: the outcome says it best, unless the run ended again since."""
    if outcome is not None and not _ended_since(outcome, run):
        state = ViewState(outcome.state.value)
        return {
            "state": state,
            "phase": run.state_name if run else state.value.capitalize(),
            "message": outcome.message,
            "code": outcome.code,
            "advice": outcome.advice,
            "started_at": outcome.started_at,
            "finished_at": outcome.finished_at,
        }
    if run is None:
        return None
    name = run.state_name.casefold()
    return {
        "state": ViewState(name) if name in _NAMED_ENDINGS else _OF_RUN[run.state_type],
        "phase": run.state_name,
        "message": run.state_message,
        "started_at": run.started,
        "finished_at": run.ended or run.state_time,
    }


def _ended_since(outcome: Outcome, run: Run | None) -> bool:
    if run is None or run.state_time is None or outcome.finished_at is None:
        return False
    result = outcome.state in {JobState.COMPLETED, JobState.DEGRADED, JobState.CENSORED}
    ended_badly = run.state_type in {StateType.CRASHED, StateType.CANCELLED}
    same = _OF_RUN[run.state_type].value == outcome.state.value
    return ended_badly and not result and not same and run.state_time > outcome.finished_at + _LATER
