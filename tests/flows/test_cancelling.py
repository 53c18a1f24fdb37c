"""Cancelling stops our job and nothing else, whatever it was doing; the state says so soon."""

import logging
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from stablequeue.catalogue import AttemptState, Catalogue, JobState
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, StateType
from tests.flows.acting import (
    SMALL,
    Foreign,
    care_until,
    generating,
    generations,
    kill_process,
    phase,
    run_of,
    slow,
    storing_held,
)
from tests.flows.conftest import House
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(180)]

SOON_S = 10.0

logger = logging.getLogger(__name__)


@pytest.fixture
def jobs(house: House, queue: Client) -> Iterator[Callable[..., dict[str, str]]]:
    """Submit the same job to both servers; cancel what is left at the end."""
    made: list[str] = []

    def submit(**fields: Any) -> dict[str, str]:
        ids = {
            alias: queue.submit({**SMALL, "prompt": "ours", "server": alias, **fields}).job_id
            for alias in house.sandboxes
        }
        made.extend(ids.values())
        return ids

    yield submit
    for job_id in made:
        queue.cancel(job_id)


def _cancel_all(queue: Client, api: PrefectApi, ids: dict[str, str]) -> dict[str, float]:
    """Cancel the jobs; return after how many seconds each run's state said Cancelled."""
    took: dict[str, float] = {}
    for job_id in ids.values():
        queue.cancel(job_id)
    began = time.monotonic()

    def over() -> bool:
        for alias, job_id in ids.items():
            state = run_of(queue, api, job_id).state_type
            if alias not in took and state is StateType.CANCELLED:
                took[alias] = time.monotonic() - began
        return len(took) == len(ids)

    wait_until(over, timeout_s=SOON_S, every_s=0.1, why="the states say Cancelled")
    logger.info("cancelled after %s s", {alias: round(s, 1) for alias, s in took.items()})
    return took


def _settled(catalogue: Catalogue, job_id: str) -> bool:
    states = {attempt.state for attempt in catalogue.attempts(job_id)}
    return states <= {AttemptState.CANCELLED, AttemptState.CANCELLING, AttemptState.FAILED}


def test_a_cancelled_job_leaves_the_foreign_ones_before_and_after_it_alone(
    house: House, queue: Client, api: PrefectApi, jobs: Callable[..., dict[str, str]]
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.5))
        before = {alias: Foreign(sandbox, steps=400) for alias, sandbox in house.sandboxes.items()}
        ids = jobs()
        for alias, job_id in ids.items():
            wait_until(phase(queue, job_id, "Waiting"), timeout_s=60, why=f"{alias} waits")
        after = {alias: Foreign(sandbox, steps=2) for alias, sandbox in house.sandboxes.items()}

        _cancel_all(queue, api, ids)

        for sandbox in house.sandboxes.values():
            sandbox.config.step_seconds = 0.0
        for foreign in (*before.values(), *after.values()):
            wait_until(foreign.ended_well, timeout_s=30, why=f"{foreign.sandbox.url} ends")
    for alias, job_id in ids.items():
        assert generations(house.sandboxes[alias], job_id) == 0
        assert queue.job(job_id).state.value == "cancelled"


def test_a_generating_job_is_interrupted_and_the_foreign_one_behind_it_runs(
    house: House,
    queue: Client,
    api: PrefectApi,
    catalogue: Catalogue,
    jobs: Callable[..., dict[str, str]],
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.2))
        ids = jobs(steps=500)
        for alias, job_id in ids.items():
            wait_until(generating(house.sandboxes[alias], job_id), timeout_s=60, why="it generates")
        behind = [Foreign(sandbox, steps=3) for sandbox in house.sandboxes.values()]

        _cancel_all(queue, api, ids)

        for foreign in behind:
            wait_until(foreign.ended_well, timeout_s=30, why="the foreign job ends")
    for alias, job_id in ids.items():
        assert not generating(house.sandboxes[alias], job_id)()
        assert generations(house.sandboxes[alias], job_id) == 1
        assert _settled(catalogue, job_id)
        assert catalogue.request(job_id).state is JobState.CANCELLED
        assert queue.pictures(job_id) == []


def test_a_job_that_stores_or_waits_for_the_card_is_cancelled_too(
    house: House,
    queue: Client,
    api: PrefectApi,
    catalogue: Catalogue,
    jobs: Callable[..., dict[str, str]],
) -> None:
    with ExitStack() as stack:
        stack.enter_context(storing_held(house.settings))
        storing = jobs()
        for job_id in storing.values():
            wait_until(phase(queue, job_id, "Storing"), timeout_s=60, why="it stores")
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.2))
        holders = jobs(steps=500)
        for alias, job_id in holders.items():
            wait_until(generating(house.sandboxes[alias], job_id), timeout_s=60, why="it generates")
        waiting = jobs()
        for job_id in waiting.values():
            wait_until(
                lambda job_id=job_id: "the card" in queue.job(job_id).message,
                timeout_s=60,
                why="it waits for the card",
            )

        _cancel_all(queue, api, waiting)
        _cancel_all(queue, api, storing)

        for alias, job_id in holders.items():
            assert generating(house.sandboxes[alias], job_id)(), "another job was interrupted"
    for job_id in waiting.values():
        assert catalogue.attempts(job_id) == []
    for job_id in (*waiting.values(), *storing.values()):
        assert catalogue.request(job_id).state is JobState.CANCELLED


def test_a_cancelled_run_whose_process_was_killed_is_cancelled_on_its_server_too(  # noqa: PLR0917 - fixtures
    house: House,
    queue: Client,
    api: PrefectApi,
    catalogue: Catalogue,
    jobs: Callable[..., dict[str, str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.2))
        ids = jobs(steps=500)
        for alias, job_id in ids.items():
            wait_until(generating(house.sandboxes[alias], job_id), timeout_s=60, why="it generates")
        worker = house.workers[-1]
        worker.send_signal(signal.SIGSTOP)  # so that it is not the first to see the process die
        for job_id in ids.values():
            kill_process(run_of(queue, api, job_id))
            queue.cancel(job_id)
        worker.send_signal(signal.SIGCONT)

        wait_until(
            lambda: all(queue.job(job_id).ended for job_id in ids.values()),
            timeout_s=SOON_S,
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
