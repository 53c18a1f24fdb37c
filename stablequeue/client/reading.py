"""Looking at jobs: Prefect and the catalogue asked in bulk and shown as one."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from stablequeue.catalogue import JobState, StoredRequest
from stablequeue.client.held import held
from stablequeue.client.real_order import host_state, really
from stablequeue.client.session import Session
from stablequeue.errors import NotFound, PrefectUnreachable, Refused
from stablequeue.ids import short_id
from stablequeue.prefect_api import FINAL, Run, StateType, run_filter
from stablequeue.views import (
    TIERS,
    USUAL_TIER,
    JobView,
    ViewState,
    due,
    in_order,
    job_id_of,
    view,
)

FLOW = "generate"
IN_ORDER = "NEXT_SCHEDULED_START_TIME_ASC"
"""How Prefect serves the runs of a queue."""

_LIVE = tuple(kind for kind in StateType if kind not in FINAL)
_ACTIVE = tuple(kind for kind in _LIVE if kind is not StateType.SCHEDULED)
_MOST_PROGRESS = 8
_SOON = timedelta(seconds=5)
_ON_WAY = {JobState.ACCEPTED, JobState.SENT, JobState.STARTED}


class Reading:
    """Looks at jobs, for one `Session`."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.prefect_answered = True
        """Whether Prefect answered when it was last asked."""

    def jobs(
        self,
        *,
        states: Collection[ViewState] = (),
        server: str = "",
        tag: str = "",
        limit: int = 50,
        history: bool = True,
    ) -> list[JobView]:
        """Return jobs as a queue shows them; see `Client.jobs`."""
        live = self._live_runs(server=server, limit=limit)
        rows = self._rows(live, server=server, tag=tag, limit=limit, states=states)
        runs = self._with_runs(rows, live, history=history)
        outcomes = self._session.look.outcomes(
            [row.job_id for row in rows.values() if row.state not in _ON_WAY]
        )
        views: list[JobView] = []
        for job_id in dict.fromkeys([*rows, *live]):
            run = runs.get(job_id) or live.get(job_id)
            row = rows.get(job_id)
            if row is None and run is None:
                continue
            seen = view(row, outcomes.get(job_id), run, prefect_answers=self.prefect_answered)
            if _fits(
                seen,
                states=states,
                server=server,
                tag=tag,
                history=history or not self.prefect_answered,
            ):
                views.append(seen)
        state = host_state(self._session.settings.run_folder)
        ordered = really(in_order(views), live, state, server=server, limit=limit)
        return self._with_progress(self._with_holds(_placed(ordered)[:limit]))

    def skipped(self, flow_run_id: str) -> Mapping[str, str]:
        """Return why servers do not take a waiting run, by alias."""
        return host_state(self._session.settings.run_folder).skipped.get(flow_run_id, {})

    def job(self, job_id: str, *, holds: bool = True) -> JobView:
        """Return one job; see `Client.job`.

        Args:
            job_id: Full or short.
            holds: Whether to ask what is paused, if the job waits.
        """
        row, run = self.find(job_id)
        outcome = None
        if row is not None:
            outcome = self._session.look.outcomes([row.job_id]).get(row.job_id)
        seen = view(row, outcome, run, prefect_answers=self.prefect_answered)
        return self._with_progress(self._with_holds([seen]) if holds else [seen])[0]

    def find(
        self, job_id: str, *, to_change: bool = False
    ) -> tuple[StoredRequest | None, Run | None]:
        """Return a job's row and its run, at least one of them.

        Args:
            job_id: Full or short; of a run made in Prefect's pages the run's id.
            to_change: Not knowing the run it has is not enough.

        Raises:
            NotFound: There is no such job.
            Refused: The short id fits several.
            PrefectUnreachable: With `to_change`, where it has a run.
        """
        try:
            row = self._session.look.request(job_id)
        except NotFound:
            return self._unknown_to_us(job_id)
        return row, self._run_of(row, to_change=to_change)

    def _run_of(self, row: StoredRequest, *, to_change: bool) -> Run | None:
        self.prefect_answered = True
        if not row.flow_run_id:
            return None
        try:
            run = self._session.api.read_run(row.flow_run_id)
        except NotFound:
            return None
        except PrefectUnreachable:
            if to_change:
                raise
            self.prefect_answered = False
            return None
        # An ended run of a job that is accepted is its old one: it goes to another server.
        return None if run.final and row.state is JobState.ACCEPTED else run

    def _unknown_to_us(self, job_id: str) -> tuple[StoredRequest | None, Run | None]:
        """Look for a run made in Prefect's pages that has not begun."""
        try:
            return None, self._foreign_run(job_id)
        except PrefectUnreachable as error:
            message = f"the catalogue has no job {job_id[:50]!r}, and Prefect cannot be asked:"
            raise NotFound(f"{message} {error}") from error

    def _foreign_run(self, job_id: str) -> Run:
        try:
            return self._session.api.read_run(str(UUID(job_id)))
        except NotFound:
            pass
        except ValueError:
            wanted = job_id.strip().lower().replace("-", "")
            runs = self._filtered(run_filter(states=_LIVE), limit=None) if wanted else []
            fitting = [
                run
                for run in runs
                if short_id(run.id) == wanted or run.id.replace("-", "").startswith(wanted)
            ]
            if len(fitting) > 1:
                message = f"more than one job has {job_id[:50]!r} in its id; give more of it"
                raise Refused(message) from None
            if fitting:
                return fitting[0]
        message = f"there is no job {job_id[:50]!r}. List them with: stablequeue ls --all"
        raise NotFound(message)

    def _live_runs(self, *, server: str, limit: int) -> dict[str, Run]:
        """Return runs of our flow that have not ended, by job id: active ones, then in order."""
        pools = {server, "any"} if server else None
        self.prefect_answered = True
        try:
            found = self._filtered(run_filter(states=_ACTIVE, pools=pools), limit=None)
            scheduled = run_filter(states=[StateType.SCHEDULED], pools=pools)
            if self._session.api.count_runs(of_ours(scheduled)) <= limit:
                waiting = self._filtered(scheduled, limit=limit)
            else:
                waiting = self._first_of_each_tier(pools, limit)
        except PrefectUnreachable:
            self.prefect_answered = False
            return {}
        return {job_id_of(run): run for run in [*found, *waiting] if not only_planned(run)}

    def _first_of_each_tier(self, pools: Collection[str] | None, limit: int) -> list[Run]:
        """Return the runs of each tier that are due first: tiers cut across the order of time.

        The tag says the tier; runs made elsewhere have none, and are in the usual queue. Tiers
        that come after enough jobs are not asked for.
        """
        found: dict[str, Run] = {}
        for tier in TIERS:
            wanted = run_filter(
                states=[StateType.SCHEDULED], pools=pools, tags_all=[f"tier:{tier}"]
            )
            runs = self._filtered(wanted, limit=limit)
            if tier == USUAL_TIER:
                queued = run_filter(states=[StateType.SCHEDULED], pools=pools, queues=[USUAL_TIER])
                runs += self._filtered(queued, limit=limit)
            found |= {run.id: run for run in runs}
            if len(found) >= limit:
                break
        return list(found.values())

    def _filtered(self, filters: dict[str, Any], *, limit: int | None) -> list[Run]:
        return self._session.api.runs(of_ours(filters), limit=limit, sort=IN_ORDER)

    def _rows(
        self,
        live: dict[str, Run],
        *,
        server: str,
        tag: str,
        limit: int,
        states: Collection[ViewState],
    ) -> dict[str, StoredRequest]:
        """Return rows by job id: the newest, those on their way, and those of live runs."""
        look = self._session.look
        wanted = {JobState(state.value) for state in states if state.ended}
        rows = [
            row
            for kinds in (wanted, _ON_WAY)
            for row in look.requests(
                states=kinds, server=server or None, tag=tag or None, limit=limit
            )
        ]
        known = {row.job_id: row for row in rows}
        missing = [job_id for job_id in live if job_id not in known]
        return {**look.requests_by_id(missing), **known}

    def _with_runs(
        self, rows: dict[str, StoredRequest], live: dict[str, Run], *, history: bool
    ) -> dict[str, Run]:
        """Return the runs of `rows` that are not among the live ones, by job id.

        For an ended job the run only tells whether Prefect still has it: asked without `history`.
        """
        if not self.prefect_answered:
            return {}
        wanted = {
            row.flow_run_id: job_id
            for job_id, row in rows.items()
            if row.flow_run_id and job_id not in live and (row.state in _ON_WAY or not history)
        }
        try:
            return {
                wanted[run.id]: run
                for ids in _chunks(list(wanted), 200)
                for run in self._session.api.runs(run_filter(ids=ids))
            }
        except PrefectUnreachable:
            self.prefect_answered = False
            return {}

    def _with_holds(self, views: Sequence[JobView]) -> Sequence[JobView]:
        """Add what is paused to the jobs that wait, if any do."""
        if not self.prefect_answered or not any(one.state is ViewState.WAITING for one in views):
            return views
        try:
            holds = held(self._session.api, self._session.look.parked())
        except PrefectUnreachable:
            return views
        return [holds.noted(one) for one in views]

    def _with_progress(self, views: Sequence[JobView]) -> list[JobView]:
        """Add the progress of what runs, for a few jobs: it is one call each."""
        asked = 0
        done: list[JobView] = []
        for seen in views:
            if seen.state is ViewState.RUNNING and asked < _MOST_PROGRESS:
                asked += 1
                done.append(self._with_own_progress(seen))
            else:
                done.append(seen)
        return done

    def _with_own_progress(self, seen: JobView) -> JobView:
        try:
            artifacts = self._session.api.artifacts(seen.flow_run_id)
        except PrefectUnreachable:
            return seen
        for artifact in artifacts:
            if artifact.type == "progress" and isinstance(artifact.data, int | float):
                message = seen.message or artifact.description
                return replace(seen, progress=artifact.data / 100, message=message)
        return seen


