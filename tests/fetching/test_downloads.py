"""What is done to a download while jobs wait for it: cancelled, paused, killed, shared by hosts."""

import json
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.fetches import wake_left
from stablequeue.prefect_api import PrefectApi, Run, StateType, run_filter
from tests.fetching.conftest import WITHIN_S, FetchHouse, wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(600)]

SMALL: dict[str, Any] = {
    "prompt": "a lighthouse",
    "width": 64,
    "height": 64,
    "steps": 2,
    "server": "comfy",
    "checkpoint": "base.safetensors",
}
SLOW_S = 0.1
"""Between two pieces of 16 KiB: 3 MB take 20 s."""


def slow_lora(house: FetchHouse, size: int = 3_000_000) -> dict[str, Any]:
    house.civitai.storage.pace_s = SLOW_S
    return house.offer(size=size, model_type="LORA")


def ask(queue: Client, file: dict[str, Any], **more: Any) -> str:
    lora = {"name": f"version:{file['version_id']}"}
    request: dict[str, Any] = {**SMALL, "loras": [lora], **more}
    return queue.submit(**request).job_id


def download_of(api: PrefectApi, file: dict[str, Any], done: Callable[[Run], bool]) -> Run:
    """Wait until the download of a file is as wanted; return it."""

    def look() -> Run | None:
        runs = api.runs(run_filter(deployments=["downloads"]))
        found = [run for run in runs if file["name"] in run.name and done(run)]
        return found[0] if found else None

    run = wait_until(look, timeout_s=WITHIN_S, every_s=0.2, why=f"the download of {file['name']}")
    assert run is not None
    return run


def runs(run: Run) -> bool:
    return run.state_type is StateType.RUNNING and bool(run.process)


def has_come(house: FetchHouse, file: dict[str, Any]) -> Callable[[], bool]:
    def some() -> bool:
        return come(house, file) > 50_000

    return some


def come(house: FetchHouse, file: dict[str, Any]) -> int:
    """Return how many bytes the note beside the part file tells of."""
    note = house.models / "loras" / f"{file['name']}.part.json"
    try:
        return sum(end - start for start, end in json.loads(note.read_text())["spans"])
    except (FileNotFoundError, ValueError):
        return 0


def waits(queue: Client, job_id: str) -> None:
    wait_until(
        lambda: queue.job(job_id).phase == "Waiting for model",
        timeout_s=WITHIN_S,
        every_s=0.2,
        why="the job waits",
    )


def left_behind(house: FetchHouse, file: dict[str, Any]) -> list[str]:
    return [one.name for one in (house.models / "loras").iterdir() if file["name"] in one.name]


