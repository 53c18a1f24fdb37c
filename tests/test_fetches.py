"""Downloads as flow runs: one a file, small parameters, people's cancels kept."""

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stablequeue import fetches
from stablequeue.fetches import Target, ask, fetched_to, file_key, other_name, trimmed, wake
from stablequeue.models.kinds import ModelType
from stablequeue.models.sources import Offer
from stablequeue.prefect_api import NewRun, PrefectApi, Run, StateType
from tests.support.deployed import deploy

TARGET = Target(ModelType.LORA, Path("/models/loras"), "a.safetensors")


def offer(**changes: Any) -> Offer:
    known = Offer(
        source="civitai", ident=f"civitai:{uuid4()}", url="https://civitai.com/x", name="a"
    )
    return replace(known, **changes)


def test_the_same_bytes_are_one_file_wherever_they_come_from() -> None:
    one, other = offer(sha256="ab" * 32), offer(sha256="ab" * 32, source="huggingface")
    assert file_key(one) == file_key(other) != file_key(offer())
    assert file_key(offer(ident="x")) == file_key(offer(ident="x"))
    assert other_name("a b.safetensors", one) == "a b-abababab.safetensors"
    assert Target.from_json(TARGET.to_json()) == TARGET


def test_hosts_with_folders_of_their_own_fetch_the_same_file_each() -> None:
    file = offer(sha256="ab" * 32)
    assert len({file_key(file), file_key(file, "a"), file_key(file, "b")}) == 3
    own = replace(TARGET, host="a")
    assert Target.from_json(own.to_json()) == own


def test_parameters_stay_small_whatever_a_source_tells() -> None:
    picture = {"url": "https://x/1.png", "type": "image", "meta": {"prompt": "p" * 100_000}}
    version = {"id": 1, "description": "d" * 300_000, "images": [picture] * 50, "trainedWords": []}
    small = trimmed(offer(facts={"version": version, "fileId": 3}))
    text = json.dumps(small.to_json())
    assert len(text) < 100_000
    assert small.facts["version"]["images"][0] == {"url": "https://x/1.png", "type": "image"}
    assert small.facts["fileId"] == 3
    assert trimmed(offer(facts={"version": 5})).facts == {"version": 5}


@pytest.fixture
def api(prefect_api: PrefectApi) -> Iterator[PrefectApi]:
    """Prefect's API with a deployment for downloads, and one for jobs."""
    deploy(prefect_api, "downloads", flow="fetch-model")
    deploy(prefect_api, "fetches-jobs")
    yield prefect_api
    for run in prefect_api.runs():
        if run.pool in {"downloads", "fetches-jobs"}:
            prefect_api.delete_run(run.id)


def job(api: PrefectApi, key: str, run_id: str = "") -> Run:
    tags = (f"{fetches.FILE_TAG}{key}", f"{fetches.RUN_TAG}{run_id}")
    made = api.create_run("generate/fetches-jobs", NewRun(parameters={}, tags=tags))
    later = datetime.now(UTC) + fetches.LOOK_AGAIN
    api.set_state(made.id, StateType.SCHEDULED, fetches.WAITING, scheduled_time=later)
    return made


def test_however_many_ask_there_is_one_run_until_it_has_ended(api: PrefectApi) -> None:
    wanted = offer(sha256=uuid4().hex * 2)
    first = ask(api, wanted, TARGET, "bulk")
    assert ask(api, replace(wanted, source="direct"), TARGET, "normal").id == first.id
    assert "tier:normal" in api.read_run(first.id).tags
    assert ask(api, wanted, TARGET, "bulk").id == first.id
    assert "tier:normal" in api.read_run(first.id).tags, "nobody makes it less urgent"
    assert fetched_to(api, wanted) is None
    api.set_state(first.id, StateType.COMPLETED, force=True)
    assert fetched_to(api, wanted) == Path("/models/loras/a.safetensors")
    fetches.moved(api, first.id, "b.safetensors")
    assert fetched_to(api, wanted) == Path("/models/loras/b.safetensors")
    second = ask(api, wanted, TARGET, "normal")
    assert second.id != first.id
    assert ask(api, offer(), TARGET, "normal").id not in {first.id, second.id}


def test_everybody_who_waits_is_woken_at_the_old_place_and_nobody_else(api: PrefectApi) -> None:
    key = uuid4().hex
    waiting = [job(api, key) for _ in range(3)]
    running, other = job(api, key), job(api, uuid4().hex)
    api.set_state(running.id, StateType.RUNNING, force=True)
    assert wake(api, key, "it is there") == 3
    for run in waiting:
        now = api.read_run(run.id)
        assert (now.state_name, now.state_message) == ("Queued", "it is there")
        assert now.raw["next_scheduled_start_time"] <= run.raw["expected_start_time"]
    assert api.read_run(running.id).state_type is StateType.RUNNING
    assert api.read_run(other.id).state_name == fetches.WAITING


def test_those_who_wait_say_how_far_it_is_but_not_more_of_them_than_a_few(
    api: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetches, "MOST_TOLD", 2)
    key = uuid4().hex
    waiting = [job(api, key) for _ in range(3)]
    fetches.tell(api, key, "fetching a: 41 %")
    messages = [api.read_run(run.id).state_message for run in waiting]
    assert sorted(messages) == ["", "fetching a: 41 %", "fetching a: 41 %"]
    states = {api.read_run(run.id).state_name for run in waiting}
    assert states == {fetches.WAITING}


def test_a_job_cancelled_between_our_look_and_our_word_stays_cancelled(
    api: PrefectApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = uuid4().hex
    run = job(api, key)
    look = fetches.waiters

    def then_cancelled(api: PrefectApi, key: str) -> list[Run]:
        found = look(api, key)
        api.cancel(run.id)
        return found

    monkeypatch.setattr(fetches, "waiters", then_cancelled)
    fetches.tell(api, key, "fetching a: 41 %")
    assert api.read_run(run.id).state_type is StateType.CANCELLED
    assert wake(api, key, "it is there") == 0


def test_a_job_whose_download_is_over_or_gone_is_let_go_on(api: PrefectApi) -> None:
    key = uuid4().hex
    runs = [ask(api, offer(), TARGET, "normal") for _ in range(3)]
    waiting = [job(api, key, run.id) for run in runs]
    assert fetches.wake_left(api) == 0
    api.cancel(runs[0].id)
    api.delete_run(runs[1].id)
    assert fetches.wake_left(api) == 2
    names = [api.read_run(run.id).state_name for run in waiting]
    assert names == ["Queued", "Queued", fetches.WAITING]


def test_a_job_about_to_look_by_itself_is_not_disturbed(api: PrefectApi) -> None:
    key = uuid4().hex
    run = job(api, key)
    soon = datetime.now(UTC) + timedelta(seconds=5)
    api.set_state(run.id, StateType.SCHEDULED, fetches.WAITING, scheduled_time=soon)
    fetches.tell(api, key, "fetching a: 41 %")
    assert api.read_run(run.id).state_message == ""
