"""What leaves the catalogue: frozen records and the states they may be in.

Imports neither SQLModel nor pydantic, so that commands which only look stay quick. Datetimes are
aware, in UTC. Sizes in pixels or bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stablequeue.engines.base import Kind, Ticket
    from stablequeue.request import GenerationRequest


class JobState(StrEnum):
    """What the catalogue knows of a job; whether it waits or runs right now, Prefect knows."""

    ACCEPTED = "accepted"  # on disk, no flow run yet
    SENT = "sent"  # has a flow run
    STARTED = "started"  # its flow began: request and seed are frozen
    COMPLETED = "completed"
    DEGRADED = "degraded"
    CENSORED = "censored"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    CRASHED = "crashed"


FINISHED = frozenset({JobState.COMPLETED, JobState.DEGRADED, JobState.CENSORED})
"""Ended with a result: never opened again."""

ENDED = FINISHED | {JobState.FAILED, JobState.CANCELLED, JobState.EXPIRED, JobState.CRASHED}
"""What an outcome may say."""


class AttemptState(StrEnum):
    """Where one attempt at one picture is."""

    OPEN = "open"  # ticket on disk; perhaps sent, perhaps running there
    COLLECTED = "collected"  # result in the spool folder
    STORED = "stored"
    FAILED = "failed"
    GONE = "gone"  # the server provably does not have it
    CANCELLING = "cancelling"  # asked to stop, not yet certain
    CANCELLED = "cancelled"


TRANSITIONS: Mapping[AttemptState, frozenset[AttemptState]] = {
    # A state that may follow itself can have its ticket or note replaced.
    AttemptState.OPEN: frozenset(
        {
            AttemptState.OPEN,
            AttemptState.COLLECTED,
            AttemptState.STORED,
            AttemptState.FAILED,
            AttemptState.GONE,
            AttemptState.CANCELLING,
            AttemptState.CANCELLED,
        }
    ),
    AttemptState.COLLECTED: frozenset(
        {
            AttemptState.COLLECTED,
            AttemptState.STORED,
            AttemptState.FAILED,
            AttemptState.GONE,
            AttemptState.CANCELLED,
        }
    ),
    # The wish to stop may come too late: what was made all the same is kept.
    AttemptState.CANCELLING: frozenset(
        {
            AttemptState.CANCELLING,
            AttemptState.COLLECTED,
            AttemptState.STORED,
            AttemptState.FAILED,
            AttemptState.GONE,
            AttemptState.CANCELLED,
        }
    ),
    AttemptState.STORED: frozenset(),
    AttemptState.FAILED: frozenset(),
    AttemptState.GONE: frozenset(),
    AttemptState.CANCELLED: frozenset(),
}
"""Which state may follow which."""

TERMINAL = frozenset(state for state, following in TRANSITIONS.items() if not following)

UNSETTLED = frozenset({AttemptState.OPEN, AttemptState.COLLECTED})
"""States in which a new attempt at the same picture could make it twice."""


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to accept. `source` empty: the request's own."""

    request: "GenerationRequest"
    job_id: str
    seed: int
    deployment: str
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class StoredRequest:
    """What was asked.

    Attributes:
        id: Grows with every request accepted; the cursor of `Catalogue.requests`.
        data: The request as JSON data, perhaps of an older release; `request` is today's.
        seed: The seed of picture 0, never -1.
        server: As asked, or the server that took it once started.
        flow_run_id: Prefect's run, "" before there is one.
    """

    id: int
    job_id: str
    data: Mapping[str, Any]
    seed: int
    state: JobState
    server: str
    deployment: str
    source: str
    flow_run_id: str
    accepted_at: datetime
    sent_at: datetime | None
    started_at: datetime | None

    @cached_property
    def request(self) -> "GenerationRequest":
        """The request, brought to today's shape.

        Raises:
            BadRequest: Written by a newer release.
        """
        from stablequeue.request import parse_request  # noqa: PLC0415  # pydantic takes 0.3 s

        return parse_request(self.data)

    @property
    def tags(self) -> tuple[str, ...]:
        """The request's tags."""
        return tuple(self.data.get("tags", ()))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended.

    Attributes:
        state: One of `ENDED`.
        code: The error's stable code, "" if it went well.
        message: One line.
        advice: What to do about it.
        finished_at: None when handed in: now.
    """

    state: JobState
    code: str = ""
    message: str = ""
    advice: str = ""
    started_at: datetime | None = None
    finished_at: datetime | None = None

    def __post_init__(self) -> None:
        if self.state not in ENDED:
            message = f"{self.state} is not an ending"
            raise ValueError(message)
        for moment in (self.started_at, self.finished_at):
            if moment is not None and moment.tzinfo is None:
                message = "the times of an outcome need a time zone"
                raise ValueError(message)


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One try at one picture.

    Attributes:
        index: Which picture of the job, from 0.
        attempt: From 1.
        repeat: Made although nobody could say whether the one before had run.
    """

    id: int
    job_id: str
    index: int
    attempt: int
    server: str
    engine: str
    ticket: "Ticket"
    state: AttemptState
    repeat: bool
    note: str
    error: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, kw_only=True)
class NewAsset:
    """One stored file, to be recorded.

    Attributes:
        ordinal: Which file of its picture index, from 0.
        key: Where in the store; when the store has equal bytes already, that key stays.
        name: The server's own name for it.
        params: Full parameters, plain JSON.
        models: Name to hash ("" while unknown) of every model used.
        original_sha256: Of the server's bytes, when they were re-encoded.
        prompt: What the picture shows; "" takes the request's.
        blob_id: The blob found by `Catalogue.blob`, when the file was not written because of it.
    """

    ordinal: int
    kind: "Kind"
    mime: str
    sha256: str
    size: int
    store: str
    key: str
    width: int = 0
    height: int = 0
    name: str = ""
    infotext: str = ""
    params: Mapping[str, Any] = field(default_factory=dict[str, Any])
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    seed: int = 0
    engine: str = ""
    engine_version: str = ""
    gpu: str = ""
    server: str = ""
    original_sha256: str = ""
    warnings: tuple[str, ...] = ()
    prompt: str = ""
    blob_id: int = 0


@dataclass(frozen=True, kw_only=True)
class Asset:
    """One picture, video, text or sound in the catalogue; `id` is the cursor of a search."""

    id: int
    job_id: str
    index: int
    ordinal: int
    attempt_id: int
    kind: "Kind"
    mime: str
    sha256: str
    size: int
    width: int
    height: int
    store: str
    key: str
    name: str
    prompt: str
    infotext: str
    params: Mapping[str, Any]
    models: Mapping[str, str]
    tags: tuple[str, ...]
    seed: int
    engine: str
    engine_version: str
    gpu: str
    server: str
    original_sha256: str
    warnings: tuple[str, ...]
    created_at: datetime
    trashed_at: datetime | None


@dataclass(frozen=True, kw_only=True)
class Blob:
    """One file in a store. `refs` assets share it; at 0 it waits to be deleted."""

    id: int
    store: str
    sha256: str
    key: str
    size: int
    mime: str
    refs: int


@dataclass(frozen=True, kw_only=True)
class Parked:
    """A server whose jobs wait until somebody mends what `reason` says."""

    server: str
    reason: str
    since: datetime


@dataclass(frozen=True, kw_only=True)
class MigrationReport:
    """What `Catalogue.migrate` did; revisions are "" for an empty database."""

    before: str
    after: str
    backup: Path | None = None

    @property
    def changed(self) -> bool:
        """Whether anything was to do."""
        return self.before != self.after
