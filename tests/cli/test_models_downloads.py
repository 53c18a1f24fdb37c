"""`models fetch` and `models downloads` where downloads are flow runs: with a real Prefect."""

import time
from pathlib import Path

import pytest

from stablequeue.client import Client
from stablequeue.prefect_api import StateType
from stablequeue.servers import DOWNLOADS
from stablequeue.settings import load
from tests.cli.conftest import Run, Site
from tests.fakes.model_files import safetensors
from tests.support.deployed import deploy
from tests.support.prefect import PrefectServer

pytestmark = pytest.mark.prefect


@pytest.fixture
def data(site: Site, online: str, prefect_server: PrefectServer) -> bytes:
    """Bytes of a LoRA of this test alone on Civitai, with a deployment for downloads."""
    del online
    with prefect_server.api() as api:
        deploy(api, DOWNLOADS, flow="fetch-model")
    content = safetensors(20_000, seed=time.time_ns() % 1_000_000)
    site.fake.add_file(content, name="crane.safetensors")
    return content


def test_a_fetch_asks_for_one_run_and_returns(run: Run, site: Site, data: bytes) -> None:
    ran = run("models", "fetch", "version:600")
    assert ran.code == 0, ran.err
    assert "How far: stablequeue models downloads" in ran.out
    [asked] = run("models", "fetch", "civitai:500@600", "--json").json
    assert (asked["state"], asked["size"]) == ("asked", len(data))
    assert asked["path"] == str(site.loras / "crane.safetensors")
    assert asked["run_id"] in ran.out
    assert not (site.loras / "crane.safetensors").exists()
    listed = run("models", "downloads", "--json").json
    [one] = [found for found in listed if found["run_id"] == asked["run_id"]]
    assert (one["name"], one["source"], one["ended"]) == ("crane.safetensors", "civitai", False)
    assert asked["run_id"] in run("models", "downloads").out


def test_a_download_is_cancelled_by_its_runs_id(run: Run, data: bytes) -> None:
    del data
    [asked] = run("models", "fetch", "version:600", "--json").json
    ran = run("models", "downloads", "--cancel", asked["run_id"][:18])
    assert (ran.code, ran.out) == (0, f"cancelled: {asked['run_id']}\n")
    again = run("models", "downloads", "--cancel", asked["run_id"])
    assert again.code == 1
    assert "goes on" in again.err
    listed = run("models", "downloads", "--json").json
    assert asked["run_id"] not in {one["run_id"] for one in listed}
    ended = run("models", "downloads", "--all", "--limit", "500", "--json").json
    [one] = [found for found in ended if found["run_id"] == asked["run_id"]]
    assert one["state"] == "Cancelled"


def test_a_direct_fetch_does_not_ask_for_a_run(run: Run, site: Site, data: bytes) -> None:
    [one] = run("models", "fetch", "version:600", "--direct", "--json").json
    assert (one["state"], one["run_id"]) == ("fetched", "")
    assert (site.loras / "crane.safetensors").read_bytes() == data


@pytest.mark.parametrize(("end", "code"), [(StateType.COMPLETED, 0), (StateType.FAILED, 1)])
def test_waiting_follows_the_run_to_its_end(
    run: Run, data: bytes, monkeypatch: pytest.MonkeyPatch, end: StateType, code: int
) -> None:
    del data
    [asked] = run("models", "fetch", "version:600", "--json").json

    def ended_meanwhile(seconds: float) -> None:
        del seconds
        with Client(load()) as queue:
            queue.session.api.set_state(asked["run_id"], end, message="in the end", force=True)

    monkeypatch.setattr("stablequeue.cli.models_fetch.time.sleep", ended_meanwhile)
    ran = run("models", "fetch", "version:600", "--wait")
    assert ran.code == code
    assert "in the end" in ran.err


def test_progress_is_that_of_the_runs_artifact(run: Run, data: bytes) -> None:
    del data
    [asked] = run("models", "fetch", "version:600", "--json").json
    with Client(load()) as queue:
        api = queue.session.api
        api.set_state(asked["run_id"], StateType.RUNNING, "Downloading", message="41 %", force=True)
        body = {"type": "progress", "data": 41.0, "flow_run_id": asked["run_id"], "key": "download"}
        api.call("POST", "artifacts/", body)
    listed = run("models", "downloads", "--json").json
    [one] = [found for found in listed if found["run_id"] == asked["run_id"]]
    assert (one["progress"], one["state"], one["message"]) == (0.41, "Downloading", "41 %")
    assert "41%" in run("models", "downloads").out


def test_paths_of_asked_files_are_those_of_the_library(run: Run, site: Site, data: bytes) -> None:
    del data
    [asked] = run("models", "fetch", "version:600", "--json").json
    assert Path(asked["path"]).parent == site.loras
