"""First release: requests, attempts, outcomes, assets of every kind, their search, parked servers.

A later revision that rebuilds `assets` on SQLite (`batch_alter_table`) must make the triggers
again: they go with the table.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import TSVECTOR

revision = "0001"
down_revision = None

FTS5_STATEMENTS = (
    # Words are cut, lower-cased and freed of accents before they get here; `ascii` splits at
    # spaces and leaves everything else alone. The underscore begins a facet.
    """
    CREATE VIRTUAL TABLE asset_search USING fts5(
        search, content='assets', content_rowid='id', columnsize=0,
        prefix='1 2 3 4 5 6 7 8 9 10', tokenize="ascii tokenchars '_'"
    )
    """,
    """
    CREATE TRIGGER assets_search_insert AFTER INSERT ON assets WHEN new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END
    """,
    """
    CREATE TRIGGER assets_search_delete AFTER DELETE ON assets WHEN old.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
    END
    """,
    # Of several triggers for one change SQLite says not which runs first: each change has one.
    """
    CREATE TRIGGER assets_search_leave AFTER UPDATE ON assets
    WHEN old.trashed_at IS NULL AND new.trashed_at IS NOT NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
    END
    """,
    """
    CREATE TRIGGER assets_search_enter AFTER UPDATE ON assets
    WHEN old.trashed_at IS NOT NULL AND new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END
    """,
    """
    CREATE TRIGGER assets_search_change AFTER UPDATE OF search ON assets
    WHEN old.trashed_at IS NULL AND new.trashed_at IS NULL BEGIN
        INSERT INTO asset_search(asset_search, rowid, search)
        VALUES ('delete', old.id, old.search);
        INSERT INTO asset_search(rowid, search) VALUES (new.id, new.search);
    END
    """,
)


def upgrade() -> None:
    """Make everything."""
    sqlite = op.get_context().dialect.name == "sqlite"
    _requests()
    _attempts()
    _assets(search=sa.Text() if sqlite else TSVECTOR())
    op.create_table(
        "parked",
        sa.Column("server", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        _moment("since", nullable=False),
        sa.PrimaryKeyConstraint("server", name="pk_parked"),
    )
    if sqlite:
        for statement in FTS5_STATEMENTS:
            op.execute(statement)
    else:
        op.create_index(
            "ix_assets_search",
            "assets",
            ["search"],
            postgresql_using="gin",
            postgresql_with={"fastupdate": "off"},
        )
        # The planner chooses between the index and the newest rows by how common a word is.
        op.execute("ALTER TABLE assets ALTER COLUMN search SET STATISTICS 1000")


def _row_id() -> sa.types.TypeEngine[int]:
    return sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def _digits(length: int) -> sa.String:
    return sa.String(length).with_variant(sa.String(length, collation="C"), "postgresql")


def _id() -> sa.Column[Any]:
    return sa.Column("id", _row_id(), nullable=False, primary_key=True)


def _moment(name: str, *, nullable: bool) -> sa.Column[Any]:
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable)


def _texts(*names: str) -> list[sa.Column[Any]]:
    return [sa.Column(name, sa.Text(), nullable=False) for name in names]


def _requests() -> None:
    op.create_table(
        "requests",
        _id(),
        sa.Column("job_id", _digits(36), nullable=False),
        sa.Column("reversed_id", _digits(32), nullable=False),
        *_texts("data"),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *_texts("server", "deployment", "source", "flow_run_id"),
        _moment("accepted_at", nullable=False),
        _moment("sent_at", nullable=True),
        _moment("started_at", nullable=True),
        sa.UniqueConstraint("job_id", name="uq_requests_job_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_requests_reversed_id", "requests", ["reversed_id"])
    op.create_index("ix_requests_state_id", "requests", ["state", "id"])
    op.create_index("ix_requests_server_id", "requests", ["server", "id"])
    op.create_index("ix_requests_server_state_id", "requests", ["server", "state", "id"])
    op.create_table(
        "request_tags",
        sa.Column("tag", sa.Text(), nullable=False),
        sa.Column("request_id", _row_id(), nullable=False, autoincrement=False),
        sa.PrimaryKeyConstraint("tag", "request_id", name="pk_request_tags"),
        sa.ForeignKeyConstraint(["request_id"], ["requests.id"], name="fk_request_tags_request_id"),
    )
    op.create_index("ix_request_tags_request_id", "request_tags", ["request_id"])
    op.create_table(
        "outcomes",
        sa.Column("job_id", _digits(36), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        *_texts("code", "message", "advice"),
        _moment("started_at", nullable=True),
        _moment("finished_at", nullable=False),
        sa.PrimaryKeyConstraint("job_id", name="pk_outcomes"),
        sa.ForeignKeyConstraint(["job_id"], ["requests.job_id"], name="fk_outcomes_job_id"),
    )


def _attempts() -> None:
    op.create_table(
        "attempts",
        _id(),
        sa.Column("job_id", _digits(36), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        *_texts("server", "engine", "ticket"),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("repeat", sa.Boolean(), nullable=False),
        *_texts("note", "error"),
        _moment("created_at", nullable=False),
        _moment("updated_at", nullable=False),
        sa.UniqueConstraint("job_id", "idx", "attempt", name="uq_attempts_job_id_idx_attempt"),
        sa.ForeignKeyConstraint(["job_id"], ["requests.job_id"], name="fk_attempts_job_id"),
        sqlite_autoincrement=True,
    )
    unfinished = sa.text("state IN ('open', 'collected', 'cancelling')")
    op.create_index(
        "ix_attempts_unfinished",
        "attempts",
        ["state", "id"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )


def _assets(search: sa.types.TypeEngine[Any]) -> None:
    op.create_table(
        "blobs",
        _id(),
        sa.Column("sha256", _digits(64), nullable=False),
        *_texts("store", "key"),
        sa.Column("size", sa.BigInteger(), nullable=False),
        *_texts("mime"),
        sa.Column("refs", sa.Integer(), nullable=False),
        _moment("created_at", nullable=False),
        sa.UniqueConstraint("sha256", "store", name="uq_blobs_sha256_store"),
        sa.CheckConstraint("refs >= 0", name=op.f("ck_blobs_refs")),
        sqlite_autoincrement=True,
    )
    unused = sa.text("refs = 0")
    op.create_index(
        "ix_blobs_unused", "blobs", ["id"], sqlite_where=unused, postgresql_where=unused
    )
    op.create_table(
        "facets",
        _id(),
        sa.Column("kind", sa.String(16), nullable=False),
        *_texts("value"),
        sa.UniqueConstraint("kind", "value", name="uq_facets_kind_value"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "asset_hours",
        sa.Column("hour", _row_id(), nullable=False, autoincrement=False),
        sa.Column("first_id", sa.BigInteger(), nullable=False),
        sa.Column("last_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("hour", name="pk_asset_hours"),
    )
    op.create_table(
        "assets",
        _id(),
        sa.Column("job_id", _digits(36), nullable=False),
        sa.Column("idx", sa.Integer(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("attempt_id", _row_id(), nullable=False),
        sa.Column("blob_id", _row_id(), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        *_texts("mime"),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        *_texts("name", "prompt", "infotext", "params", "models", "tags"),
        sa.Column("seed", sa.BigInteger(), nullable=False),
        *_texts("engine", "engine_version", "gpu", "server"),
        sa.Column("original_sha256", _digits(64), nullable=False),
        *_texts("warnings"),
        _moment("created_at", nullable=False),
        _moment("trashed_at", nullable=True),
        sa.Column("search", search, nullable=False),
        sa.UniqueConstraint("job_id", "idx", "ordinal", name="uq_assets_job_id_idx_ordinal"),
        sa.ForeignKeyConstraint(["job_id"], ["requests.job_id"], name="fk_assets_job_id"),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.id"], name="fk_assets_attempt_id"),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name="fk_assets_blob_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_assets_attempt_id", "assets", ["attempt_id"])
    op.create_index("ix_assets_blob_id", "assets", ["blob_id"])
    trashed = sa.text("trashed_at IS NOT NULL")
    op.create_index(
        "ix_assets_trashed_at",
        "assets",
        ["trashed_at"],
        sqlite_where=trashed,
        postgresql_where=trashed,
    )
