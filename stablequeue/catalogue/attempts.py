"""Attempts: the ticket is on disk before anything is sent."""

from collections.abc import Callable, Collection

from sqlalchemy import update
from sqlmodel import Session, col, select

from stablequeue.catalogue.part import Part, now, request_row, valid_job_id
from stablequeue.catalogue.records import (
    TRANSITIONS,
    UNSETTLED,
    Attempt,
    AttemptState,
)
from stablequeue.catalogue.tables import UNFINISHED, AttemptRow
from stablequeue.engines.base import Ticket
from stablequeue.errors import NotFound, Refused


class AttemptPart(Part):
    """Beginning, following and settling attempts."""

    def begin_attempt(
        self,
        job_id: str,
        index: int,
        *,
        server: str,
        engine: str,
        make_ticket: Callable[[int], Ticket],
        repeat: bool = False,
        note: str = "",
    ) -> Attempt:
        """Commit the next attempt at picture `index` with its ticket.

        Args:
            job_id: The job.
            index: Which picture, from 0.
            server: Alias of the server it goes to.
            engine: Name of the engine.
            note: Anything worth knowing later, one line.
            make_ticket: Given the attempt's number (from 1). Pure and quick: it runs inside the
                transaction, and again when another writer came in between.
            repeat: The attempt before cannot be looked up; recorded, so that it happens once.

        Raises:
            NotFound: There is no such job.
            Refused: The picture is stored, or an attempt at it is open or collected: that one is
                settled first, so that two processes never make one picture twice.
        """
        job_id = valid_job_id(job_id)

        def work(session: Session) -> Attempt:
            request_row(session, job_id, lock=True)
            before = _of_index(session, job_id, index)
            for row in before:
                if row.state in UNSETTLED | {AttemptState.STORED}:
                    message = (
                        f"picture {index} of job {job_id}: attempt {row.attempt} is {row.state}; "
                        "settle it before another begins"
                    )
                    raise Refused(message)
            number = before[-1].attempt + 1 if before else 1
            moment = now()
            row = AttemptRow(
                job_id=job_id,
                idx=index,
                attempt=number,
                server=server,
                engine=engine,
                ticket=make_ticket(number).to_json(),
                state=AttemptState.OPEN,
                repeat=repeat,
                note=note,
                created_at=moment,
                updated_at=moment,
            )
            session.add(row)
            session.flush()
            return attempt_record(row)

        return self._db.write(work)

    def attempts(self, job_id: str) -> list[Attempt]:
        """Return a job's attempts, by picture index, then attempt."""
        job_id = valid_job_id(job_id)
        query = (
            select(AttemptRow)
            .where(col(AttemptRow.job_id) == job_id)
            .order_by(col(AttemptRow.idx), col(AttemptRow.attempt))
        )
        return self._db.read(lambda session: [attempt_record(row) for row in session.exec(query)])

    def last_attempt(self, job_id: str, index: int) -> Attempt | None:
        """Return the latest attempt at one picture."""
        job_id = valid_job_id(job_id)

        def work(session: Session) -> Attempt | None:
            rows = _of_index(session, job_id, index)
            return attempt_record(rows[-1]) if rows else None

        return self._db.read(work)

    def update_attempt(
        self,
        attempt_id: int,
        state: AttemptState,
        *,
        ticket: Ticket | None = None,
        note: str | None = None,
        error: str | None = None,
    ) -> bool:
        """Move an attempt on, if it is in a state `state` may follow (`TRANSITIONS`).

        Given the state it is in, only ticket, note and error change.

        Returns:
            False when it is not: somebody else settled it, and what they said stands.

        Raises:
            NotFound: There is no such attempt.
        """
        values: dict[str, object] = {"state": state.value, "updated_at": now()}
        if ticket is not None:
            values["ticket"] = ticket.to_json()
        if note is not None:
            values["note"] = note
        if error is not None:
            values["error"] = error
        sources = sorted(before for before, after in TRANSITIONS.items() if state in after)

        def work(session: Session) -> bool:
            moved = session.exec(
                update(AttemptRow)
                .where(col(AttemptRow.id) == attempt_id, col(AttemptRow.state).in_(sources))
                .values(values)
            )
            if moved.rowcount == 0:
                attempt_row(session, attempt_id)
            return moved.rowcount == 1

        return self._db.write(work)

    def open_attempts(
        self,
        *,
        server: str | None = None,
        states: Collection[AttemptState] = tuple(AttemptState),
    ) -> list[Attempt]:
        """Return attempts that are not over, oldest first; e.g. CANCELLING ones, to settle.

        Args:
            server: Only this server's.
            states: Only these. Those of attempts that are over find nothing.
        """
        query = (
            select(AttemptRow)
            .where(UNFINISHED, col(AttemptRow.state).in_(sorted(states)))
            .order_by(col(AttemptRow.id))
        )
        if server is not None:
            query = query.where(col(AttemptRow.server) == server)
        return self._db.read(lambda session: [attempt_record(row) for row in session.exec(query)])


def attempt_row(session: Session, attempt_id: int, *, lock: bool = False) -> AttemptRow:
    """Return an attempt's row; `lock` keeps its other writers waiting (PostgreSQL).

    Raises:
        NotFound: There is no such attempt.
    """
    query = select(AttemptRow).where(col(AttemptRow.id) == attempt_id)
    row = session.exec(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        message = f"there is no attempt {attempt_id}"
        raise NotFound(message)
    return row


def attempt_record(row: AttemptRow) -> Attempt:
    """Return the record of a row that is in the database."""
    assert row.id is not None  # noqa: S101  # flushed rows have one
    return Attempt(
        id=row.id,
        job_id=row.job_id,
        index=row.idx,
        attempt=row.attempt,
        server=row.server,
        engine=row.engine,
        ticket=Ticket.from_json(row.ticket),
        state=AttemptState(row.state),
        repeat=row.repeat,
        note=row.note,
        error=row.error,
        created_at=row.created_at,
        updated_at=row.updated_at,
    )


def _of_index(session: Session, job_id: str, index: int) -> list[AttemptRow]:
    query = (
        select(AttemptRow)
        .where(col(AttemptRow.job_id) == job_id, col(AttemptRow.idx) == index)
        .order_by(col(AttemptRow.attempt))
    )
    return list(session.exec(query).all())
