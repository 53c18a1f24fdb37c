"""Requests: what was asked, which is also the outbox."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any, TypeVar

from sqlalchemy import delete
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
R = TypeVar("R", RequestRow, OutcomeRow)


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
        """Accept several jobs in one transaction: all of them or none, in the order given."""
        return self._db.write(lambda session: _accept(session, jobs))

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
                row = _new_row(job)
                session.add(row)
            elif row.state == JobState.CANCELLED and row.flow_run_id != flow_run_id:
                message = f"job {job_id} was cancelled. Start it again with: stablequeue retry"
                raise Refused(message)
            if row.started_at is None:
                row.data, row.seed = request.dumped(), seed
                row.started_at = now()
                session.flush()
                session.exec(delete(RequestTagRow).where(col(RequestTagRow.request_id) == row.id))
                _add_tags(session, row, request.tags)
            if row.state not in FINISHED:
                drop_outcome(session, row)
                row.state = JobState.STARTED
            row.server, row.flow_run_id, row.deployment = server, flow_run_id, deployment
            row.sent_at = row.sent_at or now()
            session.flush()
            return stored_request(row)

        return self._db.write(work)

    def unsent(self, *, older_than_s: float, limit: int) -> list[StoredRequest]:
        """Return accepted jobs that have no flow run and did not end, oldest first."""
        before = now() - timedelta(seconds=older_than_s)
        query = (
            select(RequestRow)
            .where(col(RequestRow.state) == JobState.ACCEPTED)
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


def bulk(session: Session, table: type[R], column: Any, job_ids: Iterable[str]) -> list[R]:
    """Return the rows of these jobs, asking for some hundred at a time."""
    ids = sorted(set(job_ids))
    found: list[R] = []
    for at in range(0, len(ids), CHUNK):
        found += session.exec(select(table).where(column.in_(ids[at : at + CHUNK]))).all()
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


def _accept(session: Session, jobs: Sequence[NewJob]) -> list[StoredRequest]:
    asked = [(_new_row(job), job) for job in jobs]
    found = bulk(session, RequestRow, RequestRow.job_id, [row.job_id for row, _ in asked])
    rows = {row.job_id: row for row in found}
    fresh: list[tuple[RequestRow, NewJob]] = []
    for row, job in asked:
        if row.job_id not in rows:
            rows[row.job_id] = row
            fresh.append((row, job))
    session.add_all(row for row, _ in fresh)
    session.flush()
    for row, job in fresh:
        _add_tags(session, row, job.request.tags)
    session.flush()
    return [stored_request(rows[row.job_id]) for row, _ in asked]


def _new_row(job: NewJob) -> RequestRow:
    job_id = valid_job_id(job.job_id)
    return RequestRow(
        job_id=job_id,
        reversed_id=job_id.replace("-", "")[::-1],
        data=job.request.dumped(),
        seed=job.seed,
        state=JobState.ACCEPTED,
        server=job.request.server,
        deployment=job.deployment,
        source=job.source or job.request.source,
        accepted_at=now(),
    )


def _add_tags(session: Session, row: RequestRow, tags: Iterable[str]) -> None:
    for tag in sorted({folded_tag(tag) for tag in tags}):
        session.add(RequestTagRow(tag=tag, request_id=row.id or 0))
