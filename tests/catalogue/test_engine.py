"""Transactions, locks, and errors as people see them."""

import pickle
import sqlite3
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.dialects import sqlite
from sqlmodel import Session

from stablequeue.catalogue import AttemptState, Catalogue, JobState, Outcome, engine, recording
from stablequeue.catalogue.columns import UtcDateTime
from stablequeue.catalogue.engine import Database
from stablequeue.catalogue.location import postgresql_url, sqlite_path
from stablequeue.catalogue.part import now
from stablequeue.catalogue.sqlite_file import connect_sqlite
from stablequeue.catalogue.tables import ParkedRow
from stablequeue.errors import CatalogueBusy, CatalogueError, QueueError, SettingsError
from tests.catalogue.conftest import POSTGRESQL_ONLY, SQLITE_ONLY
from tests.catalogue.making import accepted, begun, new_asset, stored
from tests.support.postgres import PostgresServer


def database_of(catalogue: Catalogue) -> Database:
    return catalogue._db  # pyright: ignore[reportPrivateUsage]  # tested below its API


@contextmanager
def writer_of(url: str, server: PostgresServer | None) -> Generator[Callable[[str], Any]]:
    """Hold a connection that is in a transaction which wrote."""
    path = sqlite_path(url)
    if path is not None:
        with closing(connect_sqlite(path, patience_s=0)) as raw:
            raw.execute("BEGIN IMMEDIATE")
            yield raw.execute
            raw.execute("ROLLBACK")
        return
    assert server is not None
    with server.connect(url.rpartition("/")[2]) as connection:
        connection.execute("BEGIN")
        connection.execute("LOCK TABLE requests IN EXCLUSIVE MODE")
        yield lambda statement: connection.execute(statement.encode())
        connection.execute("ROLLBACK")


@pytest.fixture
def server(backend: str, request: pytest.FixtureRequest) -> PostgresServer | None:
    """The PostgreSQL server, where that is the database at hand."""
    return request.getfixturevalue("postgres_server") if backend == "postgresql" else None


def test_reading_cannot_write(catalogue: Catalogue) -> None:
    job = accepted(catalogue)

    def sneak(session: Session) -> None:
        session.connection().execute(text("DELETE FROM requests"))

    with pytest.raises(CatalogueError, match=r"read.?only|may not be written"):
        database_of(catalogue).read(sneak)
    assert catalogue.request(job.job_id) == job


@SQLITE_ONLY
def test_a_writer_holds_the_lock_from_its_beginning(
    catalogue: Catalogue, catalogue_url: str
) -> None:
    path = sqlite_path(catalogue_url)
    assert path is not None

    def read_then_write(session: Session) -> None:
        session.connection().execute(text("SELECT count(*) FROM parked")).scalar()
        with (
            closing(connect_sqlite(path, patience_s=0)) as other,
            pytest.raises(sqlite3.OperationalError, match="locked"),
        ):
            other.execute("BEGIN IMMEDIATE")
        session.connection().execute(text("DELETE FROM parked"))

    database_of(catalogue).write(read_then_write)


def test_waiting_for_another_writer_ends_with_busy_and_reading_goes_on(
    catalogue: Catalogue, catalogue_url: str, server: PostgresServer | None
) -> None:
    job = accepted(catalogue)
    impatient = Catalogue(catalogue_url, patience_s=0.2)
    with writer_of(catalogue_url, server):
        assert impatient.requests() == [job]
        with pytest.raises(CatalogueBusy, match="try again") as caught:
            accepted(impatient)
        assert caught.value.retryable
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
    assert accepted(impatient)
    impatient.close()


def test_a_patient_writer_gets_its_turn(
    catalogue: Catalogue, catalogue_url: str, server: PostgresServer | None
) -> None:
    done = threading.Event()

    def write() -> None:
        accepted(catalogue)
        done.set()

    with writer_of(catalogue_url, server):
        thread = threading.Thread(target=write)
        thread.start()
        assert not done.wait(0.3)
    thread.join()
    assert done.is_set()


