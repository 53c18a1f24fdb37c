"""What every worker promises its runs: Prefect's own process worker and our warm one alike."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType
from stablequeue.worker.gpu_server import GpuServerWorker
from tests.support.measuring import measured
from tests.support.prefect import PrefectServer, stop_process
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(300),
    pytest.mark.skipif(os.name != "posix", reason="signals"),
]
FLOWS = Path(__file__).with_name("flow_for_contract.py")
SLOW_S = 90.0
OURS: list[dict[str, Any]] = [{"stablequeue.project.enter": {}}]


class Pool:
    """A pool of one kind, its worker, and deployments of the contract's flows."""

    def __init__(self, kind: str, server: PrefectServer, api: PrefectApi, folder: Path) -> None:
        self.kind, self.api, self.folder = kind, api, folder
        self.name = f"{kind}-{uuid4().hex[:8]}"
        self.log = folder / "worker.log"
        template = GpuServerWorker.get_default_base_job_template()
        body: dict[str, Any] = {"name": self.name, "type": kind, "concurrency_limit": 2}
        if kind == "gpu-server":
            body["base_job_template"] = template
        else:
            # One start of Python instead of two: what a tuned stock worker would do.
            body["base_job_template"] = {
                "job_configuration": {
                    "command": f"{sys.executable} -m prefect.engine",
                    "env": "{{ env }}",
                    "working_dir": "{{ working_dir }}",
                },
                "variables": {
                    "type": "object",
                    "properties": {
                        "env": {"type": "object"},
                        "working_dir": {"type": "string", "default": str(folder)},
                    },
                },
            }
        api.call("POST", "work_pools/", body)
        with self.log.open("ab") as output:
            self.worker = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", self.name],
                env=measured({**server.environment(), "PREFECT_WORKER_QUERY_SECONDS": "1"}),
                cwd=folder,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )

    def run(self, function: str = "promise", *, todo: str = "", **variables: Any) -> Run:
        name = function.replace("_", "-").replace("promise", "contract")
        flow = self.api.call("POST", "flows/", {"name": name})
        body: dict[str, Any] = {
            "name": f"{self.name}-{uuid4().hex[:6]}",
            "flow_id": flow["id"],
            "work_pool_name": self.name,
            "entrypoint": f"{FLOWS}:{function}",
            "job_variables": {"env": variables} if variables else {},
            "pull_steps": OURS,
        }
        deployment = Deployment.from_json(self.api.call("POST", "deployments/", body))
        parameters = {"folder": str(self.folder), "todo": todo}
        return self.api.create_run(deployment, NewRun(parameters=parameters))

    def run_of_theirs(self, file: Path, function: str) -> Run:
        """Run a flow that is no part of our project, in its own folder and without pull steps."""
        flow = self.api.call("POST", "flows/", {"name": function})
        body: dict[str, Any] = {
            "name": f"{self.name}-{uuid4().hex[:6]}",
            "flow_id": flow["id"],
            "work_pool_name": self.name,
            "path": str(file.parent),
            "entrypoint": f"{file.name}:{function}",
            "job_variables": {"working_dir": str(file.parent)},
        }
        deployment = Deployment.from_json(self.api.call("POST", "deployments/", body))
        return self.api.create_run(deployment, NewRun(parameters={"folder": str(self.folder)}))

    def until(self, run: Run, condition: Callable[[Run], bool], why: str) -> Run:
        def look() -> Run | None:
            found = self.api.read_run(run.id)
            return found if condition(found) else None

        found = wait_until(look, timeout_s=SLOW_S, why=f"{why}; {self.log.read_text()[-3000:]}")
        assert found
        return found

    def ended(self, run: Run) -> Run:
        return self.until(run, lambda found: found.final, "it ends")

    def noted(self, what: str) -> list[dict[str, Any]]:
        try:
            text = (self.folder / "notes").read_text(encoding="utf-8")
        except FileNotFoundError:
            return []
        lines = [json.loads(line) for line in text.splitlines()]
        return [line for line in lines if line["what"] == what]

    def until_noted(self, what: str, times: int = 1) -> dict[str, Any]:
        wait_until(lambda: len(self.noted(what)) >= times, timeout_s=SLOW_S, why=what)
        return self.noted(what)[-1]


@pytest.fixture(
    scope="module", params=[pytest.param("process", marks=pytest.mark.house), "gpu-server"]
)
def pool(
    request: pytest.FixtureRequest,
    prefect_server: PrefectServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Pool]:
    """Give a pool of each kind with a running worker."""
    with prefect_server.api() as api:
        folder = tmp_path_factory.mktemp("contract")
        # Where ours is started may lie anything, a module with the name of one of ours too.
        if request.param == "gpu-server":
            (folder / "tasks.py").write_text("MINE = 'my own module of this name'\n")
        made = Pool(request.param, prefect_server, api, folder)
        yield made
        stop_process(made.worker)


