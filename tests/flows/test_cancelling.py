"""Cancelling stops our job and nothing else, whatever it was doing; the state says so soon."""

import logging
import signal
import time
from collections.abc import Callable

import pytest

from stablequeue.catalogue import AttemptState, Catalogue, JobState
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, StateType
from stablequeue.server_blocks import saved_server
from tests.flows.acting import (
    ENDLESS,
    SMALL,
    WITHIN_S,
    Foreign,
    all_generate,
    care_until,
    generating,
    generations,
    held,
    in_phase,
    kill_process,
    run_of,
    saved_as,
    slow,
    storing_held,
)
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(600)]

logger = logging.getLogger(__name__)

Submit = Callable[..., dict[str, str]]


@pytest.fixture
def jobs(house: House, queue: Client) -> Submit:
    """Submit the same job to both servers; return the ids by alias."""

    def submit(**fields: object) -> dict[str, str]:
        wanted = {**SMALL, "prompt": "ours", **fields}
        return {a: queue.submit({**wanted, "server": a}).job_id for a in house.sandboxes}

    return submit


def _cancel_all(queue: Client, api: PrefectApi, ids: dict[str, str]) -> None:
    """Cancel the jobs and wait until each run's state says Cancelled."""
    took: dict[str, float] = {}
    began = time.monotonic()
    for job_id in ids.values():
        queue.cancel(job_id)

    def over() -> bool:
        for alias, job_id in ids.items():
            state = run_of(queue, api, job_id).state_type
            if alias not in took and state is StateType.CANCELLED:
                took[alias] = round(time.monotonic() - began, 1)
        return len(took) == len(ids)

    wait_until(over, timeout_s=WITHIN_S, every_s=0.3, why="the states say Cancelled")
    logger.info("cancelled after %s s", took)


def _settled(catalogue: Catalogue, job_id: str) -> bool:
    states = {attempt.state for attempt in catalogue.attempts(job_id)}
    return states <= {AttemptState.CANCELLED, AttemptState.CANCELLING, AttemptState.FAILED}


def test_a_cancelled_job_leaves_the_foreign_ones_before_and_after_it_alone(
    house: House, queue: Client, api: PrefectApi, jobs: Submit
) -> None:
    sandboxes = house.sandboxes.values()
    with held(sandboxes):
        before = [Foreign(sandbox) for sandbox in sandboxes]
        ids = jobs()
        in_phase(queue, ids.values(), "Waiting")
        after = [Foreign(sandbox) for sandbox in sandboxes]

        _cancel_all(queue, api, ids)

        assert not any(foreign.ended_well() for foreign in (*before, *after))
    for foreign in (*before, *after):
        wait_until(foreign.ended_well, timeout_s=WITHIN_S, why=f"{foreign.sandbox.url} ends")
    for alias, job_id in ids.items():
        assert generations(house.sandboxes[alias], job_id) == 0
        assert queue.job(job_id).state.value == "cancelled"


def test_a_generating_job_is_interrupted_and_the_foreign_one_behind_it_runs(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, jobs: Submit
) -> None:
    sandboxes = house.sandboxes.values()
    with slow(sandboxes):
        ids = jobs(steps=ENDLESS)
        all_generate(house.sandboxes, ids)
        behind = [Foreign(sandbox) for sandbox in sandboxes]

        _cancel_all(queue, api, ids)

        for foreign in behind:
            wait_until(foreign.ended_well, timeout_s=WITHIN_S, why="the foreign job ends")
    for alias, job_id in ids.items():
        assert not generating(house.sandboxes[alias], job_id)()
        assert generations(house.sandboxes[alias], job_id) == 1
        assert _settled(catalogue, job_id)
        assert catalogue.request(job_id).state is JobState.CANCELLED
        assert queue.pictures(job_id) == []


def test_a_job_that_stores_is_cancelled_and_the_one_that_generates_is_left_alone(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, jobs: Submit
) -> None:
    with storing_held(house.settings), slow(house.sandboxes.values()):
        storing = jobs()
        in_phase(queue, storing.values(), "Storing")
        others = jobs(steps=ENDLESS)
        all_generate(house.sandboxes, others)

        _cancel_all(queue, api, storing)

        for alias, job_id in others.items():
            assert generating(house.sandboxes[alias], job_id)(), "another job was interrupted"
    for job_id in storing.values():
        assert catalogue.request(job_id).state is JobState.CANCELLED
        assert queue.pictures(job_id) == []


@pytest.mark.parametrize("holder", ["comfy", "forge"])
def test_a_job_that_waits_for_the_card_of_another_server_is_cancelled(
    house: House, queue: Client, api: PrefectApi, catalogue: Catalogue, holder: str
) -> None:
    waiting_one = next(alias for alias in house.sandboxes if alias != holder)
    on_one = [
        saved_server(api, alias).model_copy(update={"card": "box/0"}) for alias in house.sandboxes
    ]
    with saved_as(api, *on_one), slow(house.sandboxes.values()):
        holds = queue.submit({**SMALL, "server": holder, "steps": ENDLESS}).job_id
        wait_until(generating(house.sandboxes[holder], holds), timeout_s=WITHIN_S)
        waits = queue.submit({**SMALL, "server": waiting_one}).job_id
        wait_until(lambda: "the card" in queue.job(waits).message, timeout_s=WITHIN_S)

        _cancel_all(queue, api, {waiting_one: waits})

        assert generating(house.sandboxes[holder], holds)(), "another job was interrupted"
    assert catalogue.attempts(waits) == []
    assert catalogue.request(waits).state is JobState.CANCELLED


def test_a_cancelled_run_whose_process_was_killed_is_cancelled_on_its_server_too(  # noqa: PLR0917 - fixtures
    house: House,
    queue: Client,
    api: PrefectApi,
    catalogue: Catalogue,
    jobs: Submit,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with slow(house.sandboxes.values()):
        ids = jobs(steps=ENDLESS)
        all_generate(house.sandboxes, ids)
        worker = house.workers[-1]
        worker.send_signal(signal.SIGSTOP)  # so that it is not the first to see the process die
        try:
            for job_id in ids.values():
                kill_process(run_of(queue, api, job_id))
                queue.cancel(job_id)
        finally:
            worker.send_signal(signal.SIGCONT)

        wait_until(
            lambda: all(queue.job(job_id).ended for job_id in ids.values()),
            timeout_s=WITHIN_S,
            why="the jobs have ended",
        )

        def stopped() -> bool:
            return all(
                catalogue.request(job_id).state is JobState.CANCELLED
                and [attempt.state for attempt in catalogue.attempts(job_id)]
                == [AttemptState.CANCELLED]
                and not generating(house.sandboxes[alias], job_id)()
                for alias, job_id in ids.items()
            )

        care_until(stopped, catalogue, api, monkeypatch)
