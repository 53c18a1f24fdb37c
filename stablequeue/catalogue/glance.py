"""Quick looks at the catalogue: what `ls` and `show` need, without SQLModel and pydantic.

The same answers as `Catalogue` gives, by the standard library's SQLite. A catalogue on PostgreSQL
has no short cut: there it is the full one.
"""

import json
import sqlite3
from collections.abc import Collection, Generator, Iterable
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from stablequeue.catalogue.location import sqlite_path
from stablequeue.catalogue.records import JobState, Outcome, Parked, StoredRequest
from stablequeue.catalogue.revisions import check_current, sqlite_revision
from stablequeue.catalogue.sqlite_file import connect_sqlite, sqlite_error
from stablequeue.catalogue.texts import folded_tag, job_id_ends, no_job, several_jobs

PATIENCE_S = 30.0
MOST_LISTED = 1000
LARGEST_ID = 2**63 - 1
_CHUNK = 500  # values in one statement


class Glance(Protocol):
    """What can be looked up quickly; see `Catalogue` for what each method says."""

    def request(self, job_id: str) -> StoredRequest:
        """Return one job, by its id or a part of it."""
        ...

    def requests(
        self,
        *,
        states: Collection[JobState] = (),
        server: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[StoredRequest]:
        """Return jobs, newest first."""
        ...

    def requests_by_id(self, job_ids: Iterable[str]) -> dict[str, StoredRequest]:
        """Return those of these jobs that there are."""
        ...

    def outcomes(self, job_ids: Iterable[str]) -> dict[str, Outcome]:
        """Return how those of these jobs ended that have."""
        ...

    def parked(self) -> dict[str, Parked]:
        """Return the parked servers."""
        ...


def open_glance(url: str) -> Glance:
    """Return the quickest way to look into a catalogue.

    Nothing is opened yet; every method raises `CatalogueError` when there is no catalogue.
    """
    path = sqlite_path(url)
    if path is not None:
        return SqliteGlance(path)
    from stablequeue.catalogue.catalogue import Catalogue  # noqa: PLC0415  # takes a second

    return Catalogue(url)


class SqliteGlance:
    """Looks into an SQLite file, with a connection for each look.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def request(self, job_id: str) -> StoredRequest:
        """Return the job with this id, or the only one whose id begins or ends with it.

        Raises:
            NotFound: There is none.
            Refused: There are several.
        """
        first, last = job_id_ends(job_id)
        found = self._requests(
            "WHERE (job_id >= ? AND job_id < ?) OR (reversed_id >= ? AND reversed_id < ?) LIMIT 2",
            [first, first + "g", last, last + "g"],
        )
        if not found:
            raise no_job(job_id)
        if len(found) > 1:
            raise several_jobs(job_id)
        return found[0]

    def requests(
        self,
        *,
        states: Collection[JobState] = (),
        server: str | None = None,
        tag: str | None = None,
        limit: int = 50,
        before: int | None = None,
    ) -> list[StoredRequest]:
        """Return jobs, newest first; `Catalogue.requests` says more."""
        conditions: list[str] = []
        values: list[Any] = []
        if server is not None:
            conditions.append("server = ?")
            values.append(server)
        if before is not None:
            conditions.append("id < ?")
            values.append(min(before, LARGEST_ID))
        if tag is not None:
            conditions.append("id IN (SELECT request_id FROM request_tags WHERE tag = ?)")
            values.append(folded_tag(tag))
        limit = max(0, min(limit, MOST_LISTED))
        found: list[StoredRequest] = []
        for more in [["state = ?", state] for state in set(states)] or [[]]:
            both = [*conditions, *more[:1]]
            where = f"WHERE {' AND '.join(both)}" if both else ""
            found += self._requests(
                f"{where} ORDER BY id DESC LIMIT ?", [*values, *more[1:], limit]
            )
        return sorted(found, key=lambda row: row.id, reverse=True)[:limit]

    def requests_by_id(self, job_ids: Iterable[str]) -> dict[str, StoredRequest]:
        """Return those of these jobs that there are, by full job id."""
        found: dict[str, StoredRequest] = {}
        for chunk in _chunks(job_ids):
            rows = self._requests(f"WHERE job_id IN ({_marks(chunk)})", chunk)
            found.update((row.job_id, row) for row in rows)
        return found

    def outcomes(self, job_ids: Iterable[str]) -> dict[str, Outcome]:
        """Return how these jobs ended, by full job id; without those that have not."""
        found: dict[str, Outcome] = {}
        for chunk in _chunks(job_ids):
            for row in self._rows("outcomes", f"WHERE job_id IN ({_marks(chunk)})", chunk):
                found[row["job_id"]] = Outcome(
                    state=JobState(row["state"]),
                    code=row["code"],
                    message=row["message"],
                    advice=row["advice"],
                    started_at=_moment(row["started_at"]),
                    finished_at=_moment(row["finished_at"]),
                )
        return found

    def parked(self) -> dict[str, Parked]:
        """Return the parked servers, by alias."""
        return {
            row["server"]: Parked(
                server=row["server"], reason=row["reason"], since=_known(row["since"])
            )
            for row in self._rows("parked", "", [])
        }

    def _requests(self, clauses: str, values: list[Any]) -> list[StoredRequest]:
        return [
            StoredRequest(
                id=row["id"],
                job_id=row["job_id"],
                data=json.loads(row["data"]),
                seed=row["seed"],
                state=JobState(row["state"]),
                server=row["server"],
                deployment=row["deployment"],
                source=row["source"],
                flow_run_id=row["flow_run_id"],
                accepted_at=_known(row["accepted_at"]),
                sent_at=_moment(row["sent_at"]),
                started_at=_moment(row["started_at"]),
            )
            for row in self._rows("requests", clauses, values)
        ]

    def _rows(self, table: str, clauses: str, values: list[Any]) -> list[sqlite3.Row]:
        # Tables and clauses are written above; whatever comes from outside is bound.
        with self._connection() as connection:
            return connection.execute(f"SELECT * FROM {table} {clauses}", values).fetchall()  # noqa: S608

    @contextmanager
    def _connection(self) -> Generator[sqlite3.Connection]:
        name = str(self._path)
        try:
            with closing(
                connect_sqlite(self._path, patience_s=PATIENCE_S, query_only=True)
            ) as connection:
                check_current(sqlite_revision(connection))
                connection.row_factory = sqlite3.Row
                yield connection
        except sqlite3.Error as error:
            raise sqlite_error(name, error, PATIENCE_S) from error


def _marks(values: Collection[Any]) -> str:
    return ", ".join("?" * len(values))


def _chunks(job_ids: Iterable[str]) -> list[list[str]]:
    ids = sorted(set(job_ids))
    return [ids[at : at + _CHUNK] for at in range(0, len(ids), _CHUNK)]


def _moment(text: str | None) -> datetime | None:
    return None if text is None else _known(text)


def _known(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)
