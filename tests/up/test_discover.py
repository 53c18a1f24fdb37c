"""Looking for servers on the usual ports, and what `up` starts and how."""

import asyncio
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.settings import Settings
from stablequeue.up import __main__ as command
from stablequeue.up.children import Children
from stablequeue.up.discover import Found, discover
from stablequeue.worker.pools import PoolList

MODULE = sys.modules["stablequeue.up.discover"]  # its function has its name


@pytest.fixture(params=["comfyui", "forge"])
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    """Give a server of each protocol in turn."""
    with serve_sandbox(request.param) as sandbox:
        yield sandbox


def found_at(url: str, monkeypatch: pytest.MonkeyPatch) -> list[Found]:
    """Look at this address as if it were the usual one of both protocols."""
    usual = [(kind, url, path, key) for kind, _, path, key in vars(MODULE)["_USUAL"]]
    monkeypatch.setattr(MODULE, "_USUAL", usual)
    return asyncio.run(discover())


def test_a_server_is_found_as_what_it_is(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = sandbox.config.protocol
    (found,) = found_at(sandbox.url, monkeypatch)
    assert found == Found(kind, sandbox.url)
    assert found.command == f"stablequeue servers add {kind} --type {kind} --url {sandbox.url}"


def test_one_behind_credentials_is_found_too(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.faults.add("status", "GET *", status=401, times=-1)
    assert sandbox.config.protocol in {found.type for found in found_at(sandbox.url, monkeypatch)}


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500, "body": "{}"},
        {"kind": "status", "status": 200, "body": "<html>"},
        {"kind": "status", "status": 200, "body": "7"},
        {"kind": "status", "status": 302, "body": "[]"},
        {"kind": "close"},
        {"kind": "hang"},
    ],
)
def test_whatever_else_answers_there_is_not_offered(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, fault: dict[str, Any]
) -> None:
    monkeypatch.setattr(MODULE, "_WITHIN_S", 0.3)
    sandbox.faults.add(where="GET *", times=-1, **fault)
    assert found_at(sandbox.url, monkeypatch) == []


def test_nothing_there_is_nothing_found(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        assert found_at(f"http://127.0.0.1:{closed.getsockname()[1]}", monkeypatch) == []


def test_each_child_has_its_own_log_and_is_tied_to_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://somebody.else/api")
    children = Children(Settings(home=tmp_path, prefect_api_url="http://127.0.0.1:9/api"))
    pools = PoolList(tmp_path / "pools.json")

    prefect, worker = children.prefect(), children.worker(pools)
    sandbox, deployments = children.sandbox(4202), children.deployments(["--wait", "5"])

    for child in (prefect, worker, sandbox, deployments):
        assert list(child.arguments[:2]) == ["-m", "stablequeue.tethered"]
        assert child.log == tmp_path / "logs" / f"{child.name}.log"
        assert child.environment["STABLEQUEUE_HOME"] == str(tmp_path)
        assert child.environment.get("PREFECT_API_URL") != "http://somebody.else/api"
    assert prefect.arguments[2:] == ["stablequeue.server"]
    assert worker.arguments[2:] == ["stablequeue.worker", "--follow", str(pools.file)]
    assert sandbox.arguments[2:] == [
        *("stablequeue.sandbox", "--protocol", "both", "--port", "4202"),
        *("--home", str(tmp_path / "sandbox")),
    ]
    assert deployments.arguments[2:] == ["deployments", "--wait", "5"]
    for child in (worker, deployments):
        assert child.environment["PREFECT_API_URL"] == "http://127.0.0.1:9/api"
        assert child.folder
        assert (child.folder / "prefect.yaml").is_file()
    assert "PREFECT_API_URL" not in {*prefect.environment, *sandbox.environment}


def test_a_wrong_setting_ends_the_command_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("STABLEQUEUE_HOME", str(tmp_path))
    monkeypatch.setenv("STABLEQUEUE_LOG_LEVEL", "loud")
    assert command.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("stablequeue: setting log_level")
    assert len(said.splitlines()) == 1


def test_the_command_runs_with_the_settings_in_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def run(settings: Settings, *, say: Any) -> int:
        say(str(settings.home))
        return 0

    monkeypatch.setenv("STABLEQUEUE_HOME", str(tmp_path))
    monkeypatch.setattr(command, "run", run)
    assert command.main() == 0
    assert capsys.readouterr().out == f"{tmp_path}\n"
