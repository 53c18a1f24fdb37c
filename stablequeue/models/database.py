"""Opening `models.db`: made, brought up to date or refused.

The version stands in SQLite's `user_version`. An older file is copied beside itself and changed
step by step in one transaction, because it holds usage, pins and tags that nobody can make again.
"""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection
from sqlalchemy.dialects import sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from stablequeue.catalogue.engine import Database
from stablequeue.catalogue.sqlite_file import connect_sqlite, sqlite_error
from stablequeue.errors import CatalogueBusy, CatalogueError, CatalogueTooNew
from stablequeue.models.tables import Table

PATIENCE_S = 60.0

UPGRADES: Sequence[Callable[[sqlite3.Connection], None]] = ()
"""Step i brings a file of version i + 1 to version i + 2."""


def open_database(
    path: Path, upgrades: Sequence[Callable[[sqlite3.Connection], None]] = UPGRADES
) -> Database:
    """Return the database, made or brought up to date. Any number of processes may call this.

    Args:
        path: Of the file; its folder is made.
        upgrades: Steps from older versions.

    Raises:
        CatalogueTooNew: Written by a newer release.
        CatalogueBusy: Another process has been changing it for a minute. Retryable.
        CatalogueError: It is damaged, or cannot be opened; says what to do.
    """
    path = path.absolute()
    newest = len(upgrades) + 1
    try:
        if not path.exists() or _version(path) != newest:
            path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{path}.migrating", timeout=PATIENCE_S):
                _prepare(path, upgrades)
    except Timeout:
        message = f"{path}: another process has been changing it for a minute; try again"
        raise CatalogueBusy(message) from None
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    except OSError as error:
        raise CatalogueError(f"{path}: {error.strerror or error}") from error
    return Database(f"sqlite:///{path}", first_use=_nothing)


def _nothing(_connection: Connection) -> None:
    """Nothing is to be checked at first use: opening did it."""


def _version(path: Path) -> int:
    with closing(connect_sqlite(path, patience_s=PATIENCE_S)) as raw:
        return int(raw.execute("PRAGMA user_version").fetchone()[0])


def _prepare(path: Path, upgrades: Sequence[Callable[[sqlite3.Connection], None]]) -> None:
    newest = len(upgrades) + 1
    with closing(connect_sqlite(path, patience_s=PATIENCE_S, create=True)) as raw:
        version = int(raw.execute("PRAGMA user_version").fetchone()[0])
        if version > newest:
            message = (
                f"{path}: written by a newer release (version {version}, this one knows {newest});"
                " update StableQueue"
            )
            raise CatalogueTooNew(message)
        raw.execute("PRAGMA journal_mode = WAL")  # stays with the file
        if version == newest:
            return
        if version:
            _back_up(raw, path, version)
        raw.execute("BEGIN IMMEDIATE")
        try:
            if version == 0:
                _create(raw)
            else:
                for step in upgrades[version - 1 :]:
                    step(raw)
            raw.execute(f"PRAGMA user_version = {newest}")
            raw.execute("COMMIT")
        except BaseException:
            raw.execute("ROLLBACK")
            raise


def _create(raw: sqlite3.Connection) -> None:
    dialect = sqlite.dialect()
    for table in Table.metadata.sorted_tables:
        raw.execute(str(CreateTable(table).compile(dialect=dialect)))
        for index in sorted(table.indexes, key=lambda one: str(one.name)):
            raw.execute(str(CreateIndex(index).compile(dialect=dialect)))


def _back_up(raw: sqlite3.Connection, path: Path, version: int) -> None:
    target = path.with_name(f"{path.stem}-version-{version}{path.suffix}")
    unfinished = target.with_suffix(".unfinished")
    with closing(sqlite3.connect(unfinished)) as copy:
        raw.backup(copy)
    unfinished.replace(target)


def _damaged(path: Path, error: sqlite3.Error) -> CatalogueError:
    if getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return CatalogueError(
            f"{path}: the record of models is damaged; move the file away and run:"
            " stablequeue models scan (usage counts, pins and tags in it are lost)"
        )
    return sqlite_error(str(path), error, PATIENCE_S)
