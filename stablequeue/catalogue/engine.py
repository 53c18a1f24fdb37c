"""Connections and transactions: reads that cannot write, writes that are immediate and short.

SQLite lets one process write at a time, and a transaction that began by reading fails at once when
another commits in between, whatever the timeout. So every write transaction is `BEGIN IMMEDIATE`,
and reading connections are `query_only`: SQLite itself refuses to upgrade them. Within a process
writers queue on a lock, because SQLite's own waiting polls and is unfair.
"""

import os
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar
from weakref import WeakSet

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.pool import QueuePool
from sqlmodel import Session

from stablequeue.catalogue.location import postgresql_url, sqlite_path
from stablequeue.catalogue.sqlite_file import busy, connect_sqlite, one_line, sqlite_error
from stablequeue.errors import CatalogueBusy, CatalogueError, SettingsError

T = TypeVar("T")

POOL_SIZE = 5
_TRIES = 10
_DUPLICATE = "23505"  # two writers made the same row: the second finds it when it runs again
_CONFLICTS = {_DUPLICATE, "40001", "40P01"}  # serialization, deadlock
_BUSY_STATES = {"40001", "40P01", "55P03", "53300", "57014"}  # lock, too many clients, timeout


class Database:
    """One database, as seen by one process.

    Nothing is opened before the first transaction, and a forked child opens its own.

    Args:
        url: As in the settings.
        first_use: Called with a reading connection once a process, before its first transaction.
        patience_s: How long to wait for other writers, in seconds.

    Attributes:
        path: The file of an SQLite database, else None.
        name: What to call it in messages; never with a password.

    Raises:
        SettingsError: The URL is wrong.
    """

    def __init__(
        self,
        url: str,
        *,
        first_use: Callable[[Connection], None],
        patience_s: float = 30.0,
    ) -> None:
        self.url = url
        self.path = sqlite_path(url)
        self.name = str(self.path) if self.path is not None else public_url(url)
        self._first_use = first_use
        self._patience_s = patience_s
        self._opening = threading.Lock()
        self._open: _Open | None = None
        _databases.add(self)

    def read(self, work: Callable[[Session], T]) -> T:
        """Run `work` on one unchanging view of the data.

        Raises:
            CatalogueBusy: No connection in time. Retryable.
            CatalogueError: Anything else; says what to do.
        """
        opened = self._ready()
        with (
            translated(self.name, self._patience_s),
            Session(opened.reader, expire_on_commit=False) as session,
        ):
            return work(session)

    def write(self, work: Callable[[Session], T]) -> T:
        """Run `work` in one immediate transaction and commit it.

        On PostgreSQL `work` runs again when another writer came in between, so it must do nothing
        outside the database.

        Raises:
            CatalogueBusy: Locked by others for too long. Retryable.
            CatalogueError: Anything else; says what to do. Nothing was written.
        """
        opened = self._ready()
        with translated(self.name, self._patience_s), self._turn(opened):
            for attempt in range(_TRIES):
                try:
                    with Session(opened.writer, expire_on_commit=False) as session, session.begin():
                        return work(session)
                except DBAPIError as error:
                    if attempt == _TRIES - 1 or _sqlstate(error) not in _CONFLICTS:
                        raise
                time.sleep(random.uniform(0, 0.005) * 2**attempt)  # noqa: S311  # not a secret
        raise AssertionError  # pragma: no cover  # the loop returns or raises

    def verify(self) -> None:
        """Run `first_use` now, whether or not it ran before."""
        opened = self._ready()
        with translated(self.name, self._patience_s), opened.reader.connect() as connection:
            self._first_use(connection)

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        with self._opening:
            if self._open is not None:
                self._open.dispose()
            self._open = None

    def leave_to_parent(self) -> None:
        """In a forked child: leave the parent's connections as they are, and open new ones."""
        self._opening = threading.Lock()
        if self._open is not None:
            # Not even garbage is collected: closing them would end the parent's sessions.
            _inherited.append(self._open)
            self._open = None

    def _ready(self) -> "_Open":
        opened = self._open
        if opened is not None:
            return opened
        with self._opening:
            if self._open is None:
                opened = _Open(
                    reader=open_engine(self.url, writing=False, patience_s=self._patience_s),
                    writer=open_engine(self.url, writing=True, patience_s=self._patience_s),
                )
                try:
                    with (
                        translated(self.name, self._patience_s),
                        opened.reader.connect() as connection,
                    ):
                        self._first_use(connection)
                except BaseException:
                    opened.dispose()
                    raise
                self._open = opened
            return self._open

    @contextmanager
    def _turn(self, opened: "_Open") -> Generator[None]:
        if self.path is None:
            yield
            return
        if not opened.writing.acquire(timeout=self._patience_s):
            raise busy(self.name, self._patience_s)
        try:
            yield
        finally:
            opened.writing.release()