def test_a_run_ends_with_its_log_its_tasks_and_its_hook(pool: Pool) -> None:
    before = len(pool.noted("hook: completion"))
    run = pool.ended(pool.run())
    assert run.state_name == "Completed"
    pool.until_noted("hook: completion", before + 1)

    def lines() -> list[str]:
        return [line.message for line in pool.api.logs(run.id)]

    wait_until(lambda: "a line of the run" in lines(), timeout_s=SLOW_S, why="its log arrives")
    assert "a line that is nobody's business" not in lines()

    def tasks() -> list[str]:
        body = {"flow_runs": {"id": {"any_": [run.id]}}, "limit": 10}
        found = pool.api.call("POST", "task_runs/filter", body)
        return [task["state_type"] for task in found]

    wait_until(lambda: tasks() == ["COMPLETED"], timeout_s=SLOW_S, why="its task is recorded")
    assert run.process.endswith(str(pool.noted("started")[-1]["pid"]))


def test_job_variables_reach_their_run_and_no_other(pool: Pool) -> None:
    pool.ended(pool.run(CONTRACT="mine", PREFECT_LOGGING_LEVEL="WARNING"))
    seen = pool.noted("started")[-1]["variables"]
    assert seen["CONTRACT"] == "mine"
    assert seen["PREFECT_LOGGING_LEVEL"] == "WARNING"
    pool.ended(pool.run())
    assert pool.noted("started")[-1]["variables"]["CONTRACT"] == ""


def test_prefects_own_settings_in_job_variables_are_obeyed(pool: Pool) -> None:
    run = pool.ended(pool.run(PREFECT_LOGGING_LEVEL="ERROR", PREFECT_LOGGING_TO_API_ENABLED="true"))
    other = pool.ended(pool.run())

    def lines(of: Run) -> list[str]:
        return [line.message for line in pool.api.logs(of.id)]

    wait_until(lambda: "a line of the run" in lines(other), timeout_s=SLOW_S, why="its log")
    assert "a line of the run" not in lines(run)


def test_a_flow_without_an_event_loop_runs_too(pool: Pool) -> None:
    assert pool.ended(pool.run("promise_sync")).state_name == "Completed"


def test_a_project_of_somebody_elses_runs_in_its_own_folder_with_its_own_modules(
    pool: Pool,
) -> None:
    project = pool.folder / "their-project"
    project.mkdir()
    (project / "tasks.py").write_text("MINE = 'their own module of this name'\n")
    theirs = project / "theirs.py"
    theirs.write_text(
        "import json, os\n"
        "from pathlib import Path\n"
        "from prefect import flow\n"
        "from tasks import MINE\n"
        "@flow\n"
        "async def theirs(folder: str) -> None:\n"
        "    line = json.dumps({'what': 'theirs', 'cwd': os.getcwd(), 'mine': MINE})\n"
        "    with (Path(folder) / 'notes').open('a') as file:\n"
        "        file.write(line + chr(10))\n"
    )
    run = pool.ended(pool.run_of_theirs(theirs, "theirs"))
    assert run.state_name == "Completed", run.state_message
    [noted] = pool.noted("theirs")
    assert noted["cwd"] == str(project)
    assert noted["mine"] == "their own module of this name"
    assert pool.ended(pool.run()).state_name == "Completed"


def test_a_failing_run_says_why_and_the_next_one_is_none_the_worse(pool: Pool) -> None:
    failed = pool.ended(pool.run(todo="fail"))
    assert failed.state_type is StateType.FAILED
    assert "as asked" in failed.state_message
    assert pool.ended(pool.run()).state_name == "Completed"


def test_a_run_that_takes_too_long_is_ended(pool: Pool) -> None:
    run = pool.ended(pool.run("promise_quick"))
    assert (run.state_type, run.state_name) == (StateType.FAILED, "TimedOut")


@pytest.mark.parametrize("todo", ["die", "exit"])
def test_a_run_whose_process_dies_is_crashed_and_its_hook_runs(pool: Pool, todo: str) -> None:
    before = len(pool.noted("hook: crashed"))
    run = pool.ended(pool.run(todo=todo))
    assert run.state_type is StateType.CRASHED
    assert ("-9" if todo == "die" else "3") in run.state_message
    pool.until_noted("hook: crashed", before + 1)
    assert pool.ended(pool.run()).state_name == "Completed"


def test_a_cancelled_run_stops_and_its_hook_runs(pool: Pool) -> None:
    started, before = len(pool.noted("started")), len(pool.noted("hook: cancellation"))
    run = pool.run(todo="sleep")
    pid = pool.until_noted("started", started + 1)["pid"]
    pool.until(run, lambda found: bool(found.process), "its process is known")
    assert pool.api.cancel(run.id).accepted
    assert pool.ended(run).state_type is StateType.CANCELLED
    pool.until_noted("hook: cancellation", before + 1)

    def gone() -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    wait_until(gone, timeout_s=SLOW_S, why="its process is gone")
    assert pool.ended(pool.run()).state_name == "Completed"


def test_what_a_run_leaves_in_its_environment_is_not_the_next_ones(pool: Pool) -> None:
    pool.ended(pool.run(todo="leave a variable"))
    for _ in range(2):
        pool.ended(pool.run())
        assert pool.noted("started")[-1]["variables"]["LEFT_BEHIND"] == ""
