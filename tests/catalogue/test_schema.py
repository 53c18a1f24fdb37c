"""Migrations: up from every released revision, with a copy kept, by one process at a time."""

import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from filelock import FileLock
from sqlalchemy import Connection, text

from stablequeue.catalogue import Catalogue, MigrationReport, open_catalogue, schema
from stablequeue.catalogue.engine import open_engine
from stablequeue.catalogue.glance import open_glance
from stablequeue.catalogue.location import sqlite_path
from stablequeue.catalogue.revisions import REVISIONS
from stablequeue.errors import CatalogueBusy, CatalogueError, CatalogueTooNew, QueueError
from tests.catalogue.conftest import SQLITE_ONLY
from tests.catalogue.making import accepted, stored
from tests.catalogue.releases import load_release, released
from tests.support.postgres import PostgresServer

HEAD = REVISIONS[-1]
ROOT = Path(__file__).parents[2]


@pytest.fixture
def empty_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """URL of a database with nothing in it."""
    if backend == "sqlite":
        return f"sqlite:///{tmp_path / 'new folder' / 'catalogue.db'}"
    return str(request.getfixturevalue("postgres_database"))


@pytest.fixture
def catalogue_url(empty_url: str) -> str:
    """URL of an up to date, empty catalogue whose schema the test may change."""
    Catalogue(empty_url).migrate()
    return empty_url


@pytest.fixture
def next_revision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Give this release one more revision, which does what is handed in."""

    def add(body: str) -> None:
        folder = tmp_path / "migrations"
        source = Path(schema.__file__).with_name("migrations")
        shutil.copytree(source, folder, dirs_exist_ok=True)
        (folder / "versions" / "r9000_next.py").write_text(
            f"from alembic import op\nimport sqlalchemy as sa\nrevision = '9000'\n"
            f"down_revision = {HEAD!r}\n\ndef upgrade():\n    {body}\n",
            encoding="utf-8",
        )
        monkeypatch.setattr(schema, "_MIGRATIONS", folder)
        for module in ("schema", "revisions"):
            monkeypatch.setattr(f"stablequeue.catalogue.{module}.REVISIONS", (*REVISIONS, "9000"))

    return add


def set_revision(url: str, revision: str) -> None:
    """Say behind the catalogue's back which revision it is."""
    engine = open_engine(url, writing=True, patience_s=5)
    with engine.begin() as connection:
        connection.execute(
            text("UPDATE catalogue_version SET version_num = :new"), {"new": revision}
        )
    engine.dispose()


def test_an_empty_database_is_brought_up_to_date(empty_url: str) -> None:
    catalogue = Catalogue(empty_url)
    with pytest.raises(CatalogueError, match="stablequeue up"):
        catalogue.check()
    with pytest.raises(CatalogueError, match="stablequeue up"):
        accepted(catalogue)

    report = catalogue.migrate()

    assert report == MigrationReport(before="", after=HEAD)
    assert report.changed
    catalogue.check()
    accepted(catalogue)
    catalogue.close()


def test_migrating_again_does_nothing(empty_url: str, tmp_path: Path) -> None:
    catalogue = open_catalogue(empty_url)
    job = accepted(catalogue)
    report = catalogue.migrate()
    assert report == MigrationReport(before=HEAD, after=HEAD)
    assert not report.changed
    assert catalogue.request(job.job_id) == job
    assert not list(tmp_path.rglob("backups"))
    catalogue.close()


def test_the_list_of_revisions_is_alembics() -> None:
    config = Config()
    config.set_main_option(
        "script_location", str(Path(schema.__file__).with_name("migrations")).replace("%", "%%")
    )
    walked = ScriptDirectory.from_config(config).walk_revisions()
    assert tuple(reversed([script.revision for script in walked])) == REVISIONS


def test_models_and_migrations_agree(catalogue_url: str) -> None:
    engine = open_engine(catalogue_url, writing=True, patience_s=5)
    config = Config()
    config.set_main_option(
        "script_location", str(Path(schema.__file__).with_name("migrations")).replace("%", "%%")
    )
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.check(config)  # raises when a migration would be generated
        connection.execute(text("DROP INDEX ix_assets_blob_id"))
        with pytest.raises(Exception, match="ix_assets_blob_id"):
            command.check(config)
    engine.dispose()


