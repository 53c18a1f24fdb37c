"""An installation that is measured: ours, or Prefect's own worker with the same flow and server."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import httpx

from benchmarks.engine import Engine
from benchmarks.house import (
    House,
    cpu_by_module,
    free_port,
    memory_by_module,
    until,
    used_kib,
)
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.project import project_dir
from stablequeue.settings import Settings, load
from stablequeue.views import ViewState

COMFY, FORGE = "sandbox", "sandbox-forge"
"""The one sandbox that everything is measured with, in its two protocols."""


class Site(Protocol):
    """What the measurements need of an installation."""

    def client(self) -> Client:
        """Return a client of it."""
        ...

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of its processes and those they waited for, by module."""
        ...

    def memory_mb(self) -> dict[str, float]:
        """Return the proportional set size of its processes, in MiB, by module."""
        ...

    def database_kib(self) -> float:
        """Return how much of Prefect's database is in use, in KiB."""
        ...


@contextmanager
def ours(folder: Path, engine: Engine) -> Generator[House]:
    """Run `stablequeue up` with the engine as its only server."""
    house = House(folder)
    with house.running():
        for alias, kind in ((COMFY, "comfyui"), (FORGE, "forge")):
            about = ("--type", kind, "--url", engine.url, "--card", "bench/0")
            house.command("servers", "add", alias, "--update", *about, "--quiet")
        _settle(house)
        yield house


def _settle(house: House) -> None:
    """Wait until pools and deployments are made: what that takes is no cost of doing nothing."""
    calm = 0
    while calm < 5:
        time.sleep(1)
        calm = 0 if any("deployments" in name for name in house.memory_mb()) else calm + 1


class Stock:
    """Prefect as it comes: its server and its process worker, each with its default settings.

    Args:
        home: Its folder, empty at first.
        engine: Its server.
    """

    def __init__(self, home: Path, engine: Engine) -> None:
        self._home = home
        self._engine = engine
        self._port = free_port()
        self._url = f"http://127.0.0.1:{self._port}/api"
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "STABLEQUEUE_"))
        }
        self._environment = kept | {
            "PREFECT_HOME": str(home / "prefect"),
            "PREFECT_API_URL": self._url,
            "STABLEQUEUE_HOME": str(home),
            "STABLEQUEUE_PREFECT_API_URL": self._url,
        }
        self._server: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None

    @property
    def _settings(self) -> Settings:
        return load({"home": str(self._home), "prefect_api_url": self._url})

    def client(self) -> Client:
        """Return a client of it."""
        return Client(self._settings)

    @contextmanager
    def running(self) -> Generator[None]:
        """Run the server, with pools of type process, for the length of the block."""
        (self._home / "prefect").mkdir(parents=True)
        self._server = self._start("prefect", "server", "start", "--port", str(self._port))
        try:
            until(self._answers, within_s=180, every_s=0.5)
            for pool in (COMFY, FORGE):
                self._run("prefect", "work-pool", "create", pool, "--type", "process")
            self._run("deployments", "--sandbox-url", self._engine.url)
            yield
        finally:
            self._stop(self._server)

    @contextmanager
    def worker(self, *, tuned: bool) -> Generator[None]:
        """Run the worker of the pools for the length of the block.

        Args:
            tuned: Poll every second, start Python once a run, four runs at once.
        """
        with open_prefect(self._settings) as api:
            for pool in (COMFY, FORGE) if tuned else ():
                _tune(api, pool)
        more = {"PREFECT_WORKER_QUERY_SECONDS": "1"} if tuned else {}
        command = ("prefect", "worker", "start", "--type", "process", "--pool", COMFY)
        self._worker = self._start(*command, variables=more)
        try:
            time.sleep(8)
            yield
        finally:
            self._stop(self._worker)
            self._worker = None

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of its processes and those they waited for."""
        return cpu_by_module(self._roots())

    def memory_mb(self) -> dict[str, float]:
        """Return the proportional set size of its processes, in MiB."""
        return memory_by_module(self._roots())

    def database_kib(self) -> float:
        """Return how much of Prefect's database is in use, in KiB."""
        return used_kib(self._home / "prefect" / "prefect.db")

    def _roots(self) -> dict[str, int]:
        named = {"server": self._server, "worker": self._worker}
        return {name: process.pid for name, process in named.items() if process is not None}

    def _answers(self) -> bool:
        with suppress(httpx.HTTPError):
            return httpx.get(f"{self._url}/health", timeout=5).is_success
        return False

    def _start(
        self, *arguments: str, variables: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        with (self._home.parent / "stock.txt").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, "-m", *arguments],
                env={**self._environment, **(variables or {})},
                cwd=project_dir(),
                stdout=output,
                stderr=output,
            )

    def _run(self, *arguments: str) -> None:
        process = self._start(*arguments)
        if process.wait(180):
            message = f"{' '.join(arguments)} failed; see {self._home.parent / 'stock.txt'}"
            raise RuntimeError(message)

    @staticmethod
    def _stop(process: subprocess.Popen[bytes]) -> None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


def _tune(api: PrefectApi, pool: str) -> None:
    template: dict[str, Any] = api.pool(pool).raw["base_job_template"]
    fields = template["variables"]["properties"]
    fields["command"]["default"] = f"{sys.executable} -m prefect.engine"
    fields["working_dir"]["default"] = str(project_dir())
    change = {"base_job_template": template, "concurrency_limit": 4}
    api.call("PATCH", f"work_pools/{pool}", change)


def finish(client: Client, jobs: Sequence[str], *, within_s: float = 300) -> None:
    """Wait until jobs have ended.

    Raises:
        RuntimeError: One did not end well.
    """
    for job_id in jobs:
        job = client.wait(job_id, timeout=within_s)
        if job.state is not ViewState.COMPLETED:
            message = f"{job_id}: {job.state} {job.message}"
            raise RuntimeError(message)
