"""Giving accepted jobs their flow run."""

import pytest

from stablequeue.catalogue import JobState, Outcome, StoredRequest
from stablequeue.client import Client
from stablequeue.errors import NotFound
from stablequeue.pipeline.accept import accept
from stablequeue.prefect_api import StateType
from stablequeue.sending import send

pytestmark = pytest.mark.prefect


def accepted(queue: Client, server: str) -> StoredRequest:
    """Return a job that is on disk and not in Prefect."""
    session = queue.session
    return accept(
        {"prompt": "a", "server": server}, settings=session.settings, catalogue=session.catalogue
    )


def test_sending_twice_is_one_run(queue: Client, alias: str) -> None:
    session = queue.session
    job = accepted(queue, alias)
    first = send(job, api=session.api, catalogue=session.catalogue)
    second = send(job, api=session.api, catalogue=session.catalogue)
    assert first == second
    assert session.catalogue.request(job.job_id).flow_run_id == first


def test_a_run_made_just_before_a_crash_is_found_again(queue: Client, alias: str) -> None:
    session = queue.session
    job = accepted(queue, alias)
    run = send(job, api=session.api, catalogue=session.catalogue)
    # The process died before `mark_sent`: the row still says accepted.
    again = session.catalogue.request(job.job_id)
    assert send(again, api=session.api, catalogue=session.catalogue) == run


def test_a_job_cancelled_while_it_is_sent_has_its_run_cancelled(queue: Client, alias: str) -> None:
    session = queue.session
    job = accepted(queue, alias)
    session.catalogue.finish(job.job_id, Outcome(state=JobState.CANCELLED))
    assert send(job, api=session.api, catalogue=session.catalogue) == ""
    [run] = session.api.runs({"flow_runs": {"idempotency_key": {"any_": [job.job_id]}}})
    assert run.state_type is StateType.CANCELLED


def test_a_job_whose_run_ended_gets_another_under_the_same_id(queue: Client, alias: str) -> None:
    session = queue.session
    job = accepted(queue, alias)
    first = send(job, api=session.api, catalogue=session.catalogue)
    session.api.set_state(first, StateType.FAILED, force=True)
    session.catalogue.finish(job.job_id, Outcome(state=JobState.FAILED))
    reopened = session.catalogue.reopen(job.job_id)
    second = send(reopened, api=session.api, catalogue=session.catalogue)
    assert second != first
    run = session.api.read_run(second)
    assert run.idempotency_key == f"{job.job_id}/2"
    assert run.parameters["job_id"] == job.job_id
    assert send(reopened, api=session.api, catalogue=session.catalogue) == second


def test_a_server_without_a_deployment_is_told(queue: Client) -> None:
    job = accepted(queue, "gpu-of-nobody")
    with pytest.raises(NotFound, match="gpu-of-nobody"):
        send(job, api=queue.session.api, catalogue=queue.session.catalogue)