@contextmanager
def translated(name: str, patience_s: float) -> Generator[None]:
    """Turn what drivers raise into our errors.

    Args:
        name: What to call the database.
        patience_s: How long was waited for other writers, in seconds.
    """
    try:
        yield
    except PoolTimeout as error:
        raise busy(name, patience_s) from error
    except sqlite3.Error as error:
        raise sqlite_error(name, error, patience_s) from error
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error):
            raise sqlite_error(name, error.orig, patience_s) from error
        raise _postgresql_error(name, error, patience_s) from error


def _postgresql_error(name: str, error: DBAPIError, patience_s: float) -> CatalogueError:
    if _sqlstate(error) in _BUSY_STATES:
        return busy(name, patience_s)
    reason = one_line(error.orig)
    refused = any(words in reason for words in ("authentication failed", "does not exist"))
    lost = _sqlstate(error) == "" or _sqlstate(error).startswith(("08", "57P"))
    if isinstance(error, OperationalError) and lost and not refused:
        return CatalogueBusy(f"{name}: no connection ({reason}). Is the server running?")
    return CatalogueError(f"{name}: {reason}")


@dataclass(frozen=True)
class _Open:
    """Engines of one process."""

    reader: Engine
    writer: Engine
    writing: threading.Lock = field(default_factory=threading.Lock)

    def dispose(self) -> None:
        """Close every connection that is not in use."""
        self.reader.dispose()
        self.writer.dispose()


_databases: WeakSet[Database] = WeakSet()
_inherited: list[_Open] = []


def _after_fork() -> None:
    for database in list(_databases):
        database.leave_to_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def open_engine(url: str, *, writing: bool, patience_s: float) -> Engine:
    """Return an engine whose transactions are immediate (`writing`) or cannot write.

    Raises:
        SettingsError: The URL is wrong, or the driver for PostgreSQL is not installed.
    """
    path = sqlite_path(url)
    if path is None:
        return _postgresql_engine(url, writing=writing, patience_s=patience_s)

    def connect() -> sqlite3.Connection:
        return connect_sqlite(path, patience_s=patience_s, query_only=not writing)

    engine = create_engine(
        "sqlite://",
        creator=connect,
        poolclass=QueuePool,
        hide_parameters=True,
        pool_size=POOL_SIZE,
        max_overflow=-1,
        pool_timeout=patience_s,
    )
    begin = "BEGIN IMMEDIATE" if writing else "BEGIN"

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine


def public_url(url: str) -> str:
    """Return a PostgreSQL URL as it may be shown: without its password.

    Raises:
        SettingsError: It is not a URL.
    """
    try:
        return make_url(postgresql_url(url)).render_as_string(hide_password=True)
    except (ArgumentError, ValueError):
        # Not chained: the original names the URL, password and all.
        message = (
            "setting catalogue_url: not a database URL. "
            "Use postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        )
        raise SettingsError(message) from None


def _postgresql_engine(url: str, *, writing: bool, patience_s: float) -> Engine:
    options = f"-c timezone=UTC -c lock_timeout={int(patience_s * 1000)}"
    arguments: dict[str, Any] = {
        "options": options,
        "connect_timeout": max(2, int(patience_s)),
        "application_name": "stablequeue",
        # A prepared plan does not see the words searched for, which decide between index and scan.
        "prepare_threshold": None,
    }
    try:
        return create_engine(
            postgresql_url(url),
            connect_args=arguments,
            hide_parameters=True,
            execution_options={} if writing else {"postgresql_readonly": True},
            isolation_level="READ COMMITTED" if writing else "REPEATABLE READ",
            pool_size=POOL_SIZE,
            max_overflow=POOL_SIZE,
            pool_timeout=patience_s,
            pool_pre_ping=True,
        )
    except ModuleNotFoundError as error:
        message = "PostgreSQL needs one more package; install: stablequeue[postgresql]"
        raise SettingsError(message) from error


def _sqlstate(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
