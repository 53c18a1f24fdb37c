"""Whatever dies: after `retry` at the latest every picture is stored once, and made once.

Each test lets the same thing happen on both protocols at the same time, while the servers hold
the jobs at one step.
"""

import os
import signal

import pytest

from stablequeue.catalogue import Catalogue
from stablequeue.client import Client
from stablequeue.ids import derived_seed
from stablequeue.prefect_api import PrefectApi, StateType
from stablequeue.processes import gone, provably_dead
from tests.flows.acting import (
    SMALL,
    WITHIN_S,
    Foreign,
    all_generate,
    generations,
    held,
    in_phase,
    kill_process,
    run_of,
    storing_held,
)
from tests.flows.conftest import House
from tests.support.prefect import stop_process
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.prefect, pytest.mark.house, pytest.mark.timeout(600)]


def _submit(house: House, queue: Client) -> dict[str, str]:
    wanted = {**SMALL, "prompt": "a bridge"}
    return {alias: queue.submit({**wanted, "server": alias}).job_id for alias in house.sandboxes}


def _kill_and_retry(queue: Client, api: PrefectApi, ids: dict[str, str]) -> None:
    """Kill the runs' processes; retry the jobs when the worker has noticed."""
    before = {job_id: run_of(queue, api, job_id).process for job_id in ids.values()}
    for job_id in ids.values():
        kill_process(run_of(queue, api, job_id))

    def noticed() -> bool:
        runs = {job_id: run_of(queue, api, job_id) for job_id in ids.values()}
        return all(
            run.state_type is StateType.CRASHED or run.process != before[job_id]
            for job_id, run in runs.items()
        )

    wait_until(noticed, timeout_s=WITHIN_S, every_s=0.3, why="the deaths are noticed")
    for job_id in ids.values():
        if queue.job(job_id).ended:
            assert queue.job(job_id).state.value == "crashed"
            assert queue.retry(job_id).done


def _go_on_elsewhere(
    queue: Client, api: PrefectApi, ids: dict[str, str], before: dict[str, str]
) -> None:
    """Wait until other processes than `before` have taken up the jobs, which generate still."""

    def taken_up() -> bool:
        runs = {job_id: run_of(queue, api, job_id) for job_id in ids.values()}
        return all(
            run.state_name == "Generating" and run.process not in {"", before[job_id]}
            for job_id, run in runs.items()
        )

    wait_until(taken_up, timeout_s=WITHIN_S, every_s=0.3, why="other processes take the jobs up")


def _processes(queue: Client, api: PrefectApi, ids: dict[str, str]) -> dict[str, str]:
    return {job_id: run_of(queue, api, job_id).process for job_id in ids.values()}


def _end_once(house: House, queue: Client, ids: dict[str, str], *, made: int = 1) -> None:
    """Wait for the jobs; each must be stored once and have been made `made` times."""
    for alias, job_id in ids.items():
        view = queue.wait(job_id, timeout=WITHIN_S)
        assert view.state.value == "completed", (alias, view)
        [picture] = queue.pictures(job_id)
        assert picture.asset.seed == derived_seed(job_id)
        assert generations(house.sandboxes[alias], job_id) == made, alias
        left = list((house.settings.spool / job_id).rglob("*"))
        assert not left, (alias, left)


def test_killed_while_resolving_and_while_waiting_for_somebody_else(
    house: House, queue: Client, api: PrefectApi
) -> None:
    sandboxes = house.sandboxes.values()
    with held(sandboxes):
        foreign = [Foreign(sandbox) for sandbox in sandboxes]
        for sandbox in sandboxes:
            sandbox.faults.add("hang", "GET /system_stats", protocol="comfyui")
            sandbox.faults.add("hang", "GET /sdapi/v1/sd-models", protocol="forge")
        ids = _submit(house, queue)
        in_phase(queue, ids.values(), "Resolving")
        _kill_and_retry(queue, api, ids)
        for sandbox in sandboxes:
            sandbox.faults.clear("hang")
        in_phase(queue, ids.values(), "Waiting")
        _kill_and_retry(queue, api, ids)
    _end_once(house, queue, ids)
    for one in foreign:
        wait_until(one.ended_well, timeout_s=WITHIN_S, why=one.sandbox.url)


