"""What Prefect's API tells, as plain frozen data; `raw` keeps everything it said."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Self

JSON = dict[str, Any]


class StateType(StrEnum):
    """Prefect's types of state; a state's name is free text beside it."""

    SCHEDULED = "SCHEDULED"
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    CANCELLING = "CANCELLING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CRASHED = "CRASHED"
    CANCELLED = "CANCELLED"

    @property
    def final(self) -> bool:
        """Whether a run in this state has ended."""
        return self in FINAL


FINAL = frozenset({StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED})
ACTIVE = frozenset({StateType.PENDING, StateType.RUNNING, StateType.CANCELLING})
"""States in which a run has, or is about to have, a process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A flow run.

    Attributes:
        state_name: As people see it, e.g. Queued, Generating, Degraded.
        pool: Name of its work pool; empty without one.
        queue: Name of its work queue.
        process: Prefect's `infrastructure_pid`; empty without one.
        run_count: How often it entered a RUNNING state; sub-states count.
        was_new: False when it existed under the same idempotency key (only after creating).
    """

    id: str
    name: str
    state_type: StateType
    state_name: str
    state_message: str = ""
    state_time: datetime | None = None
    deployment_id: str = ""
    pool: str = ""
    queue: str = ""
    idempotency_key: str = ""
    process: str = ""
    run_count: int = 0
    tags: tuple[str, ...] = ()
    parameters: JSON = field(default_factory=dict[str, Any])
    created: datetime | None = None
    expected_start: datetime | None = None
    started: datetime | None = None
    ended: datetime | None = None
    was_new: bool = True
    raw: JSON = field(default_factory=dict[str, Any], repr=False, compare=False)

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state_type.final

    @classmethod
    def from_json(cls, data: Mapping[str, Any], *, was_new: bool = True) -> Self:
        """Read Prefect's flow run."""
        state: Mapping[str, Any] = data.get("state") or {}
        kind = StateType(data.get("state_type") or state.get("type") or StateType.PENDING)
        return cls(
            id=data["id"],
            name=data["name"],
            state_type=kind,
            state_name=data.get("state_name") or state.get("name") or kind.value.capitalize(),
            state_message=state.get("message") or "",
            state_time=parse_time(state.get("timestamp")),
            deployment_id=data.get("deployment_id") or "",
            pool=data.get("work_pool_name") or "",
            queue=data.get("work_queue_name") or "",
            idempotency_key=data.get("idempotency_key") or "",
            process=data.get("infrastructure_pid") or "",
            run_count=data.get("run_count") or 0,
            tags=tuple(data.get("tags") or ()),
            parameters=dict(data.get("parameters") or {}),
            created=parse_time(data.get("created")),
            expected_start=parse_time(data.get("expected_start_time")),
            started=parse_time(data.get("start_time")),
            ended=parse_time(data.get("end_time")),
            was_new=was_new,
            raw=dict(data),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """A run to be created from a deployment.

    Attributes:
        name: Readable; empty: Prefect invents one.
        queue: Work queue of the deployment's pool; it must exist. Empty: the deployment's own.
        scheduled_time: Not before; also its place in the order. None: now.
        state_name: What people see while it waits.
        checked: Whether the parameters are known to fit: Prefect then does not compare them with
            the deployment's schema, which takes it a multiple of everything else.
    """

    parameters: JSON
    idempotency_key: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    queue: str = ""
    scheduled_time: datetime | None = None
    state_name: str = "Queued"
    job_variables: JSON = field(default_factory=dict[str, Any])
    checked: bool = False

    def to_json(self) -> JSON:
        """Return the body Prefect expects."""
        body: JSON = {
            "parameters": self.parameters,
            "state": state_json(
                StateType.SCHEDULED, self.state_name, scheduled_time=self.scheduled_time
            ),
            "tags": list(self.tags),
            "job_variables": self.job_variables,
        }
        if self.idempotency_key:
            body["idempotency_key"] = self.idempotency_key
        if self.name:
            body["name"] = self.name
        if self.queue:
            body["work_queue_name"] = self.queue
        if self.checked:
            body["enforce_parameter_schema"] = False
        return body


@dataclass(frozen=True, slots=True, kw_only=True)
class StateChange:
    """Prefect's answer to a wished state.

    Attributes:
        status: ACCEPT, REJECT (another state was set instead), WAIT or ABORT (nothing changed).
        state_type: What the run is in now, as far as it was told.
        reason: Why it was not accepted; empty otherwise.
    """

    status: str
    state_type: StateType | None
    state_name: str = ""
    reason: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the run is in the wished state now."""
        return self.status == "ACCEPT"


@dataclass(frozen=True, slots=True, kw_only=True)
class Deployment:
    """A deployment, the thing runs are made from."""

    id: str
    name: str
    flow_id: str
    pool: str = ""
    queue: str = ""
    paused: bool = False
    raw: JSON = field(default_factory=dict[str, Any], repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read Prefect's deployment."""
        return cls(
            id=data["id"],
            name=data["name"],
            flow_id=data["flow_id"],
            pool=data.get("work_pool_name") or "",
            queue=data.get("work_queue_name") or "",
            paused=bool(data.get("paused")),
            raw=dict(data),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A work pool. `limit` is None without one; `status` is READY, NOT_READY or PAUSED."""

    id: str
    name: str
    type: str
    paused: bool
    limit: int | None = None
    status: str = ""
    raw: JSON = field(default_factory=dict[str, Any], repr=False, compare=False)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read Prefect's work pool."""
        return cls(
            id=data["id"],
            name=data["name"],
            type=data["type"],
            paused=bool(data.get("is_paused")),
            limit=data.get("concurrency_limit"),
            status=data.get("status") or "",
            raw=dict(data),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A work queue of a pool. The smallest `priority` is served first."""

    id: str
    name: str
    pool: str
    priority: int
    paused: bool
    limit: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any], pool: str) -> Self:
        """Read Prefect's work queue."""
        return cls(
            id=data["id"],
            name=data["name"],
            pool=pool,
            priority=data.get("priority") or 0,
            paused=bool(data.get("is_paused")),
            limit=data.get("concurrency_limit"),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockDocument:
    """A saved block. Secret values in `data` are stars unless asked for; never shown in a repr."""

    id: str
    name: str
    type_slug: str
    data: JSON = field(repr=False)
    updated: str = ""

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """Read Prefect's block document."""
        kind: Mapping[str, Any] = data.get("block_type") or {}
        return cls(
            id=data["id"],
            name=data.get("name") or "",
            type_slug=kind.get("slug") or "",
            data=dict(data.get("data") or {}),
            updated=data.get("updated") or "",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """One log line of a run; `level` as in the logging module."""

    time: datetime
    level: int
    message: str
    logger: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """An artifact of a run; `data` is text, or a number for progress."""

    id: str
    key: str
    type: str
    data: Any
    description: str = ""


def parse_time(value: Any) -> datetime | None:
    """Return a time Prefect wrote, with its time zone; None stays None."""
    if not value:
        return None
    time = datetime.fromisoformat(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def state_json(
    kind: StateType,
    name: str = "",
    *,
    message: str = "",
    scheduled_time: datetime | None = None,
) -> JSON:
    """Return a state as Prefect expects it."""
    state: JSON = {"type": kind.value}
    if name:
        state["name"] = name
    if message:
        state["message"] = message
    if kind is StateType.SCHEDULED:
        when = scheduled_time or datetime.now(UTC)
        state["state_details"] = {"scheduled_time": when.isoformat()}
    return state
