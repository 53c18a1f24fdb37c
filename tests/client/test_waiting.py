"""Following a job to its end."""

import threading

import pytest

from stablequeue.catalogue import JobState, Outcome
from stablequeue.client import Client, JobView, ViewState
from stablequeue.pipeline.accept import accept
from stablequeue.prefect_api import StateType

pytestmark = pytest.mark.prefect


def test_waiting_tells_each_change_and_ends_with_the_outcome(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    run = queue.job(job).flow_run_id
    phases: list[str] = []
    api, catalogue = queue.session.api, queue.session.catalogue

    def work() -> None:
        api.set_state(run, StateType.RUNNING, "Generating", force=True)
        generating.wait(20)
        catalogue.finish(job, Outcome(state=JobState.DEGRADED, message="1 stored"))
        api.set_state(run, StateType.COMPLETED, "Degraded", force=True)

    generating = threading.Event()

    def progress(seen: JobView) -> None:
        phases.append(seen.phase)
        if seen.phase == "Generating":
            generating.set()

    worker = threading.Thread(target=work)
    worker.start()
    ended = queue.wait(job, on_progress=progress, timeout=30)
    worker.join()
    assert (ended.state, ended.message) == (ViewState.DEGRADED, "1 stored")
    assert phases[-2:] == ["Generating", "Degraded"]


def test_waiting_hands_over_a_job_that_could_not_be_sent_before(queue: Client, alias: str) -> None:
    session = queue.session
    stored = accept(
        {"prompt": "a", "server": alias}, settings=session.settings, catalogue=session.catalogue
    )
    seen = queue.wait(stored.job_id, timeout=1.0)
    assert seen.phase == "Queued"
    assert seen.flow_run_id


def test_waiting_gives_up_after_the_timeout_and_leaves_the_job(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    seen = queue.wait(job, timeout=0)
    assert not seen.ended
    assert queue.job(job).state is ViewState.WAITING


def test_waiting_for_a_paused_server_says_so(queue: Client, alias: str) -> None:
    job = queue.submit(prompt="a", server=alias).job_id
    queue.pause(alias)
    told: list[str] = []

    def progress(seen: JobView) -> None:
        told.append(seen.why)
        if seen.why:
            queue.cancel(job)

    assert queue.wait(job, on_progress=progress, timeout=30).state is ViewState.CANCELLED
    assert f"{alias} is paused" in told
