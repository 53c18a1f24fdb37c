"""The tables. Rows never leave the catalogue: `stablequeue.catalogue.records` has what does.

SQLite additionally has the virtual table `asset_search` (FTS5 over `assets.search`), kept by
triggers; both are made by the migrations.
"""

from datetime import datetime
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    MetaData,
    String,
    UniqueConstraint,
    text,
)
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from stablequeue.catalogue.columns import (
    CleanText,
    Digits,
    Json,
    RowId,
    SearchVector,
    UtcDateTime,
)
from stablequeue.catalogue.words import SearchDocument

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s",
    "pk": "pk_%(table_name)s",
}

UNFINISHED = text("state IN ('open', 'collected', 'cancelling')")
"""Attempts that are not over. A partial index is used by queries that repeat its condition word for
word: SQLite does not see through bound values."""

UNUSED = text("refs = 0")
"""Blobs that wait to be deleted."""


class Table(SQLModel, registry=registry(metadata=MetaData(naming_convention=NAMING))):
    """Base of our tables, apart from any other user of SQLModel in the process."""


class RequestRow(Table, table=True):
    """A job as asked; also the outbox of what Prefect has not been told yet."""

    __tablename__: ClassVar[Any] = "requests"
    __table_args__ = (
        Index(None, "state", "id"),
        Index(None, "server", "id"),
        Index(None, "server", "state", "id"),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True))
    job_id: str = Field(sa_column=Column(Digits(36), unique=True, nullable=False))
    reversed_id: str = Field(sa_column=Column(Digits(32), index=True, nullable=False))
    data: dict[str, Any] = Field(sa_column=Column(Json, nullable=False))
    seed: int = Field(sa_column=Column(BigInteger, nullable=False))
    state: str = Field(sa_column=Column(String(16), nullable=False))
    server: str = Field(sa_column=Column(CleanText, nullable=False))
    deployment: str = Field(sa_column=Column(CleanText, nullable=False))
    source: str = Field(sa_column=Column(CleanText, nullable=False))
    flow_run_id: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    accepted_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    sent_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))


class RequestTagRow(Table, table=True):
    """A tag of a request, with its case folded."""

    __tablename__: ClassVar[Any] = "request_tags"

    tag: str = Field(sa_column=Column(CleanText, primary_key=True))
    request_id: int = Field(
        sa_column=Column(
            RowId, ForeignKey("requests.id"), primary_key=True, autoincrement=False, index=True
        )
    )


class AttemptRow(Table, table=True):
    """One try at one picture, with the ticket that finds it on its server."""

    __tablename__: ClassVar[Any] = "attempts"
    __table_args__ = (
        UniqueConstraint("job_id", "idx", "attempt"),
        Index(
            "ix_attempts_unfinished",
            "state",
            "id",
            sqlite_where=UNFINISHED,
            postgresql_where=UNFINISHED,
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True))
    job_id: str = Field(sa_column=Column(Digits(36), ForeignKey("requests.job_id"), nullable=False))
    idx: int = Field(nullable=False)
    attempt: int = Field(nullable=False)
    server: str = Field(sa_column=Column(CleanText, nullable=False))
    engine: str = Field(sa_column=Column(CleanText, nullable=False))
    ticket: dict[str, Any] = Field(sa_column=Column(Json, nullable=False))
    state: str = Field(sa_column=Column(String(16), nullable=False))
    repeat: bool = Field(nullable=False)
    note: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    error: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    updated_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class OutcomeRow(Table, table=True):
    """How a job ended."""

    __tablename__: ClassVar[Any] = "outcomes"

    job_id: str = Field(
        sa_column=Column(Digits(36), ForeignKey("requests.job_id"), primary_key=True)
    )
    state: str = Field(sa_column=Column(String(16), nullable=False))
    code: str = Field(sa_column=Column(CleanText, nullable=False))
    message: str = Field(sa_column=Column(CleanText, nullable=False))
    advice: str = Field(sa_column=Column(CleanText, nullable=False))
    started_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    finished_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class BlobRow(Table, table=True):
    """One file in a store, shared by `refs` assets."""

    __tablename__: ClassVar[Any] = "blobs"
    __table_args__ = (
        UniqueConstraint("sha256", "store"),
        CheckConstraint("refs >= 0", name="refs"),
        Index(
            "ix_blobs_unused",
            "id",
            sqlite_where=UNUSED,
            postgresql_where=UNUSED,
        ),
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True))
    sha256: str = Field(sa_column=Column(Digits(64), nullable=False))
    store: str = Field(sa_column=Column(CleanText, nullable=False))
    key: str = Field(sa_column=Column(CleanText, nullable=False))
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    mime: str = Field(sa_column=Column(CleanText, nullable=False))
    refs: int = Field(nullable=False)
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))