def test_a_cancelled_download_ends_its_jobs_with_advice_and_leaves_nothing(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = slow_lora(fetch_house)
    jobs = [ask(queue, file) for _ in range(2)]
    run = download_of(api, file, runs)
    wait_until(has_come(fetch_house, file), timeout_s=WITHIN_S, why="something has come")
    for job_id in jobs:
        waits(queue, job_id)
    assert api.cancel(run.id).accepted

    for job_id in jobs:
        view = queue.wait(job_id, timeout=WITHIN_S)
        assert (view.state.value, view.code) == ("failed", "not_fetched"), view.message
        assert "was cancelled" in view.message
        assert "stablequeue retry" in view.message
    wait_until(
        lambda: api.read_run(run.id).state_type is StateType.CANCELLED, timeout_s=30, why="over"
    )
    wait_until(lambda: not left_behind(fetch_house, file), timeout_s=30, why="nothing is left")

    fetch_house.civitai.storage.pace_s = 0.0
    queue.retry(jobs[0])
    assert queue.wait(jobs[0], timeout=WITHIN_S).state.value == "completed"


def test_a_download_whose_process_is_killed_goes_on_from_what_had_come(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = slow_lora(fetch_house)
    job_id = ask(queue, file)
    run = download_of(api, file, runs)
    note = fetch_house.models / "loras"
    wait_until(has_come(fetch_house, file), timeout_s=WITHIN_S, why="something has come")
    waits(queue, job_id)
    before = len(fetch_house.civitai.storage.seen)
    os.kill(int(run.process.rpartition(":")[2]), signal.SIGKILL)
    wait_until(
        lambda: len(fetch_house.civitai.storage.seen) > before, timeout_s=WITHIN_S, why="again"
    )
    fetch_house.civitai.storage.pace_s = 0.0

    assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"
    ranges = [seen.headers.get("range", "") for seen in fetch_house.civitai.storage.seen[before:]]
    assert ranges[0].startswith("bytes=")
    assert not ranges[0].startswith("bytes=0-")
    states = [s["name"] for s in api.call("GET", f"flow_run_states/?flow_run_id={run.id}")]
    assert "Recovering" in states
    assert api.read_run(run.id).state_name == "Completed"
    assert not [*note.glob("*.part*")]


def test_a_paused_download_keeps_what_has_come_and_goes_on_when_resumed(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    file = slow_lora(fetch_house)
    job_id = ask(queue, file)
    run = download_of(api, file, runs)
    wait_until(has_come(fetch_house, file), timeout_s=WITHIN_S, why="something has come")
    api.set_state(run.id, StateType.PAUSED, "Suspended")
    storage = fetch_house.civitai.storage
    last, since = 0, time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        if (now := come(fetch_house, file)) != last:
            last, since = now, time.monotonic()
        paused = api.read_run(run.id).state_type is StateType.PAUSED
        return paused and time.monotonic() - since > 4

    wait_until(quiet, timeout_s=60, every_s=0.5, why="it stopped")
    assert left_behind(fetch_house, file), "what has come stays"
    assert queue.job(job_id).phase == "Waiting for model"
    before = len(storage.seen)
    storage.pace_s = 0.0
    api.reschedule(run.id, "Resuming")

    assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"
    assert not storage.seen[before].headers.get("range", "bytes=0-").startswith("bytes=0-")


def test_more_urgent_jobs_lift_the_tier_of_the_download_they_wait_for(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    api.pause_pool("downloads")
    try:
        late, first = slow_lora(fetch_house, 20_000), fetch_house.offer(20_000)
        jobs = [ask(queue, late, tier="bulk"), ask(queue, first, tier="normal")]
        for job_id in jobs:
            waits(queue, job_id)
        jobs.append(ask(queue, late, tier="interactive"))
        waits(queue, jobs[-1])
        lifted = download_of(api, late, lambda _: True)
        assert "tier:interactive" in lifted.tags
        assert "tier:bulk" not in lifted.tags
    finally:
        api.limit_pool("downloads", 1)
        api.resume_pool("downloads")
    for job_id in jobs:
        assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"
    api.limit_pool("downloads", 2)
    started = {
        name: api.read_run(download_of(api, file, lambda _: True).id).started
        for name, file in (("late", late), ("first", first))
    }
    assert started["late"] is not None
    assert started["first"] is not None
    assert started["late"] < started["first"]


def test_a_download_that_was_cancelled_while_it_waited_tells_its_jobs_by_the_caretaker(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    api.pause_pool("downloads")
    try:
        file = fetch_house.offer()
        job_id = ask(queue, file)
        waits(queue, job_id)
        assert wake_left(api) == 0
        api.cancel(download_of(api, file, lambda _: True).id)
        assert wake_left(api) == 1
        view = queue.wait(job_id, timeout=WITHIN_S)
        assert (view.state.value, view.code) == ("failed", "not_fetched")
    finally:
        api.resume_pool("downloads")


def test_two_hosts_share_one_download_and_its_limit(
    fetch_house: FetchHouse, queue: Client, api: PrefectApi
) -> None:
    fetch_house.start_worker()
    files = [slow_lora(fetch_house, 400_000) for _ in range(4)]
    jobs = [ask(queue, file) for file in files for _ in range(3)]
    most = 0

    def all_done() -> bool:
        nonlocal most
        active = run_filter(pools=["downloads"], states=[StateType.RUNNING, StateType.PENDING])
        most = max(most, api.count_runs(active))
        return all(queue.job(job_id).ended for job_id in jobs)

    wait_until(all_done, timeout_s=WITHIN_S, every_s=0.3, why="all are made")
    assert [queue.job(job_id).state.value for job_id in jobs] == ["completed"] * len(jobs)
    assert [fetch_house.downloads_of(file) for file in files] == [1] * len(files)
    assert most <= 3  # two, and one where both hosts looked at the same moment
