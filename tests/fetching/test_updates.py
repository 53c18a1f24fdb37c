"""The scheduled check for newer versions of the library's models, through Prefect."""

import json

from stablequeue.client import Client
from stablequeue.prefect_api import NewRun, PrefectApi, StateType
from tests.fetching.conftest import WITHIN_S, FetchHouse, wait_until


def test_the_scheduled_check_reports_newer_versions_and_fetches_nothing(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    old = fetch_house.offer(model_type="LORA")
    data = fetch_house.civitai.storage.files[old["key"]].data
    (fetch_house.models / "loras" / "mine.safetensors").write_bytes(data)
    queue.models.scan()
    fetch_house.offer(
        model_type="LORA",
        model_id=old["model_id"],
        version_id=old["version_id"] + 1,
        file_id=old["version_id"] + 7_000_000,
    )
    newest = fetch_house.civitai.models[old["model_id"]]["modelVersions"][0]
    newest["publishedAt"] = "2026-05-05T00:00:00.000Z"
    asked = len(fetch_house.civitai.storage.seen)

    run = api.create_run(api.deployment("check-models/check-models"), NewRun(parameters={}))
    wait_until(lambda: api.read_run(run.id).final, timeout_s=WITHIN_S, why="it is checked")

    done = api.read_run(run.id)
    assert done.state_type is StateType.COMPLETED, done.state_message
    assert "1 newer versions" in done.state_message
    [table] = api.call(
        "POST", "artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run.id]}}}
    )
    [row] = json.loads(table["data"])
    assert row["file"] == "mine.safetensors"
    assert row["reference"] == f"civitai:{old['model_id']}@{old['version_id'] + 1}"
    assert len(fetch_house.civitai.storage.seen) == asked
