"""Changing what has been accepted and has not begun: its run, its server, what it asks for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete
from sqlmodel import Session, col

from stablequeue.catalogue.part import Part, now
from stablequeue.catalogue.records import ENDED, JobState, StoredRequest
from stablequeue.catalogue.requests import add_tags, bulk, stored_request
from stablequeue.catalogue.tables import RequestRow, RequestTagRow
from stablequeue.request import GenerationRequest, Tier

_WAITS = {JobState.ACCEPTED, JobState.SENT}


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a waiting job is to ask for from now on, and the seed of its first picture."""

    request: GenerationRequest
    seed: int


class WaitingPart(Part):
    """Changes of many waiting jobs, each in one transaction."""

    def mark_sent_many(self, sent: Sequence[tuple[StoredRequest, str]]) -> dict[str, StoredRequest]:
        """Record the flow runs jobs have now; see `mark_sent`.

        A job that ended or was sent to another server meanwhile is left as it is.

        Args:
            sent: Jobs as they were when their runs were made, and the runs' ids.

        Returns:
            Every job as it is now: the caller compares it with what it sent.
        """
        runs = {stored.job_id: (stored, run_id) for stored, run_id in sent}

        def work(session: Session) -> dict[str, StoredRequest]:
            found: dict[str, StoredRequest] = {}
            for row in _rows(session, runs):
                stored, run_id = runs[row.job_id]
                if row.state in _WAITS and row.deployment == stored.deployment:
                    row.state, row.flow_run_id, row.sent_at = JobState.SENT, run_id, now()
                found[row.job_id] = stored_request(row)
            return found

        return self._db.write(work)

    def redirect(
        self, requests: Mapping[str, GenerationRequest], *, deployment: str
    ) -> dict[str, StoredRequest]:
        """Let jobs that have not begun wait to be sent to another server.

        Each keeps its run's id until that run is cancelled and `forget_runs` says so: a job has one
        live run at most, and whoever finds it half done finishes it.

        Args:
            requests: By job id, with the server in them.
            deployment: Where their new runs come from.

        Returns:
            The jobs that were changed, as they are now.
        """

        def work(session: Session) -> dict[str, StoredRequest]:
            found: dict[str, StoredRequest] = {}
            for row in _rows(session, requests):
                if row.state in _WAITS and row.started_at is None:
                    request = requests[row.job_id]
                    row.data, row.server = request.dumped(), request.server
                    row.deployment, row.state, row.sent_at = deployment, JobState.ACCEPTED, None
                    found[row.job_id] = stored_request(row)
            return found

        return self._db.write(work)

    def forget_runs(self, runs: Mapping[str, str]) -> dict[str, StoredRequest]:
        """Forget the ended runs of jobs that wait to be sent again.

        Args:
            runs: By job id, the run that ended.

        Returns:
            The jobs that may be sent now; not those that began, ended or have another run.
        """

        def work(session: Session) -> dict[str, StoredRequest]:
            found: dict[str, StoredRequest] = {}
            for row in _rows(session, runs):
                if row.state == JobState.ACCEPTED and row.flow_run_id == runs[row.job_id]:
                    row.flow_run_id = ""
                    found[row.job_id] = stored_request(row)
            return found

        return self._db.write(work)

    def edit_waiting(self, asked: Mapping[str, Asked]) -> dict[str, StoredRequest]:
        """Let jobs that have not begun ask for something else, on the same server.

        Returns:
            Every one of these jobs as it is now; one that began meanwhile is unchanged.
        """

        def work(session: Session) -> dict[str, StoredRequest]:
            found: dict[str, StoredRequest] = {}
            for row in _rows(session, asked):
                new = asked[row.job_id]
                if row.state in _WAITS and row.started_at is None:
                    row.data, row.seed = new.request.dumped(), new.seed
                    session.flush()
                    session.exec(
                        delete(RequestTagRow).where(col(RequestTagRow.request_id) == row.id)
                    )
                    add_tags(session, row, new.request.tags)
                found[row.job_id] = stored_request(row)
            return found

        return self._db.write(work)

    def set_tier(self, job_ids: Collection[str], tier: Tier) -> dict[str, StoredRequest]:
        """Let jobs that have not ended have another tier; it says nothing about their pictures.

        Returns:
            These jobs as they are now.
        """

        def work(session: Session) -> dict[str, StoredRequest]:
            found: dict[str, StoredRequest] = {}
            for row in _rows(session, job_ids):
                if row.state not in ENDED:
                    row.data = with_tier(row.data, tier)
                found[row.job_id] = stored_request(row)
            return found

        return self._db.write(work)


def with_tier(data: Mapping[str, Any], tier: Tier) -> dict[str, Any]:
    """Return a request's data with another tier; the usual one is left out, as everywhere."""
    changed = {name: value for name, value in data.items() if name != "tier"}
    return changed if tier is Tier.NORMAL else {**changed, "tier": tier.value}


def _rows(session: Session, job_ids: Collection[str]) -> list[RequestRow]:
    """Return the rows of jobs; each work above changes them in the order of their ids."""
    return bulk(session, RequestRow, RequestRow.job_id, job_ids, lock=True)