def only_planned(run: Run) -> bool:
    """Whether a schedule made the run for later: Prefect makes them days ahead."""
    if run.state_type is not StateType.SCHEDULED or not run.raw.get("auto_scheduled"):
        return False
    when = due(run)
    return when is not None and when > datetime.now(UTC) + _SOON


def of_ours(filters: dict[str, Any]) -> dict[str, Any]:
    """Return a filter that also wants runs of our flow."""
    return {**filters, "flows": {"name": {"any_": [FLOW]}}}


def _fits(
    seen: JobView, *, states: Collection[ViewState], server: str, tag: str, history: bool
) -> bool:
    if states and seen.state not in states:
        return False
    if server and server not in {seen.server, seen.pool}:
        return False
    if tag and tag.casefold() not in {one.casefold() for one in seen.tags}:
        return False
    return history or seen.in_prefect or not seen.ended


def _placed(views: Sequence[JobView]) -> list[JobView]:
    """Number the waiting jobs of each server."""
    places: dict[str, int] = {}
    placed: list[JobView] = []
    for seen in views:
        if seen.state is ViewState.WAITING:
            where = seen.pool or seen.server
            places[where] = places.get(where, 0) + 1
            placed.append(replace(seen, place=places[where]))
        else:
            placed.append(seen)
    return placed


def _chunks(items: Sequence[str], length: int) -> Iterable[Sequence[str]]:
    for start in range(0, len(items), length):
        yield items[start : start + length]
