"""The measure: a server keeps making pictures while many jobs wait for one large file."""

import time
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, Run, StateType, run_filter
from tests.fetching.conftest import FetchHouse, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(1200)]

JOBS = 50
SIZE = 200_000_000
PIECE = 1024 * 1024
PACE_S = 0.15  # 200 MB in 30 s
STEP_S = 0.6
LEAST_BUSY = 0.9
WITHIN_S = 600.0


def test_a_server_stays_busy_while_fifty_jobs_wait_for_one_download(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    fetch_house.start_worker()
    storage = fetch_house.civitai.storage
    file = fetch_house.offer(size=SIZE, model_type="LORA")
    piece, storage.piece, storage.pace_s = storage.piece, PIECE, PACE_S
    sandbox = fetch_house.sandboxes["comfy"]
    sandbox.config.step_seconds = STEP_S
    api.limit_pool("comfy", 2)
    common: dict[str, Any] = {
        "prompt": "x",
        "width": 64,
        "height": 64,
        "steps": 2,
        "server": "comfy",
        "checkpoint": "base.safetensors",
    }
    lora: dict[str, Any] = {"loras": [{"name": f"version:{file['version_id']}"}]}
    try:
        waiting = [queue.submit(**common, **lora).job_id for _ in range(JOBS)]
        behind = [queue.submit(**common).job_id for _ in range(JOBS)]

        def started() -> Run | None:
            runs = api.runs(run_filter(deployments=["downloads"]))
            found = [run for run in runs if file["name"] in run.name]
            return found[0] if found and found[0].state_type is StateType.RUNNING else None

        run = wait_until(started, timeout_s=WITHIN_S, why="the download runs")
        assert run is not None
        wait_until(
            lambda: any(one.ended is None for one in sandbox.card.generations),
            timeout_s=WITHIN_S,
            why="the first of those behind is made",
        )
        began = time.monotonic()
        wait_until(
            lambda: api.read_run(run.id).final, timeout_s=WITHIN_S, every_s=0.2, why="fetched"
        )
        ended = time.monotonic()
        busy = sum(
            max(0.0, min(one.ended or ended, ended) - max(one.started, began))
            for one in sandbox.card.generations
        )
        share = busy / (ended - began)
        for job_id in (*waiting, *behind):
            assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"
    finally:
        storage.piece = piece
        api.limit_pool("comfy", None)
    print(f"\nbusy {share:.1%} of {ended - began:.1f} s")  # noqa: T201 - a figure to record
    assert fetch_house.downloads_of(file) == 1
    assert share >= LEAST_BUSY, f"{share:.1%}"
