"""Which revisions of the schema there are; light, for those who only look.

Alembic takes a second to import, so it is only asked when there is something to do.
"""

import sqlite3

from stablequeue.errors import CatalogueError, CatalogueTooNew

REVISIONS = ("0001",)
"""Every revision, oldest first; the last one is what this release needs."""

VERSION_TABLE = "catalogue_version"
"""Not Alembic's usual name: Prefect's own tables may be in the same database."""


def check_known(revision: str) -> None:
    """Refuse a revision this release has not heard of.

    Raises:
        CatalogueTooNew: Written by a newer release.
    """
    if revision and revision not in REVISIONS:
        message = f"the catalogue was written by a newer release ({revision}); update StableQueue"
        raise CatalogueTooNew(message)


def check_current(revision: str) -> None:
    """Refuse a revision this release cannot work with; "" stands for an empty database.

    Raises:
        CatalogueTooNew: Written by a newer release.
        CatalogueError: Not made yet, or of an older release.
    """
    check_known(revision)
    if revision != REVISIONS[-1]:
        state = "is of an older release" if revision else "has not been set up"
        message = f"the catalogue {state}; run: stablequeue up"
        raise CatalogueError(message)


def sqlite_revision(connection: sqlite3.Connection) -> str:
    """Return the revision of an SQLite file, "" when it is not ours yet."""
    query = "SELECT count(*) FROM sqlite_master WHERE name = ?"
    if not connection.execute(query, (VERSION_TABLE,)).fetchone()[0]:
        return ""
    row = connection.execute(f"SELECT version_num FROM {VERSION_TABLE}").fetchone()  # noqa: S608
    return str(row[0]) if row else ""
