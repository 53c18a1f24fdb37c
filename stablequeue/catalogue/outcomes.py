"""How jobs ended, and the servers that are parked."""

from collections.abc import Iterable

from sqlmodel import Session, select

from stablequeue.catalogue.part import Part, now, request_row, valid_job_id
from stablequeue.catalogue.records import FINISHED, JobState, Outcome, Parked
from stablequeue.catalogue.requests import bulk, drop_outcome
from stablequeue.catalogue.tables import OutcomeRow, ParkedRow


class OutcomePart(Part):
    """Ending jobs, parking servers."""

    def finish(self, job_id: str, outcome: Outcome) -> None:
        """Record how a job ended; the last word counts.

        Only: what ended with a result (completed, degraded, censored) is never made crashed or
        cancelled by somebody who came late.
        """
        job_id = valid_job_id(job_id)

        def work(session: Session) -> None:
            row = request_row(session, job_id, lock=True)
            late = {JobState.CRASHED, JobState.CANCELLED}
            if row.state in FINISHED and outcome.state in late:
                return
            drop_outcome(session, row)
            row.state = outcome.state
            session.add(
                OutcomeRow(
                    job_id=job_id,
                    state=outcome.state,
                    code=outcome.code,
                    message=outcome.message,
                    advice=outcome.advice,
                    started_at=outcome.started_at or row.started_at,
                    finished_at=outcome.finished_at or now(),
                )
            )

        self._db.write(work)

    def outcome(self, job_id: str) -> Outcome | None:
        """Return how a job ended, None while it has not."""
        job_id = valid_job_id(job_id)
        return self.outcomes([job_id]).get(job_id)

    def outcomes(self, job_ids: Iterable[str]) -> dict[str, Outcome]:
        """Return how these jobs ended, by full job id; without those that have not."""

        def work(session: Session) -> dict[str, Outcome]:
            rows = bulk(session, OutcomeRow, OutcomeRow.job_id, job_ids)
            return {row.job_id: _outcome(row) for row in rows}

        return self._db.read(work)

    def park(self, server: str, reason: str) -> bool:
        """Park a server's jobs; a later reason replaces the one before.

        Returns:
            Whether it was not parked yet: the one caller to whom this is True tells people.
        """

        def work(session: Session) -> bool:
            row = session.get(ParkedRow, server)
            if row is not None:
                row.reason = reason
                return False
            session.add(ParkedRow(server=server, reason=reason, since=now()))
            return True

        return self._db.write(work)

    def unpark(self, server: str) -> bool:
        """Let a server's jobs go on; whether it was parked."""

        def work(session: Session) -> bool:
            row = session.get(ParkedRow, server)
            if row is not None:
                session.delete(row)
            return row is not None

        return self._db.write(work)

    def parked(self) -> dict[str, Parked]:
        """Return the parked servers, by alias."""

        def work(session: Session) -> dict[str, Parked]:
            rows = session.exec(select(ParkedRow)).all()
            return {
                row.server: Parked(server=row.server, reason=row.reason, since=row.since)
                for row in rows
            }

        return self._db.read(work)


def _outcome(row: OutcomeRow) -> Outcome:
    return Outcome(
        state=JobState(row.state),
        code=row.code,
        message=row.message,
        advice=row.advice,
        started_at=row.started_at,
        finished_at=row.finished_at,
    )
