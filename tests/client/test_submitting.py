"""Submitting: refused, or on disk and then in Prefect."""

from uuid import uuid4

import pytest

from stablequeue.catalogue import JobState
from stablequeue.client import Client, ViewState
from stablequeue.errors import BadRequest
from stablequeue.ids import new_job_id, short_id
from stablequeue.request import GenerationRequest
from stablequeue.server_blocks import save_server
from stablequeue.servers import ServerConfig
from tests.support.deployed import register_server_block

needs_prefect = pytest.mark.prefect


@needs_prefect
def test_a_jobs_run_says_the_same_in_parameters_tags_queue_and_name(
    queue: Client, alias: str
) -> None:
    job = queue.submit(
        prompt="a (red:1.2) fox", server=alias, tier="interactive", tags=["mine"], seed=5
    )
    stored = queue.session.catalogue.request(job.job_id)
    run = queue.session.api.read_run(stored.flow_run_id)
    assert stored.state is JobState.SENT
    assert run.idempotency_key == job.job_id
    assert run.parameters["job_id"] == job.job_id
    assert run.parameters["request"]["prompt"] == "a (red:1.2) fox"
    assert set(run.tags) == {f"job:{job.job_id}", f"server:{alias}", "tier:interactive", "mine"}
    assert (run.pool, run.queue) == (alias, "interactive")
    assert run.name == f"a red 1.2 fox · {alias} · {short_id(job.job_id)}"
    assert run.state_name == "Queued"
    assert job.note == ""


@needs_prefect
def test_submitting_twice_with_one_id_is_one_job(queue: Client, alias: str) -> None:
    job_id = new_job_id()
    first = queue.submit(prompt="a", server=alias, job_id=job_id)
    second = queue.submit(prompt="b", server=alias, job_id=job_id)
    assert first.job_id == second.job_id == job_id
    [only] = queue.jobs(server=alias)
    assert only.prompt == "a"


@needs_prefect
def test_an_unknown_server_is_refused_naming_those_there_are(queue: Client) -> None:
    register_server_block(queue.session.api)
    saved = f"gpu-{uuid4().hex[:12]}"
    config = ServerConfig.model_validate(
        {"alias": saved, "type": "comfyui", "url": "http://127.0.0.1:9"}
    )
    save_server(queue.session.api, config)
    with pytest.raises(BadRequest) as refused:
        queue.submit(prompt="a", server="nowhere")
    assert refused.value.field == "server"
    assert saved in refused.value.allowed
    assert "any" in refused.value.allowed
    assert queue.session.catalogue.requests() == []


@needs_prefect
def test_a_server_saved_a_moment_ago_takes_jobs_before_it_is_deployed(queue: Client) -> None:
    register_server_block(queue.session.api)
    saved = f"gpu-{uuid4().hex[:12]}"
    config = ServerConfig.model_validate(
        {"alias": saved, "type": "comfyui", "url": "http://127.0.0.1:9"}
    )
    save_server(queue.session.api, config)
    job = queue.submit(prompt="a", server=saved)
    assert "stablequeue up" in job.note
    assert queue.session.catalogue.request(job.job_id).state is JobState.ACCEPTED


def test_a_job_is_kept_while_prefect_is_away(alone: Client) -> None:
    job = alone.submit(prompt="a", server="gpu-a")
    assert "stablequeue up" in job.note
    assert alone.session.catalogue.request(job.job_id).state is JobState.ACCEPTED
    [seen] = alone.jobs()
    assert seen.state is ViewState.WAITING
    assert seen.phase == "Not sent yet"
    assert not alone.prefect_answered


def test_a_bad_request_is_refused_and_nothing_kept(alone: Client) -> None:
    with pytest.raises(BadRequest) as refused:
        alone.submit(prompt="a", width=513)
    assert refused.value.field == "width"
    assert alone.session.catalogue.requests() == []


def test_fields_go_before_those_of_a_request(alone: Client) -> None:
    request = GenerationRequest(prompt="a", steps=7)
    job = alone.submit(request, steps=9)
    stored = alone.session.catalogue.request(job.job_id).request
    assert (stored.prompt, stored.steps) == ("a", 9)


def test_what_is_likely_not_meant_is_said(alone: Client) -> None:
    job = alone.submit(
        prompt="a", loras=[{"name": "x"}, {"name": "X", "weight": 0.5}], server="any"
    )
    assert job.warnings == ("loras: 'x' is named more than once; the weights add up",)