def test_killed_while_generating_and_again_while_storing(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with storing_held(house.settings):
        with held(house.sandboxes.values()):
            ids = _submit(house, queue)
            all_generate(house.sandboxes, ids)
            _kill_and_retry(queue, api, ids)
        in_phase(queue, ids.values(), "Storing")
        _kill_and_retry(queue, api, ids)
    _end_once(house, queue, ids)


def test_runs_are_handed_back_when_their_process_or_their_worker_is_asked_to_end(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with held(house.sandboxes.values()):
        ids = _submit(house, queue)
        all_generate(house.sandboxes, ids)
        before = _processes(queue, api, ids)
        for job_id in ids.values():
            kill_process(run_of(queue, api, job_id), signal.SIGTERM)
        _go_on_elsewhere(queue, api, ids, before)
        for job_id in ids.values():
            run_id = run_of(queue, api, job_id).id
            states = api.call("GET", f"flow_run_states/?flow_run_id={run_id}")
            assert "Handed back" in [state["name"] for state in states]

        before = _processes(queue, api, ids)
        stop_process(house.workers[-1], timeout_s=WITHIN_S)
        for job_id in ids.values():
            run = run_of(queue, api, job_id)
            assert (run.state_type, run.process) == (StateType.SCHEDULED, "")
        house.start_worker()
        _go_on_elsewhere(queue, api, ids, before)
    _end_once(house, queue, ids)


def test_the_power_fails_and_later_the_worker_is_killed(
    house: House, queue: Client, api: PrefectApi
) -> None:
    with held(house.sandboxes.values()):
        ids = _submit(house, queue)
        all_generate(house.sandboxes, ids)
        before = _processes(queue, api, ids)
        worker = house.workers[-1]
        os.killpg(worker.pid, signal.SIGSTOP)  # nobody sees another one die
        pids = [kill_process(run_of(queue, api, job_id)) for job_id in ids.values()]
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        wait_until(lambda: all(gone(pid) for pid in pids), why="the processes are gone")
        for job_id in ids.values():
            assert run_of(queue, api, job_id).state_type is StateType.RUNNING

        house.start_worker()
        _go_on_elsewhere(queue, api, ids, before)

        house.workers[-1].kill()
        house.workers[-1].wait()

    def decided() -> bool:
        runs = [run_of(queue, api, job_id) for job_id in ids.values()]
        return all(
            run.state_type in {StateType.SCHEDULED, StateType.COMPLETED}
            or provably_dead(run.process)
            for run in runs
        )

    # Its runs end, wait for another worker or die; which one, is theirs to say.
    wait_until(decided, timeout_s=WITHIN_S, every_s=0.3, why="no process is left in between")
    house.start_worker()
    _end_once(house, queue, ids)


def test_a_server_restarts_and_later_dies_after_its_picture_was_fetched(
    house: House, queue: Client, catalogue: Catalogue
) -> None:
    with storing_held(house.settings):
        with held(house.sandboxes.values()):
            ids = _submit(house, queue)
            all_generate(house.sandboxes, ids)
            for sandbox in house.sandboxes.values():
                sandbox.restart()  # it has forgotten what it was doing
        for job_id in ids.values():

            def kept_or_failed(job_id: str = job_id) -> bool:
                now = queue.job(job_id)
                return now.ended or now.phase == "Storing"

            wait_until(kept_or_failed, timeout_s=WITHIN_S, every_s=0.3)
            if queue.job(job_id).ended:
                queue.retry(job_id)
        in_phase(queue, ids.values(), "Storing")
        for sandbox in house.sandboxes.values():
            sandbox.stop()
    _end_once(house, queue, ids, made=2)
    for job_id in ids.values():
        states = [attempt.state.value for attempt in catalogue.attempts(job_id)]
        assert states[-1] == "stored"
        assert set(states[:-1]) <= {"gone", "failed"}
