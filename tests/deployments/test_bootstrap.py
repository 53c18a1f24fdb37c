"""From saved servers to pools and deployments, on a server of these tests' own."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.bootstrap import Report, bootstrap
from deployments.unchanged import fingerprint, is_made, remember
from stablequeue.errors import NotFound, PrefectRefused
from stablequeue.prefect_api import NewRun, PrefectApi
from stablequeue.project import project_dir
from stablequeue.server_blocks import SERVER_BLOCK, remove_server, save_server, saved_servers
from stablequeue.servers import ANY, DOWNLOADS, ServerConfig
from stablequeue.worker import WORKER_TYPE
from tests.support.prefect import (
    PrefectServer,
    copied_home,
    start_server,
    stop_process,
)

CANARY = "canary-password"

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def own(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrefectServer]:
    """A server where nobody else saves servers meanwhile."""
    folder = tmp_path_factory.mktemp("own")
    settings = copied_home(prefect_server, folder / "home")
    process = start_server(settings, folder / "log")
    yield PrefectServer(settings)
    stop_process(process)


@pytest.fixture
def api(own: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrefectApi]:
    """A session with that server, with no server saved, and Prefect set up in this process."""
    monkeypatch.chdir(project_dir())
    with own.in_this_process(), own.api() as api:
        for run in api.runs():
            api.delete_run(run.id)
        for document in api.block_documents(SERVER_BLOCK):
            remove_server(api, document.name)
        bootstrap(api)
        for pool in api.pools(kind=WORKER_TYPE):
            if pool.name not in {
                ANY,
                DOWNLOADS,
            }:  # left by a test that deleted its deployment by hand
                api.delete_pool(pool.name)
        yield api


def server(alias: str, kind: str = "comfyui", **changes: Any) -> ServerConfig:
    values = {"alias": alias, "type": kind, "url": "http://127.0.0.1:8188", **changes}
    return ServerConfig.model_validate(values)


def request(server: str) -> NewRun:
    return NewRun(parameters={"request": {"prompt": "x", "server": server}})


def test_what_is_static_is_there_without_any_server(api: PrefectApi) -> None:
    assert api.deployment("generate/any").pool == "any"
    static = api.deployment("housekeeping/housekeeping")
    assert [item["slug"] for item in static.raw["schedules"]] == ["every-night"]
    assert api.pool("any").type == "gpu-server"
    assert api.deployment("fetch-model/downloads").pool == "downloads"
    assert (api.pool("downloads").type, api.pool("downloads").limit) == ("gpu-server", 2)
    queues = [(queue.name, queue.priority) for queue in api.queues("downloads")]
    assert queues == [("interactive", 1), ("normal", 5), ("bulk", 9)]


def test_a_saved_server_gets_a_pool_queues_and_a_form_of_its_own(api: PrefectApi) -> None:
    save_server(api, server("gpu-a", password=CANARY))
    report = bootstrap(api, limit=2)
    assert report.changed == ("pool gpu-a", "deployment gpu-a")
    pool = api.pool("gpu-a")
    assert (pool.type, pool.limit) == ("gpu-server", 2)
    queues = [(queue.name, queue.priority) for queue in api.queues("gpu-a")]
    assert queues == [("interactive", 1), ("normal", 5), ("bulk", 9)]
    made = api.deployment("generate/gpu-a")
    assert (made.pool, made.queue) == ("gpu-a", "normal")
    assert CANARY not in json.dumps([pool.raw, made.raw])
    assert api.create_run(made, request("gpu-a")).queue == "normal"
    with pytest.raises(PrefectRefused, match="gpu-b"):
        api.create_run(made, request("gpu-b"))


def test_again_nothing_changes_and_what_people_changed_stays(api: PrefectApi) -> None:
    save_server(api, server("gpu-a"))
    bootstrap(api)
    made = api.deployment("generate/gpu-a")
    api.limit_pool("gpu-a", 7)
    api.pause_pool("gpu-a")
    schedule = {"slug": "mine", "schedule": {"cron": "0 7 * * *"}, "active": False}
    api.call("POST", f"deployments/{made.id}/schedules", [schedule])
    assert bootstrap(api) == Report((), ())
    assert (api.pool("gpu-a").limit, api.pool("gpu-a").paused) == (7, True)
    save_server(api, server("gpu-a", url="http://10.0.0.5:8188"))
    assert set(bootstrap(api).changed) == {"pool gpu-a", "deployment gpu-a"}
    moved = api.deployment("generate/gpu-a")
    assert moved.id == made.id
    assert "10.0.0.5" in moved.raw["description"]
    assert [item["slug"] for item in moved.raw["schedules"]] == ["mine"]
    assert (api.pool("gpu-a").limit, api.pool("gpu-a").paused) == (7, True)


def test_what_was_taken_away_in_prefects_pages_is_made_again(api: PrefectApi) -> None:
    save_server(api, server("gpu-a"))
    bootstrap(api)
    api.delete_deployment(api.deployment("generate/gpu-a").id)
    assert bootstrap(api).changed == ("deployment gpu-a",)
    api.delete_pool("gpu-a")
    assert set(bootstrap(api).changed) == {"pool gpu-a", "deployment gpu-a"}
    assert api.deployment("generate/gpu-a").pool == "gpu-a"


def test_a_damaged_block_is_not_a_removed_server(api: PrefectApi) -> None:
    save_server(api, server("gpu-a"))
    bootstrap(api)
    bad = {"type": "forge", "url": "http://user:secret@127.0.0.1/"}
    api.save_block_document(SERVER_BLOCK, "gpu-a", bad)
    assert bootstrap(api) == Report((), ())
    assert api.deployment("generate/gpu-a").pool == "gpu-a"


def test_a_removed_server_without_jobs_is_gone(api: PrefectApi) -> None:
    save_server(api, server("gpu-a"))
    bootstrap(api)
    remove_server(api, "gpu-a")
    assert bootstrap(api).changed == ("gpu-a: removed",)
    for ask in (lambda: api.pool("gpu-a"), lambda: api.deployment("generate/gpu-a")):
        with pytest.raises(NotFound):
            ask()


def test_a_removed_server_with_jobs_is_paused_until_they_are_gone_or_it_is_back(
    api: PrefectApi,
) -> None:
    save_server(api, server("gpu-a"))
    bootstrap(api)
    run = api.create_run("generate/gpu-a", request("gpu-a"))
    remove_server(api, "gpu-a")
    report = bootstrap(api)
    assert report.unfinished == ("gpu-a",)
    assert report.changed[0].startswith("gpu-a: paused, 1 jobs are left")
    assert api.pool("gpu-a").paused
    assert bootstrap(api) == Report((), ("gpu-a",))
    save_server(api, server("gpu-a"))
    bootstrap(api)
    assert not api.pool("gpu-a").paused
    remove_server(api, "gpu-a")
    api.delete_run(run.id)
    assert bootstrap(api).changed == ("gpu-a: removed",)


def test_a_persons_own_deployment_is_left_alone(api: PrefectApi) -> None:
    flow = api.call("POST", "flows/", {"name": "generate"})
    body = {"name": "mine", "flow_id": flow["id"], "work_pool_name": "any"}
    api.call("POST", "deployments/", body)
    bootstrap(api)
    assert api.deployment("generate/mine").pool == "any"


def test_the_next_time_is_told_to_be_unchanged_until_something_is(api: PrefectApi) -> None:
    servers = [server("gpu-a")]
    save_server(api, servers[0])
    mark = fingerprint(servers, project_dir(), limit=1)
    remember(api, mark)
    assert not is_made(api, servers, mark)  # the pool is missing
    bootstrap(api)
    assert is_made(api, servers, mark)
    assert not is_made(api, servers, fingerprint(servers, project_dir(), limit=2))
    moved = [server("gpu-a", url="http://10.0.0.5:8188")]
    assert fingerprint(moved, project_dir(), limit=1) != mark
    api.delete_deployment(api.deployment("generate/gpu-a").id)
    assert not is_made(api, servers, mark)


def run(own: PrefectServer, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=own.environment(),
        cwd=project_dir(),
        capture_output=True,
        text=True,
        check=False,
    )


def test_prefects_own_command_takes_the_same_file_and_ours_says_what_it_changed(
    own: PrefectServer, api: PrefectApi
) -> None:
    done = run(own, "prefect", "--no-prompt", "deploy", "--all")
    assert done.returncode == 0, done.stdout + done.stderr
    assert api.deployment("generate/any").raw["pull_steps"] == [{"stablequeue.project.enter": {}}]
    done = run(own, "deployments", "--json", "--anew")
    assert done.returncode == 0, done.stderr
    changed: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert {"deployment any", "deployment housekeeping"} <= set(changed)
    done = run(own, "deployments", "--json")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "[]", "")


def test_no_server_is_one_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployments"],
        env={"STABLEQUEUE_HOME": str(tmp_path), "STABLEQUEUE_PREFECT_PORT": "0"},
        cwd=project_dir(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("stablequeue: ")
    assert "stablequeue up" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_sandbox_is_saved_when_no_server_is_and_moves_with_its_port(
    own: PrefectServer, api: PrefectApi
) -> None:
    report = bootstrap(api, sandbox_url="http://127.0.0.1:5001")
    assert [(one.alias, one.type, one.base_url) for one in report.servers] == [
        ("sandbox", "comfyui", "http://127.0.0.1:5001"),
        ("sandbox-forge", "forge", "http://127.0.0.1:5001"),
    ]
    assert api.deployment("generate/sandbox-forge").pool == "sandbox-forge"
    save_server(api, server("gpu-a"))
    done = run(
        own, "deployments", "--json", "--wait", "5", "--sandbox-url", "http://127.0.0.1:5002"
    )
    assert done.returncode == 0, done.stderr
    changed: list[str] = json.loads(done.stdout.splitlines()[-1])
    assert "server sandbox at http://127.0.0.1:5002" in changed
    urls = {one.alias: one.base_url for one in saved_servers(api)}
    assert urls["sandbox-forge"] == "http://127.0.0.1:5002"
    assert urls["gpu-a"] == "http://127.0.0.1:8188"
    done = run(own, "deployments", "--json", "--ahead", "--sandbox-url", "http://127.0.0.1:5002")
    assert (done.returncode, done.stdout.strip()) == (0, "[]")
    for alias in ("sandbox", "sandbox-forge"):
        remove_server(api, alias)
    assert bootstrap(api, sandbox_url="http://127.0.0.1:5002").servers == (server("gpu-a"),)
