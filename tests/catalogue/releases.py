"""Catalogues as released: for each revision a dump of each database and what is in it.

When a revision is added to `stablequeue.catalogue.revisions`, its dumps are made once, before it is
released, and never changed: `python -m tests.catalogue.releases` writes what is missing into the
folder `released`.
"""

import json
import re
import sqlite3
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from stablequeue.catalogue import AttemptState, Catalogue, Outcome
from stablequeue.catalogue.location import sqlite_path
from stablequeue.catalogue.records import JobState
from stablequeue.catalogue.revisions import REVISIONS
from stablequeue.engines.base import Kind
from tests.catalogue.making import accepted, begun, stored
from tests.support.postgres import PostgresServer, binaries, run_postgres

FOLDER = Path(__file__).with_name("released")
SEARCHES = ("cat", "ca*", '"black cat"', "creme", "nothing", "portrait")


def released(revision: str) -> dict[str, Any]:
    """Return what the dumps of a revision hold."""
    data: dict[str, Any] = json.loads((FOLDER / f"{revision}.json").read_text(encoding="utf-8"))
    return data


def load_release(revision: str, url: str, server: PostgresServer | None) -> None:
    """Fill an empty database as the release with this revision left it."""
    path = sqlite_path(url)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript((FOLDER / f"{revision}.sqlite.sql").read_text("utf-8"))
        return
    assert server is not None
    with server.connect(url.rpartition("/")[2]) as connection:
        dump = (FOLDER / f"{revision}.postgresql.sql").read_text(encoding="utf-8")
        connection.execute(dump.encode())


def fill(catalogue: Catalogue) -> dict[str, Any]:
    """Put something of everything into a catalogue and return what is there."""
    waiting = accepted(catalogue, "a waiting cat", tags=["Portrait"], count=3)
    failed = accepted(catalogue, "a failed dog", server="gpu-a")
    catalogue.mark_sent(failed.job_id, "run-1")
    attempt = begun(catalogue, failed.job_id)
    catalogue.update_attempt(attempt.id, AttemptState.FAILED, error="out of memory")
    catalogue.finish(failed.job_id, Outcome(state=JobState.FAILED, code="out_of_memory"))
    open_job = accepted(catalogue, "an open bird", seed=2**53 - 1)
    begun(catalogue, open_job.job_id)
    stored(
        catalogue,
        "a black cat, Crème brûlée",
        tags=("Portrait",),
        models={"SDXL/Juggernaut.safetensors": "ab" * 32},
        params={"Steps": 20},
        infotext="a black cat\nSteps: 20",
        content="same",
    )
    stored(catalogue, "a white cat", kind=Kind.VIDEO, mime="video/mp4", content="same")
    catalogue.trash(stored(catalogue, "a thrown cat").id)
    catalogue.park("gpu-a", "the disk is full")
    jobs = catalogue.requests()
    assert catalogue.request(waiting.job_id).seed == 7
    return {
        "prompts": [job.request.prompt for job in jobs],
        "states": [str(job.state) for job in jobs],
        "assets": [asset.prompt for asset in catalogue.search()],
        "searches": {query: len(catalogue.search(query)) for query in SEARCHES},
    }


def dump_sqlite(path: Path) -> Iterator[str]:
    """Yield SQL that makes a copy of an SQLite catalogue."""
    with closing(sqlite3.connect(path)) as connection:
        # The tables an FTS5 table keeps its index in are made with it.
        masters = [
            (kind, name, sql)
            for kind, name, sql in connection.execute("SELECT type, name, sql FROM sqlite_master")
            if sql and not name.startswith(("sqlite_", "asset_search_"))
        ]
        for line in connection.iterdump():
            statement = re.match(r'INSERT INTO "?([a-z_]+)"?', line)
            if statement and statement[1].startswith("asset_search"):
                continue
            if statement and statement[1] == "sqlite_master":
                continue
            if statement or (line.startswith("CREATE TABLE") and "asset_search" not in line):
                yield f"{line}\n"
        for kind, name, sql in masters:
            if kind == "table" and name != "asset_search":
                continue
            yield f"{sql};\n"
            if name == "asset_search":
                yield "INSERT INTO asset_search(rowid, search)"
                yield " SELECT id, search FROM assets WHERE trashed_at IS NULL;\n"


def dump_postgresql(server: PostgresServer, database: str) -> Iterator[str]:
    """Yield SQL that makes a copy of a PostgreSQL catalogue."""
    folder = binaries()
    assert folder is not None
    done = subprocess.run(
        [
            *(str(folder / "pg_dump"), "-h", "127.0.0.1", "-p", str(server.port), "-U"),
            *("stablequeue", "--inserts", "--no-owner", "--no-comments", database),
        ],
        env={"PGPASSWORD": server.password},
        check=True,
        capture_output=True,
        text=True,
    )
    for line in done.stdout.splitlines():
        # Comments, psql's own commands, and what later servers do not know.
        if line and not line.startswith(("--", "\\", "SET ", "SELECT pg_catalog.set_config")):
            yield f"{line}\n"


def main() -> None:
    """Write the dumps of today's revision, unless they are there."""
    revision = REVISIONS[-1]
    if (FOLDER / f"{revision}.json").exists():
        raise SystemExit(f"{revision} is dumped already; what was released never changes")
    folder = binaries()
    assert folder is not None, "PostgreSQL's binaries are needed"
    with tempfile.TemporaryDirectory() as temporary, run_postgres(folder) as server:
        path = Path(temporary) / "catalogue.db"
        catalogue = Catalogue(f"sqlite:///{path}")
        catalogue.migrate()
        expected = fill(catalogue)
        catalogue.close()
        (FOLDER / f"{revision}.sqlite.sql").write_text("".join(dump_sqlite(path)), "utf-8")
        with server.database() as name:
            catalogue = Catalogue(server.url(name))
            catalogue.migrate()
            assert fill(catalogue) == expected
            catalogue.close()
            dump = "".join(dump_postgresql(server, name))
            (FOLDER / f"{revision}.postgresql.sql").write_text(dump, "utf-8")
        text = json.dumps(expected, indent=2, ensure_ascii=False)
        (FOLDER / f"{revision}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
