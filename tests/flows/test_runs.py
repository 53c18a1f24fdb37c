"""What people do to runs in Prefect's pages, and what a run leaves behind."""

import json
import re
import sqlite3
import subprocess
import sys
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stablequeue.catalogue import AttemptState, Catalogue, JobState
from stablequeue.client import Client
from stablequeue.errors import PrefectRefused
from stablequeue.prefect_api import PrefectApi, Run
from stablequeue.project import project_dir
from stablequeue.server_blocks import save_server, saved_server
from stablequeue.store_blocks import BUCKET_BLOCK
from tests.flows.acting import SMALL, care_until, generating, generations, run_of, slow
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(180)]

WITHIN_S = 60.0


def _form(api: PrefectApi, deployment: str, request: dict[str, Any], job_id: str = "") -> str:
    """Start a custom run as Prefect's form does; return its id."""
    body = {"parameters": {"request": request, **({"job_id": job_id} if job_id else {})}}
    target = api.deployment(f"generate/{deployment}")
    return str(api.call("POST", f"deployments/{target.id}/create_flow_run", body)["id"])


def _ended(api: PrefectApi, run_id: str) -> Run:
    wait_until(lambda: api.read_run(run_id).final, timeout_s=WITHIN_S, every_s=0.3)
    return api.read_run(run_id)


def test_a_run_deleted_while_it_runs_stops_its_job_and_is_not_sent_again(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.2))
        ids = {
            a: queue.submit({**SMALL, "server": a, "steps": 500}).job_id for a in house.sandboxes
        }
        for alias, job_id in ids.items():
            wait_until(generating(house.sandboxes[alias], job_id), timeout_s=WITHIN_S)
        for job_id in ids.values():
            api.delete_run(run_of(queue, api, job_id).id)

        for alias, job_id in ids.items():
            wait_until(
                lambda a=alias, j=job_id: not generating(house.sandboxes[a], j)(),
                timeout_s=20,
                why=f"{alias} stops",
            )
            wait_until(
                lambda j=job_id: catalogue.request(j).state is JobState.CANCELLED, timeout_s=20
            )
    for alias, job_id in ids.items():
        assert "deleted" in queue.job(job_id).message
        assert generations(house.sandboxes[alias], job_id) == 1
    assert not catalogue.unsent(older_than_s=-60, limit=10)


