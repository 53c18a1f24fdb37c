"""Every test of the catalogue runs on SQLite and on PostgreSQL, each on a database of its own."""

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from psycopg import sql
from sqlalchemy.pool import QueuePool

from stablequeue.catalogue import Catalogue
from stablequeue.catalogue.location import sqlite_path
from stablequeue.catalogue.tables import Table
from tests.support.postgres import PostgresServer, postgres_database, postgres_server

__all__ = ["postgres_database", "postgres_server"]

BACKENDS = ("sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql))

SQLITE_ONLY = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
POSTGRESQL_ONLY = pytest.mark.parametrize("backend", BACKENDS[1:], indirect=True)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> str:
    """Name of the database at hand."""
    return str(request.param)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An up to date SQLite catalogue to copy."""
    path = tmp_path_factory.mktemp("template") / "catalogue.db"
    Catalogue(f"sqlite:///{path}").migrate()
    return path


@pytest.fixture(scope="session")
def shared_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Name of an up to date PostgreSQL catalogue that every test leaves empty."""
    with postgres_server.database() as name:
        Catalogue(postgres_server.url(name)).migrate()
        yield name


@pytest.fixture
def catalogue_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of an up to date, empty catalogue."""
    if backend == "sqlite":
        template: Path = request.getfixturevalue("sqlite_template")
        path = tmp_path / "catalogue.db"
        shutil.copy(template, path)
        yield f"sqlite:///{path}"
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name: str = request.getfixturevalue("shared_database")
    yield server.url(name)
    empty(server, name)


def empty(server: PostgresServer, database: str) -> None:
    """Delete every row and count from 1 again; a new database for each test takes far longer."""
    tables = sql.SQL(", ").join(map(sql.Identifier, Table.metadata.tables))
    with server.connect(database) as connection:
        connection.execute(sql.SQL("TRUNCATE {} RESTART IDENTITY").format(tables))


@pytest.fixture
def catalogue(catalogue_url: str, request: pytest.FixtureRequest) -> Iterator[Catalogue]:
    """An empty catalogue, checked afterwards for transactions left open."""
    opened = Catalogue(catalogue_url, patience_s=20)
    yield opened
    assert_returned(opened)
    path = sqlite_path(catalogue_url)
    if path is not None:
        assert_unlocked(path)
    else:
        server: PostgresServer = request.getfixturevalue("postgres_server")
        assert_idle(server, catalogue_url.rpartition("/")[2])
    opened.close()


def assert_returned(catalogue: Catalogue) -> None:
    """Fail when a connection was not given back."""
    opened = catalogue._db._open  # pyright: ignore[reportPrivateUsage]  # looks behind the API
    for engine in (opened.reader, opened.writer) if opened else ():
        assert isinstance(engine.pool, QueuePool)
        assert engine.pool.checkedout() == 0


def assert_unlocked(path: Path) -> None:
    """Fail when anybody holds a transaction on an SQLite file."""
    with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
        blocked, _, _ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    assert not blocked, "somebody still reads"


def assert_idle(server: PostgresServer, database: str) -> None:
    """Fail when anybody holds a transaction or a lock in a PostgreSQL database."""
    with server.connect() as connection:
        busy = connection.execute(
            "SELECT state, query FROM pg_stat_activity WHERE datname = %s AND state <> 'idle'",
            [database],
        ).fetchall()
    assert not busy
