"""The worker type, as far as it can be looked at without running anything."""

import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.workers.base import BaseWorker
from prefect.workers.process import ProcessWorker

from stablequeue.project import project_dir
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker import __main__ as command
from stablequeue.worker.configuration import GpuServerJobConfiguration
from stablequeue.worker.dispatch import Scheduling
from stablequeue.worker.gpu_server import GpuServerWorker


def test_prefect_finds_the_type_by_its_entry_point() -> None:
    (point,) = [
        point
        for point in entry_points(group="prefect.collections")
        if point.value.startswith("stablequeue")
    ]
    assert point.load().GpuServerWorker is GpuServerWorker
    assert BaseWorker.get_worker_class_from_type(WORKER_TYPE) is GpuServerWorker


def test_the_template_of_its_pools_is_a_form_without_tabs_and_without_this_machines_paths() -> None:
    template = GpuServerWorker.get_default_base_job_template()
    for name, field in template["variables"]["properties"].items():
        assert "anyOf" not in field, name
        assert field["title"], name
        assert field["description"], name
    assert str(project_dir()) not in str(template)
    assert sys.executable not in str(template)


def prepared(**values: Any) -> GpuServerJobConfiguration:
    configuration = GpuServerJobConfiguration(**values)
    configuration.prepare_for_flow_run(FlowRun(flow_id=uuid4(), name="r"))
    return configuration


def test_a_run_works_in_our_project_in_a_warm_process_unless_told_otherwise() -> None:
    configuration = prepared()
    assert configuration.working_dir == project_dir()
    assert not configuration.own_command
    assert configuration.own_environment == {}


def test_what_a_pool_or_deployment_names_is_kept(tmp_path: Path) -> None:
    configuration = prepared(
        command="python -m prefect.engine", working_dir=tmp_path, env={"A": "b"}
    )
    assert configuration.command == "python -m prefect.engine"
    assert configuration.own_command
    assert configuration.working_dir == tmp_path
    assert configuration.env["A"] == "b"


@pytest.mark.parametrize(
    "name",
    [
        "_cancel_run",
        "run",
        "kill_infrastructure",
        "get_default_base_job_template",
        "_setup_cancellation_observer",
    ],
)
def test_what_we_extend_exists_in_this_prefect(name: str) -> None:
    assert callable(getattr(ProcessWorker, name))


def test_the_attributes_we_read_exist_in_this_prefect() -> None:
    worker = ProcessWorker("pool")
    assert worker._submitting_flow_run_ids == set()  # pyright: ignore[reportPrivateUsage]
    assert worker._cancelling_observer is None  # pyright: ignore[reportPrivateUsage]


def test_an_untried_prefect_gets_its_own_workers_one_a_pool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    started: list[list[str]] = []

    class Started:
        def __init__(self, arguments: list[str]) -> None:
            started.append(arguments)
            if len(started) == 2:
                handlers[0]()

        def poll(self) -> None:
            """It runs."""

        def terminate(self) -> None:
            """It ends."""

        def wait(self) -> int:
            return 0

    def nothing(*_arguments: object) -> None:
        """Leave this process's environment alone."""

    def keep(number: int, stop: Callable[[int, None], None]) -> None:
        handlers.append(lambda: stop(number, None))

    handlers: list[Callable[[], None]] = []

    def untried(_package: str) -> str:
        return "3.99.0"

    monkeypatch.setattr(command, "version", untried)
    monkeypatch.setattr(command, "_take_environment", nothing)
    monkeypatch.setattr(command.subprocess, "Popen", Started)
    monkeypatch.setattr(command.signal, "signal", keep)
    monkeypatch.setenv("STABLEQUEUE_HOME", str(tmp_path))
    assert command.main(["gpu-a", "any"]) == 0
    assert [arguments[-1] for arguments in started] == ["gpu-a", "any"]
    assert all("process" in arguments for arguments in started)
    assert "3.99.0 was not tried" in caplog.text


def test_a_worker_that_cannot_begin_says_why_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STABLEQUEUE_HOME", str(tmp_path))
    monkeypatch.setenv("STABLEQUEUE_PREFECT_PORT", "0")
    assert command.main(["gpu-a"]) == 1
    assert capsys.readouterr().err.startswith("stablequeue: the Prefect server")


class _Told:
    """Stands in for what decides: remembers which runs it was told are over."""

    def __init__(self) -> None:
        self.over: list[str] = []

    def ended(self, run_id: str) -> None:
        self.over.append(run_id)


async def test_the_end_of_a_taking_does_not_end_the_next_one_of_the_same_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = _Told()
    worker = GpuServerWorker("p", scheduling=cast("Scheduling", told))
    run = FlowRun(id=uuid4(), flow_id=uuid4(), name="r")
    given = worker._given  # pyright: ignore[reportPrivateUsage]

    async def first() -> dict[str, str]:
        return {"server": "first"}

    async def again() -> dict[str, str]:
        return {"server": "second"}

    async def taken_again_meanwhile(_worker: object, flow_run: FlowRun) -> None:
        given[flow_run.id] = again

    monkeypatch.setattr(ProcessWorker, "_submit_run", taken_again_meanwhile)
    given[run.id] = first
    await worker._submit_run(run)  # pyright: ignore[reportPrivateUsage]
    assert given[run.id] is again
    assert told.over == []

    async def refused(_worker: object, _flow_run: FlowRun) -> None:
        """The claim failed."""

    monkeypatch.setattr(ProcessWorker, "_submit_run", refused)
    await worker._submit_run(run)  # pyright: ignore[reportPrivateUsage]
    assert told.over == [str(run.id)]
