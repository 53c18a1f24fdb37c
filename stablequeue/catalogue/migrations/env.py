"""Run by Alembic: migrates the connection it is handed, inside the transaction already begun.

There is no offline mode: only `stablequeue.catalogue.schema` runs migrations.
"""

from typing import Any

from alembic import context
from sqlalchemy import Connection

from stablequeue.catalogue.revisions import VERSION_TABLE
from stablequeue.catalogue.tables import Table

FTS5_TABLES = "asset_search"  # and its shadow tables


def ours(_object: Any, name: str | None, kind: str, _reflected: bool, _other: Any) -> bool:
    """Leave out what the models do not describe, when they are compared with a database."""
    if kind == "table":
        return not (name or "").startswith(FTS5_TABLES)
    on_postgresql = context.get_context().dialect.name == "postgresql"
    return on_postgresql or name != "ix_assets_search"


connection: Connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Table.metadata,
    version_table=VERSION_TABLE,
    include_object=ours,
    transactional_ddl=True,  # also on SQLite, whose transaction we begin ourselves
    compare_type=True,
)
with context.begin_transaction():
    context.run_migrations()
