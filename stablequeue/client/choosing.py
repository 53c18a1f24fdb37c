"""Which waiting jobs a change is for: some ids, or all that fit."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from stablequeue.catalogue import JobState, StoredRequest
from stablequeue.client.reading import Reading, of_ours, only_planned
from stablequeue.client.session import Session
from stablequeue.errors import Refused
from stablequeue.prefect_api import Run, StateType, run_filter
from stablequeue.views import JobView, ViewState, in_order, job_id_of, view

_UNSENT = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Which:
    """Which jobs; everything that is given must fit, nothing given: all.

    Attributes:
        server: For this server, or `any`.
        tier: Of this tier.
        tag: With this tag, in any case.
        text: With this text in the prompt, in any case.
    """

    server: str = ""
    tier: str = ""
    tag: str = ""
    text: str = ""

    def fits(self, job: JobView) -> bool:
        """Whether a job is meant."""
        return (
            self.server in {"", job.server, job.pool}
            and self.tier in {"", job.tier}
            and (not self.tag or self.tag.casefold() in {one.casefold() for one in job.tags})
            and self.text.casefold() in job.prompt.casefold()
        )


@dataclass(frozen=True, slots=True)
class Chosen:
    """A job as it was when it was chosen; at least one of `stored` and `run` is there."""

    seen: JobView
    stored: StoredRequest | None
    run: Run | None

    @property
    def job_id(self) -> str:
        """Its id."""
        return self.seen.job_id

    @property
    def asked(self) -> Mapping[str, Any]:
        """What it asks for: the run's parameters as long as they count."""
        if self.run is not None and (self.stored is None or self.stored.started_at is None):
            given = self.run.parameters.get("request")
            if isinstance(given, Mapping):
                return cast("Mapping[str, Any]", given)
        return self.stored.data if self.stored is not None else {}


class Choosing:
    """Finds waiting jobs, for one `Session`."""

    def __init__(self, session: Session, reading: Reading) -> None:
        self._session = session
        self._reading = reading

    def waiting(self, which: Which) -> list[Chosen]:
        """Return every waiting job that fits, in the order of the queue.

        Raises:
            PrefectUnreachable: Nobody knows what waits.
        """
        pools = [which.server] if which.server else None
        filters = of_ours(run_filter(states=[StateType.SCHEDULED], pools=pools))
        runs = {
            job_id_of(run): run for run in self._session.api.runs(filters) if not only_planned(run)
        }
        look = self._session.look
        rows = look.requests_by_id(runs)
        unsent = look.requests(
            states={JobState.ACCEPTED}, server=which.server or None, limit=_UNSENT
        )
        rows |= {row.job_id: row for row in unsent if not row.flow_run_id}
        found = {
            job_id: Chosen(view(rows.get(job_id), None, run), rows.get(job_id), run)
            for job_id, run in [*((row, runs.get(row)) for row in rows), *runs.items()]
        }
        fitting = [
            one.seen
            for one in found.values()
            if one.seen.state is ViewState.WAITING and which.fits(one.seen)
        ]
        return [found[seen.job_id] for seen in in_order(fitting)]

    def these(self, job_ids: Iterable[str]) -> list[Chosen]:
        """Return jobs by their full or short ids, each once, in the order given.

        Raises:
            NotFound: There is no such job.
            Refused: It does not wait, or a short id fits several.
            PrefectUnreachable: Nobody knows whether it waits.
        """
        found: dict[str, Chosen] = {}
        for job_id in job_ids:
            one = self.one(job_id)
            found.setdefault(one.job_id, one)
        return list(found.values())

    def one(self, job_id: str) -> Chosen:
        """Return one job; see `these`."""
        stored, run = self._reading.find(job_id, to_change=True)
        outcome = None
        if stored is not None:
            outcome = self._session.look.outcomes([stored.job_id]).get(stored.job_id)
        seen = view(stored, outcome, run)
        if seen.state is not ViewState.WAITING:
            message = (
                f"job {seen.short} is {seen.phase or seen.state.value};"
                " only a job that waits can be moved or edited"
            )
            raise Refused(message)
        return Chosen(seen, stored, run)

    def still_waiting(self, runs: Sequence[Run]) -> dict[str, Run]:
        """Return those of these runs that wait now, as they are now, by id."""
        now = self._session.api.runs(run_filter(ids=[run.id for run in runs]))
        return {run.id: run for run in now if run.state_type is StateType.SCHEDULED}
