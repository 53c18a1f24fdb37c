"""Whatever dies: after `retry` at the latest every picture is stored once, and made once.

Each test lets the same thing happen on both protocols at the same time.
"""

import signal
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from stablequeue.catalogue import Catalogue
from stablequeue.client import Client
from stablequeue.ids import derived_seed
from stablequeue.prefect_api import PrefectApi, StateType
from stablequeue.processes import gone
from tests.flows.acting import (
    SMALL,
    Foreign,
    generating,
    generations,
    kill_process,
    run_of,
    slow,
    storing_held,
)
from tests.flows.conftest import House
from tests.support.prefect import stop_process
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(180)]

STARTS_WITHIN_S = 60.0


def _submit(house: House, queue: Client, **fields: object) -> dict[str, str]:
    wanted = {**SMALL, "prompt": "a bridge", **fields}
    return {
        alias: queue.submit({**wanted, "server": alias}).job_id for alias in sorted(house.sandboxes)
    }


def _each_is(ids: dict[str, str], now: Callable[[str, str], bool], *, why: str) -> None:
    wait_until(
        lambda: all(now(alias, job_id) for alias, job_id in ids.items()),
        timeout_s=STARTS_WITHIN_S,
        every_s=0.1,
        why=why,
    )


def _all_generate(house: House, ids: dict[str, str]) -> None:
    _each_is(
        ids,
        lambda alias, job_id: generating(house.sandboxes[alias], job_id)(),
        why="both generate",
    )


def _kill_both(queue: Client, api: PrefectApi, ids: dict[str, str]) -> None:
    for job_id in ids.values():
        kill_process(run_of(queue, api, job_id))
    _each_is(ids, lambda _, job_id: queue.job(job_id).ended, why="the runs have crashed")
    for job_id in ids.values():
        assert queue.job(job_id).state.value == "crashed"


def _retry(queue: Client, ids: dict[str, str]) -> None:
    for job_id in ids.values():
        assert queue.retry(job_id).done


def _end_once(
    house: House, queue: Client, ids: dict[str, str], *, made: dict[str, int] | int = 1
) -> None:
    """Wait for the jobs; each must be stored once and have been made `made` times."""
    for alias, job_id in ids.items():
        view = queue.wait(job_id, timeout=STARTS_WITHIN_S)
        assert view.state.value == "completed", (alias, view)
        assert len(queue.pictures(job_id)) == 1, alias
        assert queue.pictures(job_id)[0].asset.seed == derived_seed(job_id)
        often = made if isinstance(made, int) else made[alias]
        assert generations(house.sandboxes[alias], job_id) == often, alias
        left = list((house.settings.spool / job_id).rglob("*"))
        assert not left, (alias, left)


def test_killed_while_resolving_and_while_waiting_for_somebody_else(
    house: House, queue: Client, api: PrefectApi
) -> None:
    for sandbox in house.sandboxes.values():
        sandbox.faults.add("hang", "GET /system_stats", protocol="comfyui")
        sandbox.faults.add("hang", "GET /sdapi/v1/sd-models", protocol="forge")
    ids = _submit(house, queue)
    _each_is(ids, lambda _, job_id: queue.job(job_id).phase == "Resolving", why="they resolve")
    _kill_both(queue, api, ids)
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            sandbox.faults.clear()
            stack.enter_context(slow(sandbox, 0.5))
        foreign = [Foreign(sandbox, steps=400) for sandbox in house.sandboxes.values()]
        _retry(queue, ids)
        _each_is(ids, lambda _, job_id: queue.job(job_id).phase == "Waiting", why="they wait")
        _kill_both(queue, api, ids)
        _retry(queue, ids)
        for sandbox in house.sandboxes.values():
            sandbox.config.step_seconds = 0.0
        _end_once(house, queue, ids)
        assert all(one.ended_well() for one in foreign)


def test_killed_while_generating_and_again_while_storing(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=40)
        _all_generate(house, ids)
        _kill_both(queue, api, ids)
        with storing_held(house.settings):
            _retry(queue, ids)
            _each_is(ids, lambda _, job_id: queue.job(job_id).phase == "Storing", why="they store")
            _kill_both(queue, api, ids)
        _retry(queue, ids)
        _end_once(house, queue, ids)


def test_a_run_whose_process_is_asked_to_end_is_handed_back_and_goes_on(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=60)
        _all_generate(house, ids)
        for job_id in ids.values():
            kill_process(run_of(queue, api, job_id), signal.SIGTERM)
        _each_is(
            ids,
            lambda _, job_id: run_of(queue, api, job_id).state_type is StateType.SCHEDULED,
            why="they are handed back",
        )
        _end_once(house, queue, ids)


def test_the_worker_is_stopped_while_jobs_generate(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=60)
        _all_generate(house, ids)

        stop_process(house.workers[-1])

        for job_id in ids.values():
            run = run_of(queue, api, job_id)
            assert (run.state_type, run.process) == (StateType.SCHEDULED, "")
        house.start_worker()
        _end_once(house, queue, ids)


def test_the_power_fails_while_jobs_generate(house: House, queue: Client, api: PrefectApi) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=60)
        _all_generate(house, ids)
        worker = house.workers[-1]
        worker.kill()
        worker.wait()
        pids = [kill_process(run_of(queue, api, job_id)) for job_id in ids.values()]
        wait_until(lambda: all(gone(pid) for pid in pids), why="the processes are gone")
        for job_id in ids.values():
            assert run_of(queue, api, job_id).state_type is StateType.RUNNING

        house.start_worker()

        _end_once(house, queue, ids)


def test_the_worker_is_killed_and_its_runs_are_handed_back_or_go_on(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=30)
        _all_generate(house, ids)
        house.workers[-1].kill()
        house.workers[-1].wait()
        may_be = {StateType.SCHEDULED, StateType.COMPLETED}
        _each_is(
            ids,
            lambda _, job_id: run_of(queue, api, job_id).state_type in may_be,
            why="they wait for a worker, or have ended",
        )
        house.start_worker()
        _end_once(house, queue, ids)


def test_a_server_restarts_and_has_forgotten_what_it_was_doing(
    house: House, queue: Client, catalogue: Catalogue
) -> None:
    with ExitStack() as stack:
        for sandbox in house.sandboxes.values():
            stack.enter_context(slow(sandbox, 0.1))
        ids = _submit(house, queue, steps=40)
        _all_generate(house, ids)
        for sandbox in house.sandboxes.values():
            sandbox.restart()
            sandbox.config.step_seconds = 0.0
        for job_id in ids.values():
            if not queue.wait(job_id, timeout=STARTS_WITHIN_S).state.successful:
                queue.retry(job_id)
        _end_once(house, queue, ids, made=2)
    for job_id in ids.values():
        states = [attempt.state.value for attempt in catalogue.attempts(job_id)]
        assert states[-1] == "stored"
        assert set(states[:-1]) <= {"gone", "failed"}


def test_a_server_dies_after_its_picture_was_fetched(house: House, queue: Client) -> None:
    with storing_held(house.settings):
        ids = _submit(house, queue)
        _each_is(ids, lambda _, job_id: queue.job(job_id).phase == "Storing", why="they store")
        for sandbox in house.sandboxes.values():
            sandbox.stop()
    try:
        _end_once(house, queue, ids)
    finally:
        for sandbox in house.sandboxes.values():
            sandbox.start()