@pytest.mark.parametrize("revision", REVISIONS)
def test_every_released_revision_comes_up_with_its_data(
    backend: str, revision: str, empty_url: str, request: pytest.FixtureRequest
) -> None:
    server: PostgresServer | None = None
    if backend == "postgresql":
        server = request.getfixturevalue("postgres_server")
    load_release(revision, empty_url, server)
    catalogue = Catalogue(empty_url)

    report = catalogue.migrate()

    assert (report.before, report.after) == (revision, HEAD)
    expected = released(revision)
    jobs = catalogue.requests(limit=1000)
    assert [job.request.prompt for job in jobs] == expected["prompts"]
    assert [str(job.state) for job in jobs] == expected["states"]
    assets = catalogue.search()
    assert [asset.prompt for asset in assets] == expected["assets"]
    for query, count in expected["searches"].items():
        assert len(catalogue.search(query)) == count, query
    assert len(catalogue.search(model="juggernaut")) == 1
    assert len(catalogue.trashed()) == 1
    catalogue.restore(catalogue.trashed()[0].id)
    assert len(catalogue.search()) == len(assets) + 1
    stored(catalogue)
    catalogue.close()


def test_a_newer_catalogue_is_refused_everywhere(catalogue_url: str) -> None:
    set_revision(catalogue_url, "9999")
    newer = Catalogue(catalogue_url)
    for refused in (newer.check, newer.migrate, newer.parked, open_glance(catalogue_url).parked):
        with pytest.raises(CatalogueTooNew, match=r"9999.*update StableQueue"):
            refused()
    newer.close()
    set_revision(catalogue_url, HEAD)
    newer.check()
    newer.close()


def test_an_older_catalogue_is_migrated_and_its_file_copied_before(
    catalogue: Catalogue, catalogue_url: str, next_revision: Callable[[str], None]
) -> None:
    job = accepted(catalogue)
    catalogue.close()
    next_revision("op.add_column('parked', sa.Column('extra', sa.Text()))")
    newer = Catalogue(catalogue_url)
    with pytest.raises(CatalogueError, match="older release"):
        newer.check()

    report = newer.migrate()

    assert (report.before, report.after) == (HEAD, "9000")
    assert newer.request(job.job_id) == job
    newer.close()
    path = sqlite_path(catalogue_url)
    if path is None:
        assert report.backup is None
        return
    assert report.backup is not None
    assert report.backup.parent == path.parent / "backups"
    assert re.fullmatch(rf"catalogue-{HEAD}-\d{{8}}T\d{{12}}Z\.db", report.backup.name)
    with closing(sqlite3.connect(report.backup)) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert copy.execute("SELECT version_num FROM catalogue_version").fetchall() == [(HEAD,)]
        assert copy.execute("SELECT job_id FROM requests").fetchall() == [(job.job_id,)]
    assert [file.name for file in report.backup.parent.iterdir()] == [report.backup.name]


@SQLITE_ONLY
def test_only_the_last_copies_are_kept(
    catalogue: Catalogue,
    catalogue_url: str,
    next_revision: Callable[[str], None],
) -> None:
    path = sqlite_path(catalogue_url)
    assert path is not None
    catalogue.close()
    other = path.parent / "backups" / "somebody else's.db"
    next_revision("op.execute('SELECT 1')")
    made: list[Path] = []
    for _ in range(schema.KEPT_BACKUPS + 2):
        report = Catalogue(catalogue_url).migrate()
        assert report.backup is not None
        made.append(report.backup)
        other.touch()
        set_revision(catalogue_url, HEAD)
    kept = set(other.parent.iterdir())
    assert kept == {other, *made[-schema.KEPT_BACKUPS :]}


def test_a_migration_that_fails_leaves_everything_as_it_was(
    catalogue: Catalogue, catalogue_url: str, next_revision: Callable[[str], None]
) -> None:
    job = accepted(catalogue)
    catalogue.close()
    next_revision(
        "op.add_column('parked', sa.Column('extra', sa.Text())); op.execute('SELECT nonsense')"
    )
    with pytest.raises(CatalogueError, match="nonsense"):
        Catalogue(catalogue_url).migrate()

    next_revision("op.add_column('parked', sa.Column('extra', sa.Text()))")
    report = Catalogue(catalogue_url).migrate()  # adding it again would fail
    assert (report.before, report.after) == (HEAD, "9000")
    assert catalogue.request(job.job_id) == job


