"""Opening an SQLite file as the catalogue wants it; imports nothing but the standard library."""

import sqlite3
from pathlib import Path

from stablequeue.errors import CatalogueBusy, CatalogueError

_ADVICE = {
    "SQLITE_CANTOPEN": "there is no catalogue here, or it cannot be opened; run: stablequeue up",
    "SQLITE_FULL": "the disk is full; make room and try again",
    "SQLITE_READONLY": "the file may not be written; check its owner and permissions",
    "SQLITE_CORRUPT": "the file is damaged; restore one of the copies in the folder backups",
    "SQLITE_NOTADB": "this is not a database; check the setting catalogue_url",
    "SQLITE_IOERR": "the disk failed or is full; check it and try again",
}


def connect_sqlite(
    path: Path,
    *,
    patience_s: float,
    query_only: bool = False,
    create: bool = False,
    foreign_keys: bool = True,
) -> sqlite3.Connection:
    """Open an SQLite file with our settings; it must exist unless `create`.

    Transactions are begun by hand. The connection may change threads, one at a time.
    """
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode={'rwc' if create else 'rw'}",
        uri=True,
        timeout=patience_s,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")  # macOS: to the disk, not only to its cache
        connection.execute(f"PRAGMA foreign_keys = {'ON' if foreign_keys else 'OFF'}")
        connection.execute("PRAGMA cache_size = -16000")  # KiB
        connection.execute("PRAGMA journal_size_limit = 67108864")
        if query_only:
            connection.execute("PRAGMA query_only = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def busy(name: str, patience_s: float) -> CatalogueBusy:
    """Return the error for a database that others kept locked."""
    return CatalogueBusy(f"{name}: other writers kept it locked for {patience_s:g} s; try again")


def sqlite_error(name: str, error: sqlite3.Error, patience_s: float) -> CatalogueError:
    """Return our error for one of SQLite's; `name` is what to call the database."""
    code = getattr(error, "sqlite_errorname", "")
    if code.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_PROTOCOL")):
        return busy(name, patience_s)
    for start, advice in _ADVICE.items():
        if code.startswith(start):
            return CatalogueError(f"{name}: {advice}")
    return CatalogueError(f"{name}: {one_line(error)}")


def one_line(error: BaseException | None) -> str:
    """Return the first line of a message, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
