"""Real workers running real flow runs, told to end in every way there is."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import pytest

from deployments.deploying import PULL_STEPS
from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType
from stablequeue.project import project_dir
from stablequeue.worker.gpu_server import GpuServerWorker
from stablequeue.worker.pools import PoolList
from stablequeue.worker.presence import kill, process_name
from tests.support.measuring import measured
from tests.support.prefect import PrefectServer, stop_process
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name != "posix", reason="signals"),
]
SLOW_S = 60.0
FLOW = Path(__file__).with_name("flow_for_tests.py")


class Bench:
    """A pool with limit 1, a deployment in it, and workers for it."""

    def __init__(self, server: PrefectServer, api: PrefectApi, folder: Path) -> None:
        self.server, self.api, self.folder = server, api, folder
        self.pool = f"w-{uuid4().hex[:8]}"
        self.notes = folder / "notes"
        self.log = folder / "worker.log"
        self.workers: list[subprocess.Popen[bytes]] = []
        body = {
            "name": self.pool,
            "type": "gpu-server",
            "concurrency_limit": 1,
            "base_job_template": GpuServerWorker.get_default_base_job_template(),
        }
        api.call("POST", "work_pools/", body)
        flow = api.call("POST", "flows/", {"name": "for-worker-tests"})
        body = {
            "name": self.pool,
            "flow_id": flow["id"],
            "work_pool_name": self.pool,
            "entrypoint": f"{FLOW}:work",
            "pull_steps": PULL_STEPS,
        }
        self.deployment = Deployment.from_json(api.call("POST", "deployments/", body))

    def start_worker(self, *pools: str) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "stablequeue.worker", *(pools or [self.pool])],
                env=measured(self.server.environment()),
                cwd=self.folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def ask(self, todo: str = "", seconds: float = 0.0) -> Run:
        parameters = {"notes": str(self.notes), "todo": todo, "seconds": seconds, "job_id": "j"}
        return self.api.create_run(self.deployment, NewRun(parameters=parameters))

    def noted(self, event: str) -> list[dict[str, object]]:
        if not self.notes.exists():
            return []
        lines = [json.loads(line) for line in self.notes.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def until(self, run: Run, condition: Callable[[Run], bool], why: str) -> Run:
        def look() -> Run | None:
            found = self.api.read_run(run.id)
            return found if condition(found) else None

        found = wait_until(look, timeout_s=SLOW_S, why=f"{why}; {self.log.read_text()[-2000:]}")
        assert found
        return found

    def until_started(self, times: int = 1) -> int:
        wait_until(lambda: len(self.noted("started")) >= times, timeout_s=SLOW_S, why="it starts")
        return int(str(self.noted("started")[-1]["pid"]))


@pytest.fixture
def bench(
    prefect_server: PrefectServer, prefect_api: PrefectApi, tmp_path: Path
) -> Iterator[Bench]:
    bench = Bench(prefect_server, prefect_api, tmp_path)
    yield bench
    for worker in bench.workers:
        stop_process(worker)
    for line in bench.noted("started"):
        with suppress(ProcessLookupError):
            kill(int(str(line["pid"])))


def final(run: Run) -> bool:
    return run.final


def test_runs_work_in_the_project_and_one_that_puts_itself_off_is_taken_again(
    bench: Bench,
) -> None:
    bench.start_worker()
    first = bench.until(bench.ask(), final, "the first ends")
    assert first.state_name == "Completed"
    started = bench.noted("started")[0]
    assert started["cwd"] == str(project_dir())
    assert str(project_dir()) in str(started["path"])
    assert first.process == process_name(int(str(started["pid"])))
    second = bench.until(bench.ask("put off once", 1.0), final, "the second ends")
    assert second.state_name == "Completed"
    path = f"flow_run_states/?flow_run_id={second.id}"
    states = [state["name"] for state in bench.api.call("GET", path)]
    assert "Waiting for model" in states
    assert not {"Crashed", "Failed"} & set(states)
    log = bench.log.read_text()
    assert f"{bench.pool} job=" in log
    assert bench.server.auth.partition(":")[2] not in log


def test_a_cancelled_run_is_cancelled_within_ten_seconds_even_when_a_thread_is_stuck(
    bench: Bench,
) -> None:
    bench.start_worker()
    for todo in ("sleep", "block a thread"):
        run = bench.ask(todo, 120.0)
        bench.until(run, lambda run: run.state_type is StateType.RUNNING, "it runs")
        pid = bench.until_started(1 if todo == "sleep" else 2)
        begun = time.monotonic()
        assert bench.api.cancel(run.id).accepted
        ended = bench.until(run, final, "it is cancelled")
        took = time.monotonic() - begun
        assert ended.state_type is StateType.CANCELLED
        assert took < 10, f"{todo}: {took:.1f} s"
        # one that a thread keeps from ending has 20 s before it is killed
        wait_until(lambda pid=pid: not _lives(pid), timeout_s=60, why="its process is gone")
    assert len(bench.noted("cancelled")) == 2


def test_a_stopped_worker_leaves_its_run_waiting_and_the_next_one_takes_it(
    bench: Bench,
) -> None:
    worker = bench.start_worker()
    run = bench.ask("sleep", 4.0)
    pid = bench.until_started()
    waiting = bench.ask()
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(30) == 0
    assert not _lives(pid)
    found = bench.api.read_run(run.id)
    assert (found.state_type, found.process) == (StateType.SCHEDULED, "")
    assert "worker was stopped" in found.state_message
    bench.start_worker()
    assert bench.until(run, final, "it ends").state_name == "Completed"
    assert bench.until(waiting, final, "the other ends").state_name == "Completed"
    states = bench.api.call("GET", f"flow_run_states/?flow_run_id={run.id}")
    assert "Crashed" not in {state["name"] for state in states}


def test_after_a_power_cut_the_next_worker_takes_the_run_up_again(bench: Bench) -> None:
    worker = bench.start_worker()
    run = bench.ask("sleep", 3.0)
    pid = bench.until_started()
    bench.until(run, lambda run: bool(run.process), "its process is known")
    worker.kill()
    kill(pid)
    worker.wait()
    assert bench.api.read_run(run.id).state_type is StateType.RUNNING  # as Prefect believes
    bench.start_worker()
    assert bench.until(run, final, "it ends").state_name == "Completed"
    assert len(bench.noted("started")) == 2


def test_a_worker_serves_what_its_list_names_and_leaves_what_is_taken_off(
    bench: Bench,
) -> None:
    pools = PoolList(bench.folder / "pools.json")
    bench.start_worker("--follow", str(pools.file))
    first = bench.ask("speak")
    pools.write([bench.pool])
    assert bench.until(first, final, "it ends").state_name == "Completed"

    def said() -> list[str]:
        return [line.message for line in bench.api.logs(first.id)]

    # Prefect sends a run's lines two seconds later; the process may be killed before that.
    wait_until(lambda: "[SERVER→COMFYUI] said to a server" in said(), timeout_s=SLOW_S)
    second = bench.ask("sleep", 120.0)
    pid = bench.until_started(2)
    pools.write([])
    waits = bench.until(
        second, lambda run: run.state_type is StateType.SCHEDULED, "it waits for another worker"
    )
    assert not waits.process
    assert not _lives(pid)
    assert f"not served any more: {bench.pool}" in bench.log.read_text()
    assert "[SERVER→COMFYUI] a look at a server" not in said()


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
