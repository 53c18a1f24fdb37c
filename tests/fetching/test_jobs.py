"""Jobs whose models are missing, from the fake Civitai to the stored picture."""

import json
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, run_filter
from tests.fetching.conftest import WITHIN_S, FetchHouse, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]

SMALL: dict[str, Any] = {"prompt": "a lighthouse", "width": 64, "height": 64, "steps": 2}


@pytest.mark.parametrize("server", ["comfy", "forge"])
def test_a_missing_checkpoint_named_by_its_hash_is_fetched_and_the_picture_made_with_it(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi, server: str
) -> None:
    file = fetch_house.offer(model_type="Checkpoint")
    sha256 = file["hashes"]["SHA256"]

    submitted = queue.submit(**SMALL, server=server, checkpoint=sha256)
    view = queue.wait(submitted.job_id, timeout=WITHIN_S)

    assert (view.state.value, view.phase) == ("completed", "Completed"), view.message
    [picture] = queue.pictures(submitted.job_id)
    assert file["name"].removesuffix(".safetensors") in json.dumps(dict(picture.asset.models))
    there = fetch_house.models / "checkpoints" / file["name"]
    assert there.stat().st_size == round(file["sizeKB"] * 1024)
    assert not list(there.parent.glob("*.part*"))
    info = json.loads(there.with_suffix(".civitai.info").read_text())
    assert info["id"] == file["version_id"]
    assert fetch_house.downloads_of(file) == 1
    states = api.call("GET", f"flow_run_states/?flow_run_id={view.flow_run_id}")
    assert "Waiting for model" in {state["name"] for state in states}
    runs = api.runs(run_filter(deployments=["downloads"], tags_all=["source:civitai"]))
    [download] = [run for run in runs if file["name"] in run.name]
    assert download.state_name == "Completed"
    assert file["name"] in download.state_message


def test_a_checkpoint_and_a_lora_by_version_and_hash_are_both_fetched_once_for_five_jobs(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    checkpoint = fetch_house.offer(model_type="Checkpoint")
    lora = fetch_house.offer(model_type="LORA")
    fetch_house.civitai.storage.pace_s = 0.05

    wanted: dict[str, Any] = {
        **SMALL,
        "server": "forge",
        "checkpoint": f"version:{checkpoint['version_id']}",
        "prompt": f"a lighthouse <lora:{lora['hashes']['AutoV3']}:0.5>",
        "loras": [{"name": lora["hashes"]["AutoV2"], "weight": 0.8}],
    }
    jobs = [queue.submit(**wanted).job_id for _ in range(5)]
    views = [queue.wait(job_id, timeout=WITHIN_S) for job_id in jobs]

    assert [view.state.value for view in views] == ["completed"] * 5, views[0].message
    assert fetch_house.downloads_of(checkpoint) == fetch_house.downloads_of(lora) == 1
    runs = api.runs(run_filter(deployments=["downloads"]))
    for file in (checkpoint, lora):
        # one that was asked for as the first ended finds the file there
        said = [run.state_message for run in runs if file["name"] in run.name]
        assert sum(" fetched: " in one for one in said) == 1, said
    stem = lora["name"].removesuffix(".safetensors")
    [picture] = queue.pictures(jobs[0])
    assert stem in json.dumps(dict(picture.asset.models))


def test_what_lies_in_the_library_already_is_used_and_not_fetched_again(
    fetch_house: FetchHouse, queue: Client
) -> None:
    file = fetch_house.offer(model_type="LORA")
    data = fetch_house.civitai.storage.files[file["key"]].data
    (fetch_house.models / "loras" / "styles").mkdir(exist_ok=True)
    (fetch_house.models / "loras" / "styles" / "renamed.safetensors").write_bytes(data)

    for server in ("comfy", "forge"):
        submitted = queue.submit(
            **SMALL,
            server=server,
            checkpoint="base.safetensors",
            loras=[{"name": f"version:{file['version_id']}"}],
        )
        view = queue.wait(submitted.job_id, timeout=WITHIN_S)
        assert view.state.value == "completed", view.message
    assert fetch_house.downloads_of(file) == 0


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ("login", "login_needed"),
        ("disabled", "download_disabled"),
        ("early", "early_access"),
        ("gone", "model_gone"),
    ],
)
def test_what_cannot_be_had_fails_every_job_that_waits_with_one_line_of_advice(
    fetch_house: FetchHouse, queue: Client, trouble: str, said: str
) -> None:
    file = fetch_house.offer(model_type="Checkpoint")
    version = file["version_id"]
    civitai = fetch_house.civitai
    match trouble:
        case "login":
            civitai.login_needed.add(version)
        case "disabled":
            civitai.disabled.add(version)
        case "early":
            civitai.early_until[version] = "2030-01-01T00:00:00Z"
        case _:
            [found] = [v for _, v in civitai.versions() if v["id"] == version]
            found["archived"] = True

    wanted = {**SMALL, "server": "comfy", "checkpoint": f"version:{version}"}
    jobs = [queue.submit(**wanted).job_id for _ in range(2)]
    views = [queue.wait(job_id, timeout=WITHIN_S) for job_id in jobs]

    for view in views:
        assert (view.state.value, view.code) == ("failed", "not_fetched"), view.message
        assert said in view.message
        assert file["name"] in view.message
        assert "\n" not in view.message
    checkpoints = fetch_house.models / "checkpoints"
    assert not [one for one in checkpoints.iterdir() if one.name.startswith(file["name"])]


def test_a_name_that_nothing_identifies_is_never_searched_for(
    fetch_house: FetchHouse, queue: Client
) -> None:
    fetch_house.civitai.seen.clear()
    submitted = queue.submit(**SMALL, server="comfy", checkpoint="dreamy-mix")
    view = queue.wait(submitted.job_id, timeout=WITHIN_S)
    assert (view.state.value, view.code) == ("failed", "model_missing")
    assert fetch_house.civitai.seen == []


def test_jobs_behind_those_that_wait_go_on_meanwhile(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = fetch_house.offer(size=3_000_000, model_type="LORA")
    ready = fetch_house.offer(model_type="Checkpoint")
    there = fetch_house.models / "checkpoints" / ready["name"]
    there.write_bytes(fetch_house.civitai.storage.files[ready["key"]].data)
    fetch_house.civitai.storage.pace_s = 0.1  # some 20 s
    common = {**SMALL, "server": "comfy", "checkpoint": ready["name"]}

    waiting = [
        queue.submit(**common, loras=[{"name": f"version:{file['version_id']}"}]).job_id
        for _ in range(5)
    ]
    behind = [queue.submit(**common).job_id for _ in range(5)]
    for job_id in behind:
        assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"

    still = [queue.job(job_id) for job_id in waiting]
    assert {view.phase for view in still} <= {"Waiting for model", "Queued"}
    assert still[0].phase == "Waiting for model"
    assert file["name"] in still[0].message
    wait_until(
        lambda: " % of 3.0 MB" in queue.job(waiting[0]).message,
        timeout_s=60,
        why="the job says how far its download is",
    )
    fetch_house.civitai.storage.pace_s = 0.0
    views = [queue.wait(job_id, timeout=WITHIN_S) for job_id in waiting]
    for view in views:
        assert view.state.value == "completed", view.message
    assert fetch_house.downloads_of(file) == 1
    states = api.call("GET", f"flow_run_states/?flow_run_id={views[-1].flow_run_id}")
    assert not {"Recovering", "Crashed", "Failed"} & {state["name"] for state in states}
