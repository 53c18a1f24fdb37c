"""Changing jobs on a real Prefect server."""

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from stablequeue.catalogue import AttemptState, JobState, Outcome
from stablequeue.client import Client, ViewState
from stablequeue.engines.base import Ticket
from stablequeue.errors import PrefectUnreachable, Refused
from stablequeue.prefect_api import NewRun, Run, StateType

pytestmark = pytest.mark.prefect


def run_of(queue: Client, job_id: str) -> Run:
    """Return a job's run."""
    return queue.session.api.read_run(queue.session.catalogue.request(job_id).flow_run_id)


def set_running(queue: Client, job_id: str, process: str) -> None:
    """Make a job look as if a process worked on it."""
    run = run_of(queue, job_id)
    queue.session.api.set_state(run.id, StateType.RUNNING, "Generating", force=True)
    queue.session.api.patch_run(run.id, infrastructure_pid=process)


@pytest.fixture
def dead_process() -> str:
    """Return the name of a process that ran here and is gone."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    return f"{socket.gethostname()}:{child.pid}"


def test_a_waiting_job_is_cancelled_at_once_and_noted(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    assert queue.cancel(job).done
    assert run_of(queue, job).state_type is StateType.CANCELLED
    outcome = queue.session.catalogue.outcome(job)
    assert outcome is not None
    assert outcome.state is JobState.CANCELLED


def test_cancelling_twice_says_so(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.cancel(job)
    second = queue.cancel(job)
    assert not second.done
    assert "ended already" in second.message


def test_a_job_not_sent_yet_is_cancelled_and_never_sent(alone: Client) -> None:
    job = alone.submit(prompt="a").job_id
    assert alone.cancel(job).done
    assert alone.session.catalogue.unsent(older_than_s=0, limit=10) == []


def test_a_running_job_is_asked_to_stop(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    set_running(queue, job, f"{socket.gethostname()}:{os.getpid()}")
    change = queue.cancel(job)
    assert change.done
    assert queue.job(job).state is ViewState.CANCELLING


def test_a_job_whose_process_died_is_cancelled_at_once(
    queue: Client, alias: str, dead_process: str
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    set_running(queue, job, dead_process)
    assert queue.cancel(job).message == "cancelled"
    assert queue.job(job).state is ViewState.CANCELLED


def test_a_rescheduled_job_with_an_old_process_can_be_cancelled(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.session.api.patch_run(run_of(queue, job).id, infrastructure_pid="elsewhere:1")
    assert queue.cancel(job).message == "cancelled"


def test_every_job_of_a_server_is_cancelled_and_no_other(queue: Client, alias: str) -> None:
    mine = [queue.submit(prompt=name, server=alias).job_id for name in "ab"]
    other = queue.session.api.create_run("generate/" + alias, NewRun(parameters={})).id
    assert {change.job_id for change in queue.cancel_all(server=alias, dry_run=True)} == {
        *mine,
        other,
    }
    assert queue.job(mine[0]).state is ViewState.WAITING
    assert all(change.done for change in queue.cancel_all(server=alias))
    assert {job.state for job in queue.jobs(server=alias)} == {ViewState.CANCELLED}


def test_a_failed_job_goes_on_in_the_same_run_without_its_old_process(
    queue: Client, alias: str
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    run = run_of(queue, job)
    queue.session.api.patch_run(run.id, infrastructure_pid="elsewhere:1")
    queue.session.api.set_state(run.id, StateType.FAILED, force=True)
    queue.session.catalogue.finish(job, Outcome(state=JobState.FAILED))
    assert queue.retry(job).done
    now = run_of(queue, job)
    assert (now.id, now.state_type, now.process) == (run.id, StateType.SCHEDULED, "")


@pytest.mark.parametrize("kind", [StateType.CANCELLED, StateType.CRASHED])
def test_cancelled_and_crashed_jobs_can_be_retried(
    queue: Client, alias: str, kind: StateType
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.session.api.set_state(run_of(queue, job).id, kind, force=True)
    queue.session.catalogue.finish(job, Outcome(state=JobState(kind.value.lower())))
    assert queue.retry(job).done
    assert queue.job(job).state is ViewState.WAITING


def test_a_job_whose_run_is_gone_gets_a_new_one_under_its_id(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    old = run_of(queue, job)
    queue.session.api.delete_run(old.id)
    queue.session.catalogue.finish(job, Outcome(state=JobState.CANCELLED))
    assert queue.retry(job).done
    new = run_of(queue, job)
    assert new.id != old.id
    assert new.parameters["job_id"] == job
    assert queue.job(job).state is ViewState.WAITING


def test_a_finished_job_is_not_retried_but_offered_again(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.session.api.set_state(run_of(queue, job).id, StateType.COMPLETED, force=True)
    queue.session.catalogue.finish(job, Outcome(state=JobState.COMPLETED))
    with pytest.raises(Refused, match=f"stablequeue again {job[-8:]}"):
        queue.retry(job)


def test_a_job_that_goes_on_is_not_retried_unless_its_process_is_dead(
    queue: Client, alias: str, dead_process: str
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    with pytest.raises(Refused, match="has not ended"):
        queue.retry(job)
    set_running(queue, job, f"{socket.gethostname()}:{os.getpid()}")
    with pytest.raises(Refused, match="has not ended"):
        queue.retry(job)
    set_running(queue, job, dead_process)
    assert queue.retry(job).done
    assert run_of(queue, job).state_type is StateType.SCHEDULED


def test_a_cancelling_job_whose_process_is_dead_can_be_retried(
    queue: Client, alias: str, dead_process: str
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    set_running(queue, job, dead_process)
    queue.session.api.cancel(run_of(queue, job).id)
    assert queue.retry(job).done
    assert run_of(queue, job).state_type is StateType.SCHEDULED


def test_a_job_moved_to_the_front_is_the_first(queue: Client, alias: str) -> None:
    first = queue.submit(prompt="1", server=alias).job_id
    second = queue.submit(prompt="2", server=alias).job_id
    third = queue.submit(prompt="3", server=alias).job_id
    queue.move_front(third)
    queue.move_front(second)
    assert [job.job_id for job in queue.jobs(server=alias)] == [second, third, first]
    assert "already" in queue.move_front(second).message


def test_a_running_job_cannot_be_moved(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    set_running(queue, job, "")
    with pytest.raises(Refused, match="only a job that waits"):
        queue.move_front(job)


def test_pausing_and_resuming_a_server_unparks_it(queue: Client, alias: str) -> None:
    queue.session.catalogue.park(alias, "the disk is full")
    assert queue.pause(alias) == [alias]
    assert queue.session.api.pool(alias).paused
    assert queue.resume(alias) == [alias]
    assert not queue.session.api.pool(alias).paused
    assert queue.session.catalogue.parked() == {}


def test_clearing_ended_jobs_keeps_how_they_ended(queue: Client, alias: str) -> None:
    done = queue.submit(prompt="a", server=alias).job_id
    waits = queue.submit(prompt="b", server=alias).job_id
    queue.session.api.set_state(
        run_of(queue, done).id, StateType.CRASHED, message="out of power", force=True
    )
    [would] = queue.clear_ended(server=alias, dry_run=True)
    assert (would.job_id, would.done) == (done, False)
    assert queue.job(done).in_prefect
    [went] = queue.clear_ended(server=alias)
    assert went.job_id == done
    seen = queue.job(done)
    assert (seen.state, seen.message, seen.in_prefect) == (
        ViewState.CRASHED,
        "out of power",
        False,
    )
    assert [job.job_id for job in queue.jobs(server=alias, history=False)] == [waits]


def test_cancelling_between_two_tries_has_the_server_told_of_the_first(
    queue: Client, alias: str
) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    catalogue = queue.session.catalogue
    attempt = catalogue.begin_attempt(
        job,
        0,
        server=alias,
        engine="forge",
        make_ticket=lambda number: Ticket(engine="forge", remote_id=f"r{number}"),
    )
    assert queue.cancel(job).done
    [now] = catalogue.attempts(job)
    assert (now.id, now.state) == (attempt.id, AttemptState.CANCELLING)


def test_nothing_is_changed_while_prefect_cannot_be_asked(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    away = queue.settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    with Client(away) as other:
        for act in (other.cancel, other.retry, other.move_front):
            with pytest.raises(PrefectUnreachable):
                act(job)
        with pytest.raises(PrefectUnreachable):
            other.cancel_all(server=alias)
        assert other.job(job).state is ViewState.UNKNOWN
    assert queue.job(job).state is ViewState.WAITING


def test_an_expired_job_is_offered_again_without_its_expiry(queue: Client, alias: str) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    job = queue.submit(prompt="a", server=alias, expires_at=soon).job_id
    queue.session.api.set_state(run_of(queue, job).id, StateType.CANCELLED, "Expired", force=True)
    queue.session.catalogue.finish(job, Outcome(state=JobState.EXPIRED))
    with pytest.raises(Refused, match="stablequeue again"):
        queue.retry(job)
    new = queue.session.catalogue.request(queue.again(job).job_id)
    assert new.request.expires_at is None


def test_again_is_a_new_job_with_changes(queue: Client, alias: str) -> None:
    old = queue.submit(prompt="a", server=alias, steps=9, seed=-1)
    new = queue.again(old.job_id, prompt="b")
    first = queue.session.catalogue.request(old.job_id)
    second = queue.session.catalogue.request(new.job_id)
    assert new.job_id != old.job_id
    assert (second.request.prompt, second.request.steps) == ("b", 9)
    assert first.seed != second.seed