@SQLITE_ONLY
def test_threads_of_one_process_wait_for_each_other_in_order(catalogue_url: str) -> None:
    impatient = Catalogue(catalogue_url, patience_s=0.2)
    inside, leave = threading.Event(), threading.Event()

    def hold(_session: Session) -> None:
        inside.set()
        assert leave.wait(20)

    thread = threading.Thread(target=database_of(impatient).write, args=(hold,))
    thread.start()
    assert inside.wait(20)
    with pytest.raises(CatalogueBusy):
        accepted(impatient)
    leave.set()
    thread.join()
    accepted(impatient)
    impatient.close()


def test_a_write_that_fails_leaves_nothing(catalogue: Catalogue) -> None:
    job = accepted(catalogue)

    def fail(session: Session) -> None:
        session.connection().execute(text("UPDATE requests SET state = 'cancelled'"))
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        database_of(catalogue).write(fail)
    assert catalogue.request(job.job_id) == job


@POSTGRESQL_ONLY
def test_writers_that_meet_on_postgresql_try_again(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = "new to both"
    stored(catalogue, models={"same model": "ab" * 32})  # so that only the blob is new
    attempts = [begun(catalogue, accepted(catalogue).job_id) for _ in range(2)]
    both = threading.Barrier(2)
    met: list[int] = []
    take = recording._take_blob  # pyright: ignore[reportPrivateUsage]

    def meet(session: Session, new: Any) -> int:
        if len(met) < 2:  # both looked and saw nothing before either writes
            met.append(1)
            both.wait(20)
        return take(session, new)

    monkeypatch.setattr("stablequeue.catalogue.recording._take_blob", meet)
    threads = [
        threading.Thread(
            target=catalogue.record_assets,
            args=(attempt.id, [new_asset(content, models={"same model": "ab" * 32})]),
        )
        for attempt in attempts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    blob = catalogue.blob("pictures", new_asset(content).sha256)
    assert blob is not None
    assert blob.refs == 2
    assert len(catalogue.search(model="same model")) == 3


def test_a_row_that_stays_a_duplicate_is_no_matter_of_trying_again(catalogue: Catalogue) -> None:
    runs: list[int] = []

    def twice(session: Session) -> None:
        runs.append(1)
        session.add(ParkedRow(server="gpu-a", reason="", since=now()))
        session.flush()
        session.connection().execute(
            text("INSERT INTO parked (server, reason, since) SELECT * FROM parked")
        )

    with pytest.raises(CatalogueError, match=r"(?i)unique") as caught:
        database_of(catalogue).write(twice)
    assert not caught.value.retryable
    assert len(runs) < 20
    assert catalogue.parked() == {}


def test_closing_is_not_the_end(catalogue: Catalogue) -> None:
    catalogue.close()
    catalogue.close()
    job = accepted(catalogue)
    catalogue.close()
    assert catalogue.requests() == [job]


@SQLITE_ONLY
def test_a_full_disk_is_said_in_one_line(
    catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalogue.close()

    def small(path: Path, **options: Any) -> sqlite3.Connection:
        connection = connect_sqlite(path, **options)
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 3}")
        return connection

    monkeypatch.setattr(engine, "connect_sqlite", small)
    with pytest.raises(CatalogueError, match="disk is full; make room") as caught:
        accepted(catalogue, "a long story " * 5000)
    assert "\n" not in str(caught.value)
    assert accepted(catalogue, "short")
    catalogue.close()


@SQLITE_ONLY
def test_a_damaged_file_is_said_in_one_line(catalogue: Catalogue, catalogue_url: str) -> None:
    path = sqlite_path(catalogue_url)
    assert path is not None
    for _ in range(30):
        stored(catalogue)
    catalogue.close()
    data = bytearray(path.read_bytes())
    data[4096:] = b"\xff" * (len(data) - 4096)
    path.write_bytes(data)
    with pytest.raises(CatalogueError, match="restore one of the copies"):
        catalogue.requests()
    catalogue.close()
    path.unlink()


def test_a_server_that_is_not_there_is_busy_and_its_password_stays_secret() -> None:
    url = "postgresql://somebody:hunter2@127.0.0.1:1/catalogue"
    for call in (Catalogue(url, patience_s=3).parked, Catalogue(url).migrate):
        with pytest.raises(CatalogueBusy, match="Is the server running") as caught:
            call()
        assert "hunter2" not in str(caught.value)
        assert "somebody:***@127.0.0.1:1/catalogue" in str(caught.value)


@pytest.mark.postgresql
def test_refused_credentials_are_no_matter_of_trying_again(postgres_server: PostgresServer) -> None:
    url = postgres_server.url().replace(postgres_server.password, "hunter2")
    missing = postgres_server.url("no_such_database")
    for wrong in (url, missing):
        with pytest.raises(CatalogueError) as caught:
            Catalogue(wrong).parked()
        assert not caught.value.retryable
        assert "hunter2" not in str(caught.value)
        assert postgres_server.password not in str(caught.value)


@pytest.mark.postgresql
def test_a_lost_connection_is_replaced(
    postgres_server: PostgresServer, postgres_database: str
) -> None:
    catalogue = Catalogue(postgres_database)
    catalogue.migrate()
    job = accepted(catalogue)
    with postgres_server.connect() as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
            [postgres_database.rpartition("/")[2]],
        )
    assert catalogue.requests() == [job]
    assert accepted(catalogue)
    catalogue.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "catalogue.db",
        "mysql://localhost/x",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "postgresql+asyncpg://localhost/x",
    ],
)
def test_a_url_of_another_kind_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="catalogue_url"):
        Catalogue(url)


