"""Looking at jobs on a real Prefect server."""

import pytest

from stablequeue.catalogue import JobState, Outcome
from stablequeue.client import Client, ViewState
from stablequeue.errors import NotFound, PrefectRefused, Refused
from stablequeue.ids import short_id
from stablequeue.prefect_api import NewRun, StateType

pytestmark = pytest.mark.prefect


def test_jobs_are_numbered_in_the_order_they_will_run(queue: Client, alias: str) -> None:
    bulk = queue.submit(prompt="bulk", server=alias, tier="bulk").job_id
    first = queue.submit(prompt="first", server=alias).job_id
    second = queue.submit(prompt="second", server=alias).job_id
    jobs = queue.jobs(server=alias)
    assert [(job.job_id, job.place) for job in jobs] == [(first, 1), (second, 2), (bulk, 3)]


def test_a_short_list_still_begins_with_what_runs_first(queue: Client, alias: str) -> None:
    for name in ("b1", "b2", "b3"):
        queue.submit(prompt=name, server=alias, tier="bulk")
    urgent = queue.submit(prompt="urgent", server=alias, tier="interactive").job_id
    [only] = queue.jobs(server=alias, limit=1, states=[ViewState.WAITING])
    assert only.job_id == urgent


def test_a_run_made_in_prefects_pages_is_listed_and_found(queue: Client, alias: str) -> None:
    run = queue.session.api.create_run(
        f"generate/{alias}", NewRun(parameters={"request": {"prompt": "made elsewhere"}})
    )
    [seen] = queue.jobs(server=alias)
    assert (seen.job_id, seen.prompt) == (run.id, "made elsewhere")
    assert queue.job(run.id).job_id == run.id
    assert queue.job(short_id(run.id)).job_id == run.id


def test_a_running_job_shows_phase_and_progress(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias)
    run = queue.job(job.job_id).flow_run_id
    api = queue.session.api
    api.set_state(run, StateType.RUNNING, "Generating", message="step 3 of 20", force=True)
    body = {"type": "progress", "key": "progress-x", "data": 15.0, "flow_run_id": run}
    api.call("POST", "artifacts/", body)
    [seen] = queue.jobs(server=alias)
    assert (seen.state, seen.phase, seen.progress) == (ViewState.RUNNING, "Generating", 0.15)


def test_an_ended_job_stays_visible_when_its_run_is_gone(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias, tags=["Mine"])
    run = queue.job(job.job_id).flow_run_id
    queue.session.catalogue.finish(job.job_id, Outcome(state=JobState.COMPLETED))
    queue.session.api.delete_run(run)
    [seen] = queue.jobs(server=alias, tag="mine")
    assert (seen.state, seen.in_prefect) == (ViewState.COMPLETED, False)
    assert queue.jobs(server=alias, history=False) == []


def test_a_run_deleted_in_prefect_counts_as_cancelled(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias)
    queue.session.api.delete_run(queue.job(job.job_id).flow_run_id)
    assert queue.job(job.job_id).state is ViewState.CANCELLED


def test_short_ids_are_enough_and_several_are_refused(queue: Client, alias: str) -> None:
    one = queue.submit(prompt="a", server=alias).job_id
    queue.submit(prompt="b", server=alias)
    assert queue.job(short_id(one)).job_id == one
    with pytest.raises(Refused, match="more than one"):
        queue.job(one[:2])
    with pytest.raises(NotFound, match="stablequeue ls"):
        queue.job("ffffffff")


def test_wrong_credentials_are_said_and_not_taken_for_an_outage(queue: Client) -> None:
    wrong = queue.settings.model_copy(
        update={"prefect_auth": type(queue.settings.prefect_auth)("a:b")}
    )
    with Client(wrong) as other, pytest.raises(PrefectRefused, match="credentials"):
        other.jobs()


def test_runs_a_schedule_made_for_later_do_not_stand_in_the_queue(
    queue: Client, alias: str
) -> None:
    api = queue.session.api
    deployment = api.deployment(f"generate/{alias}")
    schedule = {"schedule": {"interval": 3600}, "active": True}
    api.call("POST", f"deployments/{deployment.id}/schedules", [schedule])
    api.call("POST", f"deployments/{deployment.id}/schedule", {"min_runs": 3})
    planned = api.runs({"deployments": {"id": {"any_": [deployment.id]}}})
    job = queue.submit(prompt="a", server=alias).job_id
    assert len(planned) >= 3
    assert [seen.job_id for seen in queue.jobs(server=alias)] == [job]
    assert [change.job_id for change in queue.cancel_all(server=alias)] == [job]
    assert queue.job(planned[-1].id).state is ViewState.WAITING


def test_a_job_that_waits_for_a_paused_server_says_so(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.pause(alias)
    assert [seen.why for seen in queue.jobs(server=alias)] == [f"{alias} is paused"]
    assert queue.job(job).why == f"{alias} is paused"
    queue.resume(alias)
    assert "paused" not in queue.job(job).why


def test_only_jobs_of_a_paused_tier_say_so(queue: Client, alias: str) -> None:
    queue.submit(prompt="soon", server=alias)
    queue.submit(prompt="late", server=alias, tier="bulk")
    queue.pause(alias, tier="bulk")
    soon, late = queue.jobs(server=alias)
    assert "paused" not in soon.why
    assert late.why == f"tier bulk is paused on {alias}"


def test_a_job_that_waits_for_a_parked_server_says_what_to_mend(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.session.catalogue.park(alias, "the disk is full")
    queue.pause(alias)
    assert queue.job(job).why == f"{alias} is parked: the disk is full"
