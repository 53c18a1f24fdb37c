"""One Prefect server for a whole test run; one each where pytest-xdist splits it over processes.

It is our own server (`python -m stablequeue.server`), so every test that uses it tests that too.
Starting takes 5 to 20 s. Processes share none: some tests pause every pool there is, or look at
all runs.
"""

import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.project import project_dir
from stablequeue.secrets import private_folder
from stablequeue.server_settings import api_auth, api_url, clean_environment, client_environment
from stablequeue.settings import Settings
from tests.support import measuring
from tests.support.waiting import wait_until

START_S = 150.0
"""A first start migrates an empty database; on a loaded machine that takes a while."""


@dataclass(frozen=True)
class PrefectServer:
    """A running server and what is needed to reach it."""

    settings: Settings

    @property
    def url(self) -> str:
        """URL of the API, ending with /api."""
        return api_url(self.settings)

    @property
    def origin(self) -> str:
        """URL of the UI, without a slash at its end."""
        return self.url.removesuffix("/api")

    @property
    def auth(self) -> str:
        """USER:PASSWORD."""
        return api_auth(self.settings)

    def api(self) -> PrefectApi:
        """Return a session with its API."""
        return open_prefect(self.settings)

    @contextmanager
    def in_this_process(self) -> Generator[None]:
        """Have Prefect, imported in this process, talk to this server."""
        from prefect.settings import (  # noqa: PLC0415  slow to import
            PREFECT_API_AUTH_STRING,
            PREFECT_API_URL,
            temporary_settings,
        )

        with temporary_settings({PREFECT_API_URL: self.url, PREFECT_API_AUTH_STRING: self.auth}):
            yield

    def environment(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment of a process that uses it."""
        return {
            **clean_environment(),
            **client_environment(self.settings),
            "STABLEQUEUE_HOME": str(self.settings.home),
            "STABLEQUEUE_PREFECT_PORT": "0",
            **(extra or {}),
        }


def start_server(
    settings: Settings, log: Path, *, measured: bool = False
) -> subprocess.Popen[bytes]:
    """Start a server of its own process group and wait until it takes requests."""
    environment = {
        **clean_environment(),
        "STABLEQUEUE_HOME": str(settings.home),
        "STABLEQUEUE_PREFECT_PORT": "0",
    }
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "stablequeue.server"],
            env=measuring.measured(environment) if measured else environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )

    def answers() -> bool:
        if process.poll() is not None:
            pytest.fail(f"the Prefect server ended: {log.read_text(errors='replace')[-2000:]}")
        if not (settings.run_folder / "prefect.json").exists():
            return False
        return httpx.get(f"{api_url(settings)}/health", timeout=5).is_success

    try:
        wait_until(answers, timeout_s=START_S, every_s=0.1, why="the Prefect server answers")
    except BaseException:
        stop_process(process)
        raise
    return process


def run_module(environment: Mapping[str, str], *arguments: str, timeout_s: float = 120) -> None:
    """Run Python with these arguments in the project's folder; it must end well."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=project_dir(),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def copied_home(server: PrefectServer, home: Path) -> Settings:
    """Return settings of a new home with a copy of a running server's secrets and database.

    A server starts there without the 10 s of migrations.
    """
    folder = private_folder(private_folder(home) / "prefect")
    shutil.copy2(server.settings.secrets_file, home)
    source = server.settings.home / "prefect" / "prefect.db"
    with (
        closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True)) as old,
        closing(sqlite3.connect(folder / "prefect.db")) as new,
    ):
        old.backup(new)
    shutil.copy2(source.with_name("memo_store.toml"), folder)
    return Settings(home=home, prefect_port=0)


def stop_process(process: subprocess.Popen[bytes], *, timeout_s: float = 20.0) -> int:
    """Ask a process to end, insist after a while, return its exit code."""
    process.terminate()
    try:
        return process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait(timeout_s)


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """Give the test run's Prefect server; it keeps what other tests put there."""
    folder = tmp_path_factory.mktemp("prefect-server")
    settings = Settings(home=folder / "home", prefect_port=0)
    process = start_server(settings, folder / "server.log")
    yield PrefectServer(settings)
    stop_process(process)


@pytest.fixture
def prefect_api(prefect_server: PrefectServer) -> Iterator[PrefectApi]:
    """Give a session with the test run's Prefect server."""
    with prefect_server.api() as api:
        yield api