def test_what_ends_before_it_begins(
    queue: Client, api: PrefectApi, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted while it waits, expired, sent to a deployment of another server."""
    queue.pause("comfy")
    try:
        deleted = queue.submit({**SMALL, "server": "comfy"}).job_id
        api.delete_run(run_of(queue, api, deleted).id)
        care_until(
            lambda: catalogue.request(deleted).state is JobState.CANCELLED,
            catalogue,
            api,
            monkeypatch,
        )
        soon = datetime.now(UTC) + timedelta(seconds=2)
        expiring = queue.submit({**SMALL, "server": "comfy", "expires_at": soon.isoformat()}).job_id
        wait_until(lambda: datetime.now(UTC) > soon)
        with pytest.raises(PrefectRefused, match="'forge' is not one of"):
            _form(api, "comfy", {**SMALL, "server": "forge"})
        elsewhere = _form(api, "comfy", SMALL)
        api.patch_run(elsewhere, parameters={"request": {**SMALL, "server": "forge"}})
    finally:
        queue.resume("comfy")

    view = queue.wait(expiring, timeout=WITHIN_S)

    assert (view.state.value, view.phase) == ("expired", "Expired")
    refused = _ended(api, elsewhere)
    assert refused.state_name == "Failed"
    assert refused.state_message == (
        "bad_request: server: this deployment runs on 'comfy' only. Allowed: comfy."
    )
    for job_id in (deleted, expiring, elsewhere):
        assert catalogue.attempts(job_id) == []
    assert "deleted" in queue.job(deleted).message


def test_a_run_copied_in_prefects_pages_is_a_new_job(queue: Client, api: PrefectApi) -> None:
    first = queue.submit({**SMALL, "server": "comfy"}).job_id
    assert queue.wait(first, timeout=WITHIN_S).state.value == "completed"
    run = run_of(queue, api, first)

    copy = _form(api, "comfy", run.parameters["request"], job_id=first)

    copied = _ended(api, copy)
    assert copied.state_name == "Completed"
    assert run_of(queue, api, first).id == run.id
    [old], [new] = queue.pictures(first), queue.pictures(copy)
    assert old.asset.seed != new.asset.seed
    assert f"job:{copy}" in copied.tags
    assert f"job:{first}" not in copied.tags


def test_a_flow_of_somebody_elses_composes_the_tasks_in_another_folder(
    house: House, tmp_path: Path, catalogue: Catalogue, queue: Client
) -> None:
    guide = project_dir() / "docs" / "howto" / "own-flows.md"
    example = re.search(r"```python\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None
    script = tmp_path / "mine.py"
    script.write_text(
        example[1]
        + "\n\nif __name__ == '__main__':\n"
        + "    import asyncio\n\n"
        + "    state = asyncio.run(two_sizes('a tree', return_state=True))\n"
        + "    print('it ended', state.name)\n",
        encoding="utf-8",
    )

    done = subprocess.run(
        [sys.executable, str(script)],
        env=house.environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )

    assert "it ended Completed" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    mine = [row for row in catalogue.requests(limit=10) if row.request.prompt == "a tree"]
    assert sorted(row.request.width for row in mine) == [512, 768]
    for row in mine:
        assert row.state is JobState.COMPLETED
        assert len(queue.pictures(row.job_id)) == 1


def test_nothing_secret_is_left_anywhere(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue
) -> None:
    canaries = {
        name: f"CANARY{number}{name}"
        for number, name in enumerate(("password", "token", "ui_password"), start=71)
    }
    secret = "CANARY79bucket"  # noqa: S105 - the point of it
    comfy = saved_server(api, "comfy")
    bucket = {
        "bucket": "pictures",
        "endpoint_url": "http://127.0.0.1:9",
        "region": "us-east-1",
        "access_key": "AKIATEST",
        "secret_key": secret,
    }
    api.save_block_document(BUCKET_BLOCK, "away", bucket)
    secrets = {name: SecretStr(value) for name, value in canaries.items()}
    try:
        save_server(api, comfy.model_copy(update={**secrets, "username": "me"}))
        good = queue.submit({**SMALL, "server": "comfy"}).job_id
        bad = queue.submit({**SMALL, "server": "comfy", "checkpoint": "nowhere"}).job_id
        for job_id in (good, bad):
            assert queue.wait(job_id, timeout=WITHIN_S).ended
        house.sandboxes["comfy"].faults.add("status", "*", status=401, times=-1)
        refused = queue.submit({**SMALL, "server": "comfy"}).job_id
        wait_until(lambda: queue.job(refused).phase == "Parked", timeout_s=WITHIN_S)
        house.sandboxes["comfy"].faults.clear()
        save_server(api, comfy.model_copy(update={**secrets, "username": "me", "store": "away"}))
        queue.resume("comfy")
        wait_until(lambda: "away" in queue.job(refused).message, timeout_s=WITHIN_S)
        assert queue.job(good).state.value == "completed"

        hidden = [*canaries.values(), secret, house.server.auth.partition(":")[2]]
        told = {
            "worker's log": house.log.read_text(encoding="utf-8", errors="replace"),
            "catalogue": _dump(house.settings.home / "catalogue.db"),
            "Prefect's database": _dump(house.server.settings.home / "prefect" / "prefect.db"),
        }
        for job_id in (good, bad, refused):
            run = run_of(queue, api, job_id)
            states = api.call("GET", f"flow_run_states/?flow_run_id={run.id}")
            told[f"run {run.name}"] = json.dumps([run.raw, states])
            told[f"log of {run.name}"] = "\n".join(line.message for line in api.logs(run.id))
            told[f"artifacts of {run.name}"] = repr(api.artifacts(run.id))
        for path in house.settings.home.rglob("*"):
            if path.is_file() and path.suffix in {".json", ".lock", ".part", ".png", ".log"}:
                told[str(path)] = path.read_bytes().decode("latin-1")
        assert len(told) > 12
        for place, text in told.items():
            for canary in hidden:
                assert canary not in text, f"{canary} in {place}"
    finally:
        house.sandboxes["comfy"].faults.clear()
        save_server(api, comfy)
        queue.resume("comfy")
    assert queue.wait(refused, timeout=WITHIN_S).state.value == "completed"
    assert catalogue.attempts(refused)[-1].state is AttemptState.STORED


def _dump(database: Path) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump())