@SQLITE_ONLY
def test_a_migration_that_breaks_references_is_undone(
    catalogue: Catalogue, catalogue_url: str, next_revision: Callable[[str], None]
) -> None:
    asset = stored(catalogue)
    catalogue.close()
    next_revision("op.execute('DELETE FROM blobs')")
    with pytest.raises(CatalogueError, match="table assets broken"):
        Catalogue(catalogue_url).migrate()
    next_revision("op.execute('SELECT 1')")
    Catalogue(catalogue_url).migrate()
    assert catalogue.asset(asset.id) == asset


def test_starting_at_the_same_time_migrates_once(empty_url: str) -> None:
    reports: list[MigrationReport] = []
    failures: list[QueueError] = []

    def start() -> None:
        try:
            reports.append(Catalogue(empty_url).migrate())
        except QueueError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert sorted(report.before for report in reports) == ["", *[HEAD] * 5]


def test_processes_starting_at_the_same_time_migrate_once(tmp_path: Path) -> None:
    script = (
        "import sys; from stablequeue.catalogue import Catalogue;"
        "print(Catalogue(sys.argv[1]).migrate().before or 'first')"
    )
    url = f"sqlite:///{tmp_path / 'catalogue.db'}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", script, url], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    told = [process.communicate(timeout=50)[0].strip() for process in processes]
    assert sorted(told) == [HEAD, "first"]


def test_a_process_killed_while_migrating_leaves_nothing_half_done(tmp_path: Path) -> None:
    script = """
import sys
from tests.catalogue.writers import die_at_statement
from stablequeue.catalogue import Catalogue
die_at_statement(12)
Catalogue(sys.argv[1]).migrate()
"""
    url = f"sqlite:///{tmp_path / 'catalogue.db'}"
    killed = subprocess.run([sys.executable, "-c", script, url], cwd=ROOT, check=False, timeout=50)
    assert killed.returncode != 0
    catalogue = Catalogue(url)
    assert catalogue.migrate() == MigrationReport(before="", after=HEAD)
    stored(catalogue)
    catalogue.close()


def test_waiting_for_another_migration_ends_with_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema, "PATIENCE_S", 0.2)
    path = tmp_path / "catalogue.db"
    with (
        FileLock(f"{path}.migrating"),
        pytest.raises(CatalogueBusy, match="try again"),
    ):
        Catalogue(f"sqlite:///{path}").migrate()


def test_an_old_sqlite_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "OLDEST_SQLITE", (99, 1))
    with pytest.raises(CatalogueError, match=r"99\.1 or newer"):
        Catalogue(f"sqlite:///{tmp_path / 'catalogue.db'}").migrate()


def test_a_file_that_is_no_catalogue_is_refused(tmp_path: Path) -> None:
    garbage = tmp_path / "notes.txt"
    garbage.write_text("this is no database" * 100, encoding="utf-8")
    for attempt in (
        Catalogue(f"sqlite:///{garbage}").migrate,
        Catalogue(f"sqlite:///{garbage}").check,
    ):
        with pytest.raises(CatalogueError, match="not a database"):
            attempt()
    assert garbage.read_text(encoding="utf-8").startswith("this is no database")
    with pytest.raises(CatalogueError, match="cannot be opened"):
        Catalogue(f"sqlite:///{tmp_path}").migrate()
    with pytest.raises(CatalogueError, match=re.escape(str(garbage))):
        Catalogue(f"sqlite:///{garbage / 'below' / 'catalogue.db'}").migrate()


def test_looking_at_a_missing_catalogue_does_not_make_one(tmp_path: Path) -> None:
    path = tmp_path / "catalogue.db"
    for look in (Catalogue(f"sqlite:///{path}").parked, open_glance(f"sqlite:///{path}").parked):
        with pytest.raises(CatalogueError, match="stablequeue up"):
            look()
    assert not path.exists()


def test_an_existing_sqlite_database_of_others_is_joined_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "shared.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('somebody else')")
        connection.commit()
    catalogue = open_catalogue(f"sqlite:///{path}")
    accepted(catalogue)
    catalogue.close()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM alembic_version").fetchall() == [
            ("somebody else",)
        ]


def test_the_revision_is_read_from_either_database(catalogue_url: str) -> None:
    engine = open_engine(catalogue_url, writing=False, patience_s=5)
    with engine.connect() as connection:
        assert isinstance(connection, Connection)
        assert schema.revision_of(connection) == HEAD
    engine.dispose()
