"""What becomes of runs whose process is gone."""

import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import pytest

from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType
from stablequeue.settings import Settings
from stablequeue.worker.presence import claim, is_present, present, process_name
from stablequeue.worker.settling import MOST_RECOVERIES, is_lost, settle, settle_lost
from tests.support.prefect_rows import make_deployment
from tests.worker.test_presence import HOLDER

NOW = datetime(2026, 11, 21, tzinfo=UTC)


HERE = process_name(1)


def run_in(state: StateType, process: str, age_s: float) -> Run:
    return Run(
        id=str(uuid4()),
        name="r",
        state_type=state,
        state_name=state.value,
        state_time=NOW - timedelta(seconds=age_s),
        process=process,
    )


@pytest.mark.parametrize(
    ("state", "process", "age_s", "lost"),
    [
        (StateType.RUNNING, HERE, 3600, True),
        (StateType.CANCELLING, HERE, 3600, True),
        (StateType.RUNNING, HERE, 1, True),
        (StateType.RUNNING, "elsewhere:1", 3600, False),
        (StateType.RUNNING, "12345", 3600, False),
        (StateType.RUNNING, "", 3600, False),
        (StateType.PENDING, "", 59, False),
        (StateType.PENDING, "", 61, True),
        (StateType.CANCELLING, "", 61, True),
        (StateType.PENDING, "", -3600, False),
    ],
)
def test_only_a_provably_dead_process_makes_a_run_lost(
    tmp_path: Path, state: StateType, process: str, age_s: float, lost: bool
) -> None:
    assert is_lost(run_in(state, process, age_s), Settings(home=tmp_path), NOW) is lost


def test_a_run_whose_worker_died_before_it_could_say_in_which_process_it_is_is_lost(
    tmp_path: Path,
) -> None:
    settings = Settings(home=tmp_path)
    run = run_in(StateType.RUNNING, "", 1)
    with present(settings, run.id):
        assert not is_lost(run, settings, NOW)
    assert is_lost(run, settings, NOW)


