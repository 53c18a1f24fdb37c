"""Merging Prefect's run and the catalogue's outcome into one view."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from stablequeue.catalogue import JobState, Outcome, StoredRequest
from stablequeue.ids import new_job_id
from stablequeue.prefect_api import Run, StateType
from stablequeue.views import JobView, ViewState, in_order, job_id_of, view

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
STORED = StoredRequest(
    id=1,
    job_id=new_job_id(),
    data={"schema_version": 1, "prompt": "a fox", "count": 2, "tier": "bulk"},
    seed=7,
    state=JobState.SENT,
    server="gpu-a",
    deployment="generate/gpu-a",
    source="",
    flow_run_id="run-1",
    accepted_at=NOW,
    sent_at=NOW,
    started_at=None,
)
RUN = Run(
    id="run-1",
    name="a fox",
    state_type=StateType.RUNNING,
    state_name="Generating",
    state_message="step 3 of 20",
    state_time=NOW,
    pool="gpu-a",
    parameters={"job_id": STORED.job_id, "request": {"prompt": "an edited fox"}},
)


def test_a_run_that_goes_on_decides_whatever_an_earlier_try_ended_with() -> None:
    seen = view(STORED, Outcome(state=JobState.FAILED, code="job_failed"), RUN)
    assert (seen.state, seen.phase, seen.code) == (ViewState.RUNNING, "Generating", "")


def test_until_a_job_starts_the_runs_parameters_are_the_truth() -> None:
    assert view(STORED, None, RUN).prompt == "an edited fox"
    assert view(replace(STORED, started_at=NOW), None, RUN).prompt == "a fox"


def test_a_finished_job_whose_run_is_gone_shows_its_outcome() -> None:
    outcome = Outcome(state=JobState.DEGRADED, message="1 stored", finished_at=NOW)
    seen = view(replace(STORED, state=JobState.DEGRADED), outcome, None)
    assert (seen.state, seen.message, seen.in_prefect) == (ViewState.DEGRADED, "1 stored", False)
    assert seen.state.successful
    assert seen.ended


def test_a_run_deleted_in_prefect_is_a_cancelled_job() -> None:
    seen = view(STORED, None, None)
    assert seen.state is ViewState.CANCELLED
    assert "deleted" in seen.message


def test_without_an_answer_from_prefect_nobody_knows() -> None:
    assert view(STORED, None, None, prefect_answers=False).state is ViewState.UNKNOWN


@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [
        (StateType.COMPLETED, "Completed", ViewState.COMPLETED),
        (StateType.COMPLETED, "Censored", ViewState.CENSORED),
        (StateType.CANCELLED, "Expired", ViewState.EXPIRED),
        (StateType.CRASHED, "Crashed", ViewState.CRASHED),
        (StateType.FAILED, "TimedOut", ViewState.FAILED),
    ],
)
def test_a_run_that_ended_without_an_outcome_speaks_for_itself(
    kind: StateType, name: str, expected: ViewState
) -> None:
    assert view(STORED, None, replace(RUN, state_type=kind, state_name=name)).state is expected


def test_a_retry_that_crashed_is_not_shown_as_the_failure_before_it() -> None:
    failed = Outcome(state=JobState.FAILED, finished_at=NOW - timedelta(hours=1))
    crashed = replace(RUN, state_type=StateType.CRASHED, state_name="Crashed")
    assert view(STORED, failed, crashed).state is ViewState.CRASHED


def test_a_result_is_never_hidden_by_a_crash_after_it() -> None:
    done = Outcome(state=JobState.COMPLETED, finished_at=NOW - timedelta(hours=1))
    crashed = replace(RUN, state_type=StateType.CRASHED, state_name="Crashed")
    assert view(STORED, done, crashed).state is ViewState.COMPLETED


def test_a_run_made_in_prefects_pages_is_a_job_by_its_own_id() -> None:
    run = replace(RUN, parameters={"request": {"prompt": "a cat", "server": "any"}})
    seen = view(None, None, replace(run, state_type=StateType.SCHEDULED, state_name="Late"))
    assert (seen.job_id, seen.prompt, seen.state) == ("run-1", "a cat", ViewState.WAITING)


def test_parameters_of_any_shape_are_shown_somehow() -> None:
    odd = {"prompt": 3, "count": "x", "tags": [1], "server": None}
    assert view(None, None, replace(RUN, parameters={"request": odd})).tags == ("1",)
    assert view(None, None, replace(RUN, parameters={"request": "no object"})).prompt == ""


def test_the_job_of_a_run_is_told_by_parameter_then_tag() -> None:
    assert job_id_of(RUN) == STORED.job_id
    assert job_id_of(replace(RUN, parameters={}, tags=("x", "job:abc"))) == "abc"


def test_waiting_jobs_stand_by_tier_then_by_time_after_running_ones() -> None:
    def job(name: str, state: ViewState, tier: str = "normal", minutes: int = 0) -> JobView:
        when = NOW + timedelta(minutes=minutes)
        return JobView(job_id=name, state=state, tier=tier, due=when, finished_at=when)

    jobs = [
        job("old end", ViewState.FAILED, minutes=1),
        job("bulk", ViewState.WAITING, "bulk", 0),
        job("later", ViewState.WAITING, "normal", 9),
        job("urgent", ViewState.WAITING, "interactive", 10),
        job("sooner", ViewState.WAITING, "normal", 8),
        job("new end", ViewState.COMPLETED, minutes=2),
        job("running", ViewState.RUNNING),
    ]
    names = [one.job_id for one in in_order(jobs)]
    assert names == ["running", "urgent", "sooner", "later", "bulk", "new end", "old end"]


def test_a_view_is_plain_json() -> None:
    data = view(STORED, None, RUN).to_json()
    assert data["state"] == "running"
    assert data["accepted_at"] == "2026-11-21T12:00:00+00:00"
    assert data["tags"] == []
