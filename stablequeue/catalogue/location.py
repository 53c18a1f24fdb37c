"""Where a catalogue is, from its URL, without importing a database library."""

import re
from pathlib import Path

from stablequeue.errors import SettingsError

_SQLITE = re.compile(r"sqlite(?:\+pysqlite)?:///")
_POSTGRESQL = re.compile(r"(?:postgresql(?:\+psycopg)?|postgres)://")


def sqlite_path(url: str) -> Path | None:
    """Return the file of an SQLite URL, None for PostgreSQL.

    Everything after the third slash is the path as it stands: nothing is unquoted, so every
    character a folder may have is allowed.

    Raises:
        SettingsError: Another kind of database, or SQLite in memory, which processes cannot share.
    """
    if found := _SQLITE.match(url):
        path = url[found.end() :]
        if not path or path.startswith((":memory:", "file:")):
            message = (
                "setting catalogue_url: SQLite needs a file, e.g. sqlite:////data/catalogue.db"
            )
            raise SettingsError(message)
        return Path(path).expanduser().absolute()
    if _POSTGRESQL.match(url):
        return None
    scheme = url.partition(":")[0] if ":" in url else "(none)"
    message = (
        f"setting catalogue_url: no support for {scheme!r}. "
        "Use sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    )
    raise SettingsError(message)


def postgresql_url(url: str) -> str:
    """Return a PostgreSQL URL with the driver we use, whatever way it was written."""
    return _POSTGRESQL.sub("postgresql+psycopg://", url, count=1)
