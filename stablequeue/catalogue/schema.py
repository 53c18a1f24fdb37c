"""Bringing a catalogue's schema up to date, with a copy kept before a file is changed."""

import os
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from glob import escape
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import Connection, create_engine, event, text
from sqlalchemy.pool import NullPool

from stablequeue.catalogue.engine import open_engine, translated
from stablequeue.catalogue.location import sqlite_path
from stablequeue.catalogue.records import MigrationReport
from stablequeue.catalogue.revisions import (
    REVISIONS,
    VERSION_TABLE,
    check_current,
    check_known,
    sqlite_revision,
)
from stablequeue.catalogue.sqlite_file import connect_sqlite
from stablequeue.errors import CatalogueBusy, CatalogueError

OLDEST_SQLITE = (3, 35)
KEPT_BACKUPS = 5
PATIENCE_S = 300.0
_ADVISORY_LOCK = 0x737461626C65  # "stable"; any number nobody else uses
_MIGRATIONS = Path(__file__).with_name("migrations")


def revision_of(connection: Connection) -> str:
    """Return the revision a database is at, "" when it is not ours yet."""
    if connection.dialect.name == "sqlite":
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)  # noqa: S101  # the only driver we use
        return sqlite_revision(raw)
    exists = text("SELECT to_regclass(:name) IS NOT NULL")
    if not connection.execute(exists, {"name": VERSION_TABLE}).scalar():
        return ""
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    return str(found or "")


def verify(connection: Connection) -> None:
    """Refuse a database this release cannot work with.

    Raises:
        CatalogueTooNew: Written by a newer release.
        CatalogueError: Not made yet, or of an older release.
    """
    check_current(revision_of(connection))


def migrate(url: str, name: str) -> MigrationReport:
    """Bring a database up to date; an SQLite file is made if it is not there.

    Any number of processes may call this at once: one does the work, in one transaction. Before an
    existing SQLite file is changed, a copy of it is put into the folder `backups` beside it.

    Args:
        url: As in the settings.
        name: What to call the database in messages.

    Raises:
        CatalogueTooNew: Written by a newer release.
        CatalogueBusy: Another process has been migrating, or writing, for minutes. Retryable.
        CatalogueError: It cannot be opened or changed; says why.
    """
    path = sqlite_path(url)
    with translated(name, PATIENCE_S):
        return _migrate_postgresql(url) if path is None else _migrate_sqlite(path)


def _migrate_postgresql(url: str) -> MigrationReport:
    engine = open_engine(url, writing=True, patience_s=PATIENCE_S)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _ADVISORY_LOCK})
            before = revision_of(connection)
            check_known(before)
            if before != REVISIONS[-1]:
                _upgrade(connection)
            return MigrationReport(before=before, after=revision_of(connection))
    finally:
        engine.dispose()


def _migrate_sqlite(path: Path) -> MigrationReport:
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        wanted = ".".join(map(str, OLDEST_SQLITE))
        message = f"Python's SQLite is {sqlite3.sqlite_version}; {wanted} or newer is needed"
        raise CatalogueError(message)
    if path.exists() and _is_current(path):
        return MigrationReport(before=REVISIONS[-1], after=REVISIONS[-1])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_name(path.name + ".migrating"), timeout=PATIENCE_S):
            return _migrate_alone(path)
    except Timeout:
        message = f"{path}: another process has been changing its schema for minutes; try again"
        raise CatalogueBusy(message) from None
    except OSError as error:
        message = f"{path}: {error.strerror or error}"
        raise CatalogueError(message) from error


def _is_current(path: Path) -> bool:
    with closing(connect_sqlite(path, patience_s=PATIENCE_S)) as raw:
        revision = sqlite_revision(raw)
        check_known(revision)
        mode = raw.execute("PRAGMA journal_mode").fetchone()[0]
        return revision == REVISIONS[-1] and mode == "wal"


def _migrate_alone(path: Path) -> MigrationReport:
    with closing(connect_sqlite(path, patience_s=PATIENCE_S, create=True)) as raw:
        before = sqlite_revision(raw)
        check_known(before)
        raw.execute("PRAGMA journal_mode = WAL")  # stays with the file
        if before == REVISIONS[-1]:
            return MigrationReport(before=before, after=before)
        backup = _back_up(raw, path, before) if before else None
    # Rebuilding a table drops it, and what refers to it must not notice: no foreign keys until the
    # check at the end.
    engine = create_engine(
        "sqlite://",
        creator=lambda: connect_sqlite(path, patience_s=PATIENCE_S, foreign_keys=False),
        poolclass=NullPool,
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    with engine.begin() as connection:
        _upgrade(connection)
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            message = f"{path}: the migration would leave table {broken[0]} broken; report this"
            raise CatalogueError(message)
        return MigrationReport(before=before, after=revision_of(connection), backup=backup)


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415  # a second, and hardly ever needed
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _back_up(raw: sqlite3.Connection, path: Path, revision: str) -> Path:
    """Copy the file as it is now, other processes writing or not, and drop the oldest copies."""
    folder = path.with_name("backups")
    folder.mkdir(exist_ok=True)
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
    target = folder / f"{path.stem}-{revision}-{moment}.db"
    unfinished = target.with_suffix(".unfinished")
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as copy:
        raw.backup(copy)
        copy.execute("PRAGMA journal_mode = DELETE")  # one file, complete in itself
    with unfinished.open("rb+") as file:
        os.fsync(file.fileno())
    unfinished.replace(target)
    kept = sorted(folder.glob(f"{escape(path.stem)}-*.db"), key=lambda copy: copy.stat().st_mtime)
    for old in kept[:-KEPT_BACKUPS]:
        old.unlink(missing_ok=True)
    return target