class AssetRow(Table, table=True):
    """One picture, video, text or sound."""

    __tablename__: ClassVar[Any] = "assets"
    __table_args__ = (
        UniqueConstraint("job_id", "idx", "ordinal"),
        Index(
            "ix_assets_trashed_at",
            "trashed_at",
            sqlite_where=text("trashed_at IS NOT NULL"),
            postgresql_where=text("trashed_at IS NOT NULL"),
        ),
        Index(
            "ix_assets_search",
            "search",
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},  # a pending list slows every search
        ).ddl_if(dialect="postgresql"),
        # An id is never given again: it is a cursor and stands in addresses.
        {"sqlite_autoincrement": True},
    )

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True))
    job_id: str = Field(sa_column=Column(Digits(36), ForeignKey("requests.job_id"), nullable=False))
    idx: int = Field(nullable=False)
    ordinal: int = Field(nullable=False)
    attempt_id: int = Field(
        sa_column=Column(RowId, ForeignKey("attempts.id"), nullable=False, index=True)
    )
    blob_id: int = Field(
        sa_column=Column(RowId, ForeignKey("blobs.id"), nullable=False, index=True)
    )
    kind: str = Field(sa_column=Column(String(16), nullable=False))
    mime: str = Field(sa_column=Column(CleanText, nullable=False))
    width: int = Field(nullable=False)
    height: int = Field(nullable=False)
    name: str = Field(sa_column=Column(CleanText, nullable=False))
    prompt: str = Field(sa_column=Column(CleanText, nullable=False))
    infotext: str = Field(sa_column=Column(CleanText, nullable=False))
    params: dict[str, Any] = Field(sa_column=Column(Json, nullable=False))
    models: dict[str, str] = Field(sa_column=Column(Json, nullable=False))
    tags: list[str] = Field(sa_column=Column(Json, nullable=False))
    seed: int = Field(sa_column=Column(BigInteger, nullable=False))
    engine: str = Field(sa_column=Column(CleanText, nullable=False))
    engine_version: str = Field(sa_column=Column(CleanText, nullable=False))
    gpu: str = Field(sa_column=Column(CleanText, nullable=False))
    server: str = Field(sa_column=Column(CleanText, nullable=False))
    original_sha256: str = Field(sa_column=Column(Digits(64), nullable=False))
    warnings: list[str] = Field(sa_column=Column(Json, nullable=False))
    created_at: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
    trashed_at: datetime | None = Field(default=None, sa_column=Column(UtcDateTime))
    search: SearchDocument = Field(sa_column=Column(SearchVector, nullable=False))


class FacetRow(Table, table=True):
    """A value assets can be filtered by; its id makes the token it is indexed as."""

    __tablename__: ClassVar[Any] = "facets"
    __table_args__ = (UniqueConstraint("kind", "value"), {"sqlite_autoincrement": True})

    id: int | None = Field(default=None, sa_column=Column(RowId, primary_key=True))
    kind: str = Field(sa_column=Column(String(16), nullable=False))
    value: str = Field(sa_column=Column(CleanText, nullable=False))


class AssetHourRow(Table, table=True):
    """Least and greatest id of the assets made in one hour since 1970, UTC.

    A range of dates becomes a range of ids by it. Exact whatever the clock did: an hour seen twice
    only widens its range, and the dates themselves are compared as well.
    """

    __tablename__: ClassVar[Any] = "asset_hours"

    hour: int = Field(sa_column=Column(RowId, primary_key=True, autoincrement=False))
    first_id: int = Field(sa_column=Column(BigInteger, nullable=False))
    last_id: int = Field(sa_column=Column(BigInteger, nullable=False))


class ParkedRow(Table, table=True):
    """A server whose jobs wait for its store."""

    __tablename__: ClassVar[Any] = "parked"

    server: str = Field(sa_column=Column(CleanText, primary_key=True))
    reason: str = Field(sa_column=Column(CleanText, nullable=False))
    since: datetime = Field(sa_column=Column(UtcDateTime, nullable=False))
