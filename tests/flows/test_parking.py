"""What every job of a server would meet parks them all, with one message; nothing is made twice."""

from collections.abc import Generator
from contextlib import ExitStack, contextmanager

import pytest

from stablequeue.catalogue import Catalogue
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, StateType
from stablequeue.server_blocks import saved_server
from stablequeue.settings import Settings
from stablequeue.store_blocks import FOLDER_BLOCK
from tests.flows.acting import (
    SMALL,
    WITHIN_S,
    generations,
    in_phase,
    run_of,
    saved_as,
    storing_held,
)
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(600)]


@contextmanager
def broken_store(settings: Settings) -> Generator[None]:
    """Put a file where the pictures' folder was."""
    folder = settings.pictures_folder
    folder.mkdir(parents=True, exist_ok=True)
    away = folder.rename(folder.with_name("away"))
    folder.write_text("in the way")
    try:
        yield
    finally:
        folder.unlink()
        away.rename(folder)


def _parked(queue: Client, api: PrefectApi, job_id: str) -> bool:
    run = run_of(queue, api, job_id)
    return (run.state_type, run.state_name, run.process) == (StateType.SCHEDULED, "Parked", "")


def test_a_store_that_fails_after_generating_parks_and_resume_stores_from_the_spool(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue
) -> None:
    told = house.log.read_text(encoding="utf-8", errors="replace")
    with ExitStack() as broken:
        with storing_held(house.settings):
            first = {a: queue.submit({**SMALL, "server": a}).job_id for a in house.sandboxes}
            in_phase(queue, first.values(), "Storing")
            broken.enter_context(broken_store(house.settings))
        later = {a: queue.submit({**SMALL, "server": a}).job_id for a in house.sandboxes}
        for alias, job_id in first.items():
            wait_until(lambda j=job_id: _parked(queue, api, j), timeout_s=WITHIN_S, why=alias)
            assert api.pool(alias).paused
            assert catalogue.parked()[alias].reason in queue.job(job_id).message
    for job_id in later.values():  # they wait, whether they had begun or not
        wait_until(
            lambda j=job_id: run_of(queue, api, j).state_type is StateType.SCHEDULED,
            timeout_s=WITHIN_S,
        )

    assert set(queue.resume()) >= set(first)

    for ids in (first, later):
        for alias, job_id in ids.items():
            assert queue.wait(job_id, timeout=WITHIN_S).state.value == "completed"
            assert generations(house.sandboxes[alias], job_id) == 1
            assert len(queue.pictures(job_id)) == 1
    assert catalogue.parked() == {}
    log = house.log.read_text(encoding="utf-8", errors="replace")
    for alias in first:
        line = f"stablequeue resume {alias}"
        assert log.count(line) - told.count(line) == 1, "one message, not one a job"


def test_refused_credentials_park_a_server_and_any_takes_another(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue
) -> None:
    refusing = house.sandboxes["comfy"]
    refusing.faults.add("status", "*", status=401, times=-1)
    fixed = queue.submit({**SMALL, "server": "comfy"}).job_id
    free = queue.submit({**SMALL, "server": "any"}).job_id

    assert queue.wait(free, timeout=WITHIN_S).state.value == "completed"
    wait_until(lambda: _parked(queue, api, fixed), timeout_s=WITHIN_S)
    run = run_of(queue, api, free)
    assert "server:forge" in run.tags, "the run shows which server took it"
    assert " · forge · " in run.name
    assert queue.job(free).server == "forge"
    assert "credentials" in catalogue.parked()["comfy"].reason

    refusing.faults.clear()
    queue.resume("comfy")
    assert queue.wait(fixed, timeout=WITHIN_S).state.value == "completed"
    assert generations(refusing, fixed) == 1


def test_a_job_for_any_server_leaves_one_whose_store_fails(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue
) -> None:
    in_the_way = house.settings.home / "in-the-way"
    in_the_way.write_text("a file, no folder")
    api.save_block_document(FOLDER_BLOCK, "broken", {"folder": str(in_the_way)})
    comfy = saved_server(api, "comfy")
    with saved_as(api, comfy.model_copy(update={"store": "broken"})):
        job_id = queue.submit({**SMALL, "server": "any"}).job_id

        view = queue.wait(job_id, timeout=WITHIN_S)

        assert (view.state.value, view.server) == ("completed", "forge")
        assert "comfy" in catalogue.parked()
        assert api.pool("comfy").paused
    queue.resume("comfy")
    assert len(queue.pictures(job_id)) == 1
