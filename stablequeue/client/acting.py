"""Changing what happens to jobs: cancel, retry, clear."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from stablequeue.catalogue import FINISHED, AttemptState, JobState, Outcome, StoredRequest
from stablequeue.client.reading import FLOW, Reading
from stablequeue.client.session import Session
from stablequeue.errors import NotFound, PrefectRefused, Refused
from stablequeue.prefect_api import FINAL, Run, StateType, run_filter
from stablequeue.processes import provably_dead
from stablequeue.views import JobView, ViewState, job_id_of, view

_EVERYTHING = 100_000
_DELETED_AT_ONCE = 50  # what Prefect allows
_WAITING = {ViewState.WAITING, ViewState.PAUSED}
_ACTIVE = {ViewState.RUNNING, ViewState.CANCELLING}


@dataclass(frozen=True, slots=True)
class Change:
    """What happened to one job.

    Attributes:
        job_id: Which.
        done: Whether it is, or is being, changed.
        message: One line.
    """

    job_id: str
    done: bool
    message: str


class Acting:
    """Changes jobs, for one `Session`."""

    def __init__(self, session: Session, reading: Reading) -> None:
        self._session = session
        self._reading = reading

    def cancel(self, job_id: str) -> Change:
        """Cancel one job; see `Client.cancel`."""
        stored, run = self._reading.find(job_id, to_change=True)
        return self._cancel(stored, run)

    def cancel_all(
        self, *, server: str = "", tag: str = "", waiting_only: bool = False, dry_run: bool = False
    ) -> list[Change]:
        """Cancel every job that fits; those under way last, so that nothing takes their place."""
        wanted = _WAITING if waiting_only else _WAITING | _ACTIVE
        jobs = self._reading.jobs(states=wanted, server=server, tag=tag, limit=_EVERYTHING)
        self._must_have_answered()
        jobs.sort(key=lambda job: job.state not in _WAITING)
        if dry_run:
            return [
                Change(job.job_id, done=False, message=f"{job.state.value}: would be cancelled")
                for job in jobs
            ]
        return [self._settled(job, self.cancel) for job in jobs]

    def retry(self, job_id: str) -> Change:
        """Let a job that ended without a result go on; see `Client.retry`."""
        stored, run = self._reading.find(job_id, to_change=True)
        seen = self._seen(stored, run)
        if (stored is not None and stored.state in FINISHED) or seen.state in _finished():
            message = (
                f"job {seen.short} is {seen.state.value} already. For another one like it:"
                f" stablequeue again {seen.short}"
            )
            raise Refused(message)
        if seen.state is ViewState.EXPIRED:
            message = f"job {seen.short} has expired. Queue it anew: stablequeue again {seen.short}"
            raise Refused(message)
        if run is not None and not self._may_retry(run):
            message = f"job {seen.short} has not ended ({run.state_name}); cancel it first"
            raise Refused(message)
        if run is None and stored is not None and stored.state is JobState.ACCEPTED:
            message = f"job {seen.short} waits to be sent; it needs no retry"
            raise Refused(message)
        if run is not None and self._reschedule(run):
            return Change(seen.job_id, done=True, message="goes on from where it was")
        if stored is None:
            message = f"job {seen.short} cannot be retried; queue it anew"
            raise Refused(message)
        return self._new_run(stored)

    def clear_ended(
        self, *, server: str = "", tag: str = "", dry_run: bool = False
    ) -> list[Change]:
        """Take ended jobs off the list: their runs go, outcomes and pictures stay."""
        api = self._session.api
        filters = {**run_filter(states=list(FINAL)), "flows": {"name": {"any_": [FLOW]}}}
        runs = api.runs(filters)
        rows = self._session.look.requests_by_id([job_id_of(run) for run in runs])
        changes: list[Change] = []
        going: list[str] = []
        for run in runs:
            job_id = job_id_of(run)
            seen = self._seen(rows.get(job_id), run)
            other = server and server not in {seen.server, seen.pool}
            if other or (tag and tag.casefold() not in {one.casefold() for one in seen.tags}):
                continue
            row = rows.get(job_id)
            if row is not None and row.state is JobState.ACCEPTED:
                continue  # it is being sent to another server, which takes this run as well
            if row is not None and row.flow_run_id not in {"", run.id}:
                if not dry_run:  # an earlier run of the job, which goes on in another one
                    going.append(run.id)
                continue
            if dry_run:
                changes.append(Change(job_id, done=False, message=f"{seen.state.value}: would go"))
                continue
            if row is not None:
                self._keep_outcome(row, run)
            going.append(run.id)
            changes.append(Change(job_id, done=True, message=f"{seen.state.value}: off the list"))
        for start in range(0, len(going), _DELETED_AT_ONCE):
            ids = going[start : start + _DELETED_AT_ONCE]
            api.call("POST", "flow_runs/bulk_delete", {"flow_runs": {"id": {"any_": ids}}})
        return changes

    def _cancel(self, stored: StoredRequest | None, run: Run | None) -> Change:
        api = self._session.api
        seen = self._seen(stored, run)
        if seen.ended:
            return Change(
                seen.job_id, done=False, message=f"has ended already ({seen.state.value})"
            )
        if run is None:
            return self._cancel_unsent(seen)
        if run.state_type is StateType.SCHEDULED and run.process:
            # Prefect would send the cancel to the process of its earlier try, and wait for ever.
            api.patch_run(run.id, infrastructure_pid=None)
        change = api.cancel(run.id)
        dead = provably_dead(run.process)
        if change.state_type is StateType.CANCELLING and dead:
            api.set_state(run.id, StateType.CANCELLED, message="its process was gone", force=True)
        now = api.read_run(run.id)
        if now.state_type is StateType.CANCELLED:
            if stored is not None and (dead or run.state_type is StateType.SCHEDULED):
                self._note_cancelled(stored.job_id, "cancelled while no process worked on it")
            return Change(seen.job_id, done=True, message="cancelled")
        if now.final:
            return Change(seen.job_id, done=False, message=f"has ended already ({now.state_name})")
        if now.state_type is StateType.CANCELLING:
            return Change(seen.job_id, done=True, message="is being cancelled")
        reason = change.reason or f"it is {now.state_name}"
        message = f"Prefect does not cancel job {seen.short}: {reason}"
        raise PrefectRefused(message)

    def _cancel_unsent(self, seen: JobView) -> Change:
        """Cancel a job without a run; if somebody sends it this very moment, its run too."""
        self._note_cancelled(seen.job_id, "cancelled before it was sent")
        row = self._session.catalogue.request(seen.job_id)
        if row.flow_run_id:
            with suppress(NotFound):
                self._session.api.cancel(row.flow_run_id)
        return Change(seen.job_id, done=True, message="cancelled")

    def _may_retry(self, run: Run) -> bool:
        """Whether the run has ended, or hangs because its process died on this machine."""
        if run.final:
            return True
        hanging = run.state_type in {StateType.PENDING, StateType.RUNNING, StateType.CANCELLING}
        return hanging and provably_dead(run.process)

    def _reschedule(self, run: Run) -> bool:
        """Let the same run go on; False when Prefect does not have it any more."""
        api = self._session.api
        try:
            change = api.reschedule(run.id)
            if not change.accepted:  # e.g. from Cancelling
                api.set_state(run.id, StateType.SCHEDULED, "Queued", force=True)
        except NotFound:
            return False
        return True

    def _new_run(self, stored: StoredRequest) -> Change:
        from stablequeue.sending import send  # noqa: PLC0415  # needs pydantic

        reopened = self._session.catalogue.reopen(stored.job_id)
        send(reopened, api=self._session.api, catalogue=self._session.catalogue)
        return Change(
            stored.job_id, done=True, message="has a new run and goes on from where it was"
        )

    def _settled(self, job: JobView, act: Callable[[str], Change]) -> Change:
        """Do something to one of many jobs; its refusal does not stop the others."""
        try:
            return act(job.job_id)
        except (NotFound, PrefectRefused, Refused) as error:
            return Change(job.job_id, done=False, message=str(error))

    def _seen(self, stored: StoredRequest | None, run: Run | None) -> JobView:
        outcome = None
        if stored is not None:
            outcome = self._session.look.outcomes([stored.job_id]).get(stored.job_id)
        return view(stored, outcome, run, prefect_answers=self._reading.prefect_answered)

    def _must_have_answered(self) -> None:
        if not self._reading.prefect_answered:
            self._session.api.healthy()  # raises what is wrong

    def _note_cancelled(self, job_id: str, message: str) -> None:
        """Write that a job was cancelled that no flow works on, and have its servers told.

        An earlier try may have left remote jobs; `up` stops those whose attempt is CANCELLING.
        """
        self._note(job_id, JobState.CANCELLED, message)
        catalogue = self._session.catalogue
        for attempt in catalogue.attempts(job_id):
            if attempt.state is AttemptState.OPEN:
                catalogue.update_attempt(attempt.id, AttemptState.CANCELLING)

    def _note(self, job_id: str, state: JobState, message: str) -> None:
        self._session.catalogue.finish(job_id, Outcome(state=state, message=message))

    def _keep_outcome(self, stored: StoredRequest, run: Run) -> None:
        """Keep how a run ended before it is deleted, where the catalogue does not know yet."""
        if stored.state in {JobState.ACCEPTED, JobState.SENT, JobState.STARTED}:
            seen = view(stored, None, run)
            self._note(stored.job_id, JobState(seen.state.value), seen.message or seen.phase)


def _finished() -> set[ViewState]:
    return {ViewState(state.value) for state in FINISHED}
