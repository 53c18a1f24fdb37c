"""What the parts of `Catalogue` share."""

from datetime import UTC, datetime
from uuid import UUID

from sqlmodel import Session, col, select

from stablequeue.catalogue.engine import Database
from stablequeue.catalogue.tables import RequestRow
from stablequeue.catalogue.texts import no_job
from stablequeue.errors import BadRequest


class Part:
    """One topic of the catalogue, over the same database as the others."""

    _db: Database


def now() -> datetime:
    """Return the time of day, in UTC."""
    return datetime.now(UTC)


def valid_job_id(job_id: str) -> str:
    """Return a job id in its one spelling: lower case, with hyphens.

    Raises:
        BadRequest: It is not a UUID.
    """
    try:
        return str(UUID(job_id))
    except ValueError:
        raise BadRequest("job_id", f"{job_id[:50]!r} is not a UUID") from None


def request_row(session: Session, job_id: str, *, lock: bool = False) -> RequestRow:
    """Return a job's row; `lock` keeps other writers of the job waiting (PostgreSQL).

    Raises:
        NotFound: There is no such job.
    """
    query = select(RequestRow).where(col(RequestRow.job_id) == job_id)
    row = session.exec(query.with_for_update() if lock else query).one_or_none()
    if row is None:
        raise no_job(job_id)
    return row