def test_a_url_that_makes_no_sense_is_refused() -> None:
    for url in ("postgresql://u:hunter2@[::1/x", "postgresql://u:hunter2@host:port/x"):
        with pytest.raises(SettingsError, match="catalogue_url") as caught:
            Catalogue(url)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(SettingsError, match=r"stablequeue\[postgresql\]"):
        Catalogue("postgresql://127.0.0.1:1/x").parked()


def test_a_naive_time_is_refused() -> None:
    naive = datetime(2026, 11, 21)  # noqa: DTZ001  # what is refused
    with pytest.raises(ValueError, match="time zone"):
        UtcDateTime().process_bind_param(naive, sqlite.dialect())
    with pytest.raises(ValueError, match="time zone"):
        Outcome(state=JobState.FAILED, finished_at=naive)


def test_a_path_may_hold_any_character(tmp_path: Path) -> None:
    folder = tmp_path / "a b%20c?d#e'f;ü"
    catalogue = Catalogue(f"sqlite:///{folder / 'cat.db'}")
    catalogue.migrate()
    job = accepted(catalogue)
    assert catalogue.requests() == [job]
    catalogue.close()
    assert (folder / "cat.db").exists()


def test_postgresql_urls_get_our_driver() -> None:
    for written in ("postgres://a/b", "postgresql://a/b", "postgresql+psycopg://a/b"):
        assert postgresql_url(written) == "postgresql+psycopg://a/b"
        assert sqlite_path(written) is None


@SQLITE_ONLY
def test_every_write_reaches_the_disk(catalogue: Catalogue, catalogue_url: str) -> None:
    path = sqlite_path(catalogue_url)
    assert path is not None

    def settings(session: Session) -> list[Any]:
        pragmas = ("synchronous", "journal_mode", "foreign_keys", "busy_timeout")
        connection = session.connection()
        return [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas]

    assert database_of(catalogue).write(settings) == [2, "wal", 1, 20_000]


def test_an_update_returns_at_once_where_nobody_else_writes(catalogue: Catalogue) -> None:
    attempt = begun(catalogue, accepted(catalogue).job_id)
    begun_at = time.monotonic()
    assert catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
    assert time.monotonic() - begun_at < 5, "no waiting built in"


def test_errors_of_the_catalogue_are_one_tree() -> None:
    assert issubclass(CatalogueBusy, CatalogueError)
    assert issubclass(CatalogueError, QueueError)
