"""Requests: what was asked, which is also the outbox."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import Table, delete, insert
from sqlalchemy import select as sa_select
from sqlmodel import Session, and_, col, or_, select

from stablequeue.catalogue.part import Part, now, request_row, valid_job_id
from stablequeue.catalogue.records import ENDED, FINISHED, JobState, NewJob, StoredRequest
from stablequeue.catalogue.tables import OutcomeRow, RequestRow, RequestTagRow
from stablequeue.catalogue.texts import folded_tag, job_id_ends, no_job, several_jobs
from stablequeue.errors import Refused
from stablequeue.request import GenerationRequest

MOST_LISTED = 1000
LARGEST_ID = 2**63 - 1
CHUNK = 500
STEP = timedelta(microseconds=100)
"""Between jobs accepted together: their place in the queue, with room to move others in between."""

R = TypeVar("R", RequestRow, OutcomeRow)

_REQUESTS: Table = RequestRow.metadata.tables["requests"]
_TAGS: Table = RequestRow.metadata.tables["request_tags"]


class RequestPart(Part):
    """Accepting, sending, starting and listing jobs."""

    def accept(
        self,
        request: GenerationRequest,
        *,
        job_id: str,
        seed: int,
        deployment: str,
        source: str = "",
    ) -> StoredRequest:
        """Put a job on disk; when this returns it is accepted.

        Accepting twice is once: a row with this job id wins and is returned, whatever it asks.
        """
        job = NewJob(
            request=request, job_id=job_id, seed=seed, deployment=deployment, source=source
        )
        return self.accept_many([job])[0]

    def accept_many(self, jobs: Sequence[NewJob]) -> list[StoredRequest]:
        """Accept several jobs in one transaction: all of them or none, in the order given.

        Each `accepted_at` is later than that of the job before, which makes it a place in the
        queue; none is later than now, unless the clock was set back.
        """
        values = [_values(job) for job in jobs]
        return self._db.write(lambda session: _accept(session, values))

    def start(
        self,
        request: GenerationRequest,
        *,
        job_id: str,
        seed: int,
        server: str,
        flow_run_id: str,
        deployment: str,
    ) -> StoredRequest:
        """Record that a job's flow begins, and return what it is to do.

        The first start freezes request and seed as given here (until then the run's parameters
        were the truth, and people may edit them); a later one returns the frozen ones and only
        notes server and run. A job that had ended without a result is open again.

        Raises:
            Refused: It was cancelled, and this is not the run it was cancelled in. A new run of it
                is made with `reopen` first.
        """
        job = NewJob(request=request, job_id=job_id, seed=seed, deployment=deployment)
        job_id = valid_job_id(job_id)

        def work(session: Session) -> StoredRequest:
            query = select(RequestRow).where(col(RequestRow.job_id) == job_id).with_for_update()
            row = session.exec(query).one_or_none()
            if row is None:
                row = RequestRow(**_values(job), accepted_at=now())
                session.add(row)
            elif row.state == JobState.CANCELLED and row.flow_run_id != flow_run_id:
                message = f"job {job_id} was cancelled. Start it again with: stablequeue retry"
                raise Refused(message)
            if row.started_at is None:
                row.data, row.seed = request.dumped(), seed
                row.started_at = now()
                session.flush()
                session.exec(delete(RequestTagRow).where(col(RequestTagRow.request_id) == row.id))
                add_tags(session, row, request.tags)
            if row.state not in FINISHED:
                drop_outcome(session, row)
                row.state = JobState.STARTED
            row.server, row.flow_run_id, row.deployment = server, flow_run_id, deployment
            row.sent_at = row.sent_at or now()
            session.flush()
            return stored_request(row)

        return self._db.write(work)

    def unsent(self, *, older_than_s: float, limit: int, after: int = 0) -> list[StoredRequest]:
        """Return accepted jobs that wait to be sent and did not end, oldest first.

        Args:
            older_than_s: Accepted so many seconds ago at least.
            limit: At most so many.
            after: Only those whose `id` is greater: the last one of the page before.
        """
        before = now() - timedelta(seconds=older_than_s)
        query = (
            select(RequestRow)
            .where(col(RequestRow.state) == JobState.ACCEPTED)
            .where(col(RequestRow.id) > after)
            .where(col(RequestRow.accepted_at) <= before)
            .order_by(col(RequestRow.id))
            .limit(limit)
        )
        return self._db.read(lambda session: [stored_request(row) for row in session.exec(query)])

    def mark_sent(self, job_id: str, flow_run_id: str) -> bool:
        """Record the flow run a job has now.

        Returns:
            False when the job ended meanwhile (somebody cancelled it): the caller cancels the run.
        """
        job_id = valid_job_id(job_id)

        def work(session: Session) -> bool:
            row = request_row(session, job_id, lock=True)
            if row.state in ENDED - FINISHED:
                return False
            if row.state in {JobState.ACCEPTED, JobState.SENT}:
                row.state, row.flow_run_id, row.sent_at = JobState.SENT, flow_run_id, now()
            return True

        return self._db.write(work)

    def reopen(self, job_id: str, *, deployment: str = "", server: str = "") -> StoredRequest:
        """Make a job that ended without a result wait for a new flow run under the same id.

        Its outcome is forgotten, its frozen request and its attempts stay. A job that has not
        ended is returned as it is.

        Raises:
            Refused: It has its result already.
        """
        job_id = valid_job_id(job_id)

        def work(session: Session) -> StoredRequest:
            row = request_row(session, job_id, lock=True)
            if row.state in FINISHED:
                again = "make another like it with: stablequeue retry --again"
                raise Refused(f"job {job_id} is {row.state}; {again}")
            if row.state in ENDED:
                drop_outcome(session, row)
                row.state, row.flow_run_id, row.sent_at = JobState.ACCEPTED, "", None
                row.deployment = deployment or row.deployment
                row.server = server or row.server
                session.flush()
            return stored_request(row)

        return self._db.write(work)

    def request(self, job_id: str) -> StoredRequest:
        """Return the job with this id, or the only one whose id begins or ends with it.

        Raises:
            NotFound: There is none.
            Refused: There are several.
        """
        ends = zip((RequestRow.job_id, RequestRow.reversed_id), job_id_ends(job_id), strict=True)
        ranges = [and_(col(column) >= end, col(column) < end + "g") for column, end in ends]
        query = select(RequestRow).where(or_(*ranges)).limit(2)
        found = self._db.read(lambda session: [stored_request(row) for row in session.exec(query)])
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
        """Return jobs, newest first.

        Args:
            states: Only these; empty: all.
            server: Only this server's (as asked, or as taken once started).
            tag: Only with this tag, in any case.
            limit: At most 1000.
            before: Only those whose `id` is smaller: the last one of the page before.
        """
        query = select(RequestRow).order_by(col(RequestRow.id).desc())
        if server is not None:
            query = query.where(col(RequestRow.server) == server)
        if before is not None:
            query = query.where(col(RequestRow.id) < min(before, LARGEST_ID))
        if tag is not None:
            query = query.join(
                RequestTagRow, col(RequestTagRow.request_id) == col(RequestRow.id)
            ).where(col(RequestTagRow.tag) == folded_tag(tag))
        limit = max(0, min(limit, MOST_LISTED))
        query = query.limit(limit)
        # An index gives each state's newest at once; of several states together it would have to
        # sort all there are.
        queries = [query.where(col(RequestRow.state) == state) for state in set(states)] or [query]

        def work(session: Session) -> list[StoredRequest]:
            rows = [row for one in queries for row in session.exec(one)]
            rows.sort(key=lambda row: row.id or 0, reverse=True)
            return [stored_request(row) for row in rows[:limit]]

        return self._db.read(work)

    def requests_by_id(self, job_ids: Iterable[str]) -> dict[str, StoredRequest]:
        """Return those of these jobs that there are, by full job id."""

        def work(session: Session) -> dict[str, StoredRequest]:
            rows = bulk(session, RequestRow, RequestRow.job_id, job_ids)
            return {row.job_id: stored_request(row) for row in rows}

        return self._db.read(work)


def bulk(
    session: Session, table: type[R], column: Any, job_ids: Iterable[str], *, lock: bool = False
) -> list[R]:
    """Return the rows of these jobs, asking for some hundred at a time.

    Args:
        session: Of the transaction.
        table: Which.
        column: Of the job ids.
        job_ids: Those wanted.
        lock: Keep other writers of the rows waiting (PostgreSQL), in an order without deadlocks.
    """
    ids = sorted(set(job_ids))
    found: list[R] = []
    for at in range(0, len(ids), CHUNK):
        query = select(table).where(column.in_(ids[at : at + CHUNK]))
        found += session.exec(query.order_by(column).with_for_update() if lock else query).all()
    return found


def stored_request(row: RequestRow) -> StoredRequest:
    """Return the record of a row that is in the database."""
    assert row.id is not None  # noqa: S101  # flushed rows have one
    return StoredRequest(
        id=row.id,
        job_id=row.job_id,
        data=row.data,
        seed=row.seed,
        state=JobState(row.state),
        server=row.server,
        deployment=row.deployment,
        source=row.source,
        flow_run_id=row.flow_run_id,
        accepted_at=row.accepted_at,
        sent_at=row.sent_at,
        started_at=row.started_at,
    )


def drop_outcome(session: Session, row: RequestRow) -> None:
    """Forget how a job ended."""
    outcome = session.get(OutcomeRow, row.job_id)
    if outcome is not None:
        session.delete(outcome)
        session.flush()


def _accept(session: Session, asked: Sequence[Mapping[str, Any]]) -> list[StoredRequest]:
    """Insert what is not there yet; without the ORM, which takes ten times as long."""
    ids = [values["job_id"] for values in asked]
    found = {row.job_id: stored_request(row) for row in _known(session, ids)}
    fresh = {
        values["job_id"]: values for values in reversed(asked) if values["job_id"] not in found
    }
    new = [fresh[job_id] for job_id in dict.fromkeys(ids) if job_id in fresh]
    if new:
        times = _places(session, len(new))
        rows: list[dict[str, Any]] = [
            {**values, "accepted_at": at} for values, at in zip(new, times, strict=True)
        ]
        connection = session.connection()
        connection.execute(insert(_REQUESTS), rows)
        numbers = _numbers(session, [row["job_id"] for row in rows])
        tags = [
            {"tag": tag, "request_id": numbers[row["job_id"]]}
            for row in rows
            for tag in _folded(row["data"].get("tags", ()))
        ]
        if tags:
            connection.execute(insert(_TAGS), tags)
        for row in rows:
            found[row["job_id"]] = StoredRequest(
                id=numbers[row["job_id"]],
                **{name: value for name, value in row.items() if name != "reversed_id"},
                sent_at=None,
                started_at=None,
            )
    return [found[job_id] for job_id in ids]


def _known(session: Session, job_ids: Iterable[str]) -> list[RequestRow]:
    return bulk(session, RequestRow, RequestRow.job_id, job_ids)


def _numbers(session: Session, job_ids: Sequence[str]) -> dict[str, int]:
    """Return the row id of each of these jobs."""
    found: dict[str, int] = {}
    for at in range(0, len(job_ids), CHUNK):
        wanted = _REQUESTS.c.job_id.in_(job_ids[at : at + CHUNK])
        query = sa_select(_REQUESTS.c.job_id, _REQUESTS.c.id).where(wanted)
        found.update((row.job_id, row.id) for row in session.connection().execute(query))
    return found


def _places(session: Session, count: int) -> list[datetime]:
    """Return increasing times for new jobs: after the last accepted one, and not in the future."""
    query = sa_select(_REQUESTS.c.accepted_at).order_by(_REQUESTS.c.id.desc()).limit(1)
    last: datetime | None = session.connection().execute(query).scalar_one_or_none()
    end = now()
    step = STEP
    if last is not None and last < end:
        step = min(step, (end - last) / count)
    step = max(step, timedelta(microseconds=1))
    return [end - step * (count - 1 - place) for place in range(count)]


def _values(job: NewJob) -> dict[str, Any]:
    """Return the columns of a new job's row, without when it was accepted."""
    job_id = valid_job_id(job.job_id)
    return {
        "job_id": job_id,
        "reversed_id": job_id.replace("-", "")[::-1],
        "data": job.request.dumped(),
        "seed": job.seed,
        "state": JobState.ACCEPTED,
        "server": job.request.server,
        "deployment": job.deployment,
        "source": job.source or job.request.source,
        "flow_run_id": "",
    }


def _folded(tags: Iterable[str]) -> list[str]:
    return sorted({folded_tag(tag) for tag in tags})


def add_tags(session: Session, row: RequestRow, tags: Iterable[str]) -> None:
    """Let a job that is in the database be found by these tags."""
    for tag in _folded(tags):
        session.add(RequestTagRow(tag=tag, request_id=row.id or 0))
