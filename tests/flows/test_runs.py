"""What people do to runs in Prefect's pages, and what a run leaves behind."""

import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stablequeue.catalogue import Catalogue, JobState
from stablequeue.client import Client
from stablequeue.errors import PrefectRefused
from stablequeue.prefect_api import PrefectApi, Run
from stablequeue.project import project_dir
from tests.flows.acting import (
    ENDLESS,
    SMALL,
    WITHIN_S,
    all_generate,
    care_until,
    generating,
    generations,
    run_of,
    slow,
)
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(600)]


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
    with slow(house.sandboxes.values()):
        wanted = {**SMALL, "steps": ENDLESS}
        ids = {a: queue.submit({**wanted, "server": a}).job_id for a in house.sandboxes}
        all_generate(house.sandboxes, ids)
        for job_id in ids.values():
            api.delete_run(run_of(queue, api, job_id).id)

        def stopped() -> bool:
            return not any(
                generating(house.sandboxes[alias], job_id)()
                or catalogue.request(job_id).state is not JobState.CANCELLED
                for alias, job_id in ids.items()
            )

        wait_until(stopped, timeout_s=WITHIN_S, every_s=0.3, why="the jobs are stopped")
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
        timeout=2 * WITHIN_S,
    )

    assert "it ended Completed" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    mine = [row for row in catalogue.requests(limit=10) if row.request.prompt == "a tree"]
    assert sorted(row.request.width for row in mine) == [512, 768]
    for row in mine:
        assert row.state is JobState.COMPLETED
        assert len(queue.pictures(row.job_id)) == 1
