"""`up`, `ui`, `--install-completion`, and standing of servers."""

import sys
import webbrowser
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from cyclopts import App

import stablequeue.up
from stablequeue.cli import launch, reference
from stablequeue.client import Client
from stablequeue.settings import Settings, load
from tests.cli.conftest import Run
from tests.support.prefect import PrefectServer


@pytest.fixture
def own_server(home: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use the tests' Prefect server as the one this installation started itself."""
    del home
    monkeypatch.setenv("STABLEQUEUE_HOME", str(prefect_server.settings.home))
    monkeypatch.setenv("STABLEQUEUE_PREFECT_PORT", "0")
    monkeypatch.delenv("STABLEQUEUE_PREFECT_API_URL")
    return prefect_server.origin


@pytest.mark.prefect
def test_our_own_pages_open_with_a_ticket_that_is_good_once(
    run: Run, own_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []

    def opens(address: str) -> bool:
        opened.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", opens)
    assert run("ui").out == "Opened Prefect's pages in the browser.\n"
    assert opened[0].startswith(f"{own_server}/stablequeue/login?ticket=")
    printed = run("ui", "--json").json["url"]
    assert httpx.get(printed).status_code == 200
    assert httpx.get(printed).status_code == 403


@pytest.mark.prefect
@pytest.mark.usefixtures("own_server")
def test_without_a_browser_the_address_can_be_printed(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def opens(_: str) -> bool:
        return False

    monkeypatch.setattr(webbrowser, "open", opens)
    ran = run("ui")
    assert ran.code == 1
    assert "--print" in ran.err


def test_up_runs_with_the_settings_in_force(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[Settings] = []

    def runs(settings: Settings, *, say: object, paused: bool) -> int:
        assert callable(say)
        assert not paused
        say("Ready.")
        used.append(settings)
        return 0

    monkeypatch.setattr(stablequeue.up, "run", runs)
    assert run("up", "--setting", "files_port=5001").out == "Ready.\n"
    assert (used[0].home, used[0].files_port) == (home, 5001)


def test_completion_is_installed_where_the_shell_looks(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def installs(_: App, *, shell: str | None) -> Path:
        if shell is None:
            message = "cannot tell the shell"
            raise RuntimeError(message)
        return tmp_path / shell

    monkeypatch.setattr(App, "install_completion", installs)
    assert str(tmp_path / "zsh") in run("--install-completion", "--shell", "zsh").out
    unknown = run("--install-completion")
    assert unknown.code == 1
    assert "--shell" in unknown.err


@pytest.mark.prefect
def test_a_server_tells_why_its_jobs_wait(run: Run, online: str) -> None:
    run("servers", "add", online, "--type", "forge", "--url", "http://127.0.0.1:9", "--no-test")

    def state() -> str:
        rows = {row["alias"]: row["state"] for row in run("servers", "ls", "--json").json}
        return rows[online]

    assert state() == "no worker"
    with Client(load()) as queue:
        worker = {"name": "w", "heartbeat_time": datetime.now(UTC).isoformat()}
        path = f"work_pools/{online}/workers/heartbeat"
        queue.session.api.call("POST", path, {"name": worker["name"]})
        assert state() == "does not answer"
        queue.session.catalogue.park(online, "the disk is full")
        assert state() == "parked: the disk is full"
    assert run("doctor", "--json").code == 1
    run("resume", online)
    run("pause", online)
    assert state() == "paused"


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_person_is_asked_for_a_secret(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def getpass(prompt: str) -> str:
        asked.append(prompt)
        return "given"

    monkeypatch.setattr(sys, "stdin", SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("getpass.getpass", getpass)
    options = ["--type", "forge", "--url", "http://127.0.0.1:9", "--no-test", "--password", "-"]
    assert run("servers", "add", "asked-for", *options).code == 0
    assert asked == ["password: "]
    assert run("servers", "rm", "asked-for").code == 0


def test_the_reference_is_written_to_a_file_or_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cli.md"
    monkeypatch.setattr(sys, "argv", ["reference", str(file)])
    assert reference.main() == 0
    monkeypatch.setattr(sys, "argv", ["reference"])
    assert reference.main() == 0
    assert file.read_text(encoding="utf-8") == capsys.readouterr().out


def test_where_nothing_can_be_written_the_log_goes_to_the_temporary_folder(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the home folder should be")

    def broken(*_: object) -> int:
        return 1 // 0

    monkeypatch.setattr(launch, "_run", broken)
    monkeypatch.setattr(launch.tempfile, "gettempdir", lambda: str(tmp_path))
    ran = run("ls", "--home", blocked)
    log = tmp_path / "stablequeue-cli.log"
    assert str(log) in ran.err
    log.write_bytes(b"x" * 1_000_001)
    run("ls", f"--home={blocked}")
    assert log.stat().st_size < 10_000


def test_a_reader_that_has_enough_is_no_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise BrokenPipeError

    closed: list[tuple[int, int]] = []
    monkeypatch.setattr(launch, "_run", full)
    monkeypatch.setattr(launch.os, "dup2", lambda *fds: closed.append(fds))  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    monkeypatch.setattr(sys.stdout, "fileno", lambda: 1, raising=False)
    assert run("ls").code == 0
    assert len(closed) == 1