def test_a_run_claimed_by_a_dead_worker_is_lost_at_once(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for pid, lost in ((dead.pid, True), (os.getpid(), False)):
        run = replace(run_in(StateType.PENDING, "", 1), state_message=claim(pid))
        assert is_lost(run, Settings(home=tmp_path), NOW) is lost


def test_a_living_process_is_not_lost(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    run = run_in(StateType.RUNNING, HERE, 3600)
    with present(settings, run.id):
        assert not is_lost(run, settings, NOW)
    assert is_lost(run, settings, NOW)


@pytest.mark.prefect
class TestOnPrefect:
    """The states Prefect lets a run go to."""

    @pytest.fixture
    def target(self, prefect_api: PrefectApi) -> Deployment:
        return make_deployment(prefect_api)

    def start(self, api: PrefectApi, target: Deployment, *, process: str = "") -> Run:
        run = api.create_run(target, NewRun(parameters={}))
        api.set_state(run.id, StateType.PENDING)
        api.set_state(run.id, StateType.RUNNING, "Generating")
        if process:
            api.patch_run(run.id, infrastructure_pid=process)
        return run

    def test_a_run_waits_again_at_its_old_place(
        self, prefect_api: PrefectApi, target: Deployment
    ) -> None:
        run = self.start(prefect_api, target, process=HERE)
        later = prefect_api.create_run(target, NewRun(parameters={}))
        assert settle(prefect_api, run.id, "because") == "Recovering"
        found = prefect_api.read_run(run.id)
        assert (found.state_type, found.state_message, found.process) == (
            StateType.SCHEDULED,
            "because",
            "",
        )
        offered = prefect_api.call("POST", f"work_pools/{target.pool}/get_scheduled_flow_runs", {})
        assert [row["flow_run"]["id"] for row in offered] == [run.id, later.id]

    def test_a_cancelled_one_is_cancelled(
        self, prefect_api: PrefectApi, target: Deployment
    ) -> None:
        run = self.start(prefect_api, target, process=HERE)
        prefect_api.cancel(run.id)
        assert settle(prefect_api, run.id, "because") == "Cancelled"
        assert prefect_api.read_run(run.id).state_type is StateType.CANCELLED

    def test_a_crashed_one_waits_again(self, prefect_api: PrefectApi, target: Deployment) -> None:
        run = self.start(prefect_api, target)
        prefect_api.set_state(run.id, StateType.CRASHED)
        assert settle(prefect_api, run.id, "because") == "Recovering"

    @pytest.mark.parametrize("crashed", [True, False])
    def test_one_that_dies_again_and_again_stays_crashed_and_says_what_to_do(
        self, prefect_api: PrefectApi, target: Deployment, *, crashed: bool
    ) -> None:
        run = self.start(prefect_api, target)
        for _ in range(MOST_RECOVERIES):
            assert settle(prefect_api, run.id, "It died.") == "Recovering"
            prefect_api.set_state(run.id, StateType.PENDING)
            prefect_api.set_state(run.id, StateType.RUNNING)
        if crashed:
            prefect_api.set_state(run.id, StateType.CRASHED)
        assert settle(prefect_api, run.id, "It died.") == "Crashed"
        found = prefect_api.read_run(run.id)
        assert found.state_type is StateType.CRASHED
        assert crashed or "4 times" in found.state_message

    def test_being_handed_back_by_a_worker_that_stops_is_no_recovery(
        self, prefect_api: PrefectApi, target: Deployment
    ) -> None:
        run = self.start(prefect_api, target)
        for _ in range(MOST_RECOVERIES + 2):
            assert settle(prefect_api, run.id, "It stops.", "Handed back") == "Handed back"
            prefect_api.set_state(run.id, StateType.PENDING)
            prefect_api.set_state(run.id, StateType.RUNNING)

    def test_one_that_ended_or_waits_or_is_gone_is_left_alone(
        self, prefect_api: PrefectApi, target: Deployment
    ) -> None:
        ended = self.start(prefect_api, target)
        prefect_api.set_state(ended.id, StateType.COMPLETED, "Degraded")
        assert settle(prefect_api, ended.id, "because") == "Degraded"
        waiting = prefect_api.create_run(target, NewRun(parameters={}, state_name="Held"))
        assert settle(prefect_api, waiting.id, "because") == "Held"
        prefect_api.delete_run(waiting.id)
        assert settle(prefect_api, waiting.id, "because") == ""

    def test_the_lost_of_a_pool_are_settled_and_nothing_else(
        self, prefect_api: PrefectApi, target: Deployment, tmp_path: Path
    ) -> None:
        settings = Settings(home=tmp_path)
        lost = self.start(prefect_api, target, process=HERE)
        ours = self.start(prefect_api, target, process=HERE)
        elsewhere = self.start(prefect_api, target, process="elsewhere:1")
        other_pool = self.start(prefect_api, make_deployment(prefect_api), process=HERE)
        settled = settle_lost(prefect_api, settings, [target.pool], ours=[ours.id])
        assert settled == [lost.id]
        for run in (ours, elsewhere, other_pool):
            assert prefect_api.read_run(run.id).state_name == "Generating"
        assert settle_lost(prefect_api, settings, []) == []

    def test_the_orphan_of_a_dead_worker_is_ended_when_cancelled(
        self, prefect_api: PrefectApi, target: Deployment, tmp_path: Path
    ) -> None:
        """Nobody else tells it any more; it is killed now and settled the next time."""
        settings = Settings(home=tmp_path)
        run = self.start(prefect_api, target)
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(tmp_path), run.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as orphan:
            assert orphan.stdout
            assert orphan.stdout.readline() == b"held\n"
            prefect_api.patch_run(run.id, infrastructure_pid=process_name(orphan.pid))
            assert settle_lost(prefect_api, settings, [target.pool]) == []
            assert is_present(settings, run.id)
            prefect_api.cancel(run.id)
            assert settle_lost(prefect_api, settings, [target.pool]) == []
            assert orphan.wait(10) != 0
        assert settle_lost(prefect_api, settings, [target.pool]) == [run.id]
        assert prefect_api.read_run(run.id).state_type is StateType.CANCELLED
