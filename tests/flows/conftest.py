"""A whole installation on the tests' Prefect server: sandboxes, deployments, one worker."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydantic import SecretStr

from stablequeue.catalogue import Catalogue, open_catalogue
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi
from stablequeue.project import project_dir
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.server_blocks import save_server
from stablequeue.server_settings import client_environment
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings
from tests.support.measuring import measured
from tests.support.prefect import PrefectServer, run_module, stop_process
from tests.support.waiting import wait_until

CHECKPOINT = "sandbox-sd15.safetensors"
RUNS_AT_ONCE = 3


@dataclass
class House:
    """What a test of the whole needs."""

    settings: Settings
    server: PrefectServer
    environment: dict[str, str]
    sandboxes: dict[str, Sandbox]
    log: Path
    workers: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def client(self) -> Client:
        """Return a client of this installation."""
        return Client(self.settings)

    def catalogue(self) -> Catalogue:
        """Return its catalogue."""
        return open_catalogue(self.settings.catalogue)

    def run(self, *arguments: str) -> None:
        """Run one of our modules to its end, in the project's folder."""
        run_module(self.environment, *arguments)

    def start_worker(self) -> "subprocess.Popen[bytes]":
        """Start the worker of all pools."""
        with self.log.open("ab") as output:
            worker = subprocess.Popen(
                [sys.executable, "-m", "stablequeue.worker", "any", *self.sandboxes],
                env=measured(self.environment),
                cwd=project_dir(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def calm_down(self, client: Client) -> None:
        """Leave nothing behind for the next test: neither faults nor jobs that run."""
        for sandbox in self.sandboxes.values():
            sandbox.faults.clear()
            sandbox.config.step_seconds = 0.0
            sandbox.start()
        left: list[str] = []
        for alias in (*self.sandboxes, "any"):  # other tests' jobs are on this Prefect server too
            left += [change.job_id for change in client.cancel_all(server=alias)]
        for job_id in left:
            client.wait(job_id, timeout=60)

    def has_worker(self) -> None:
        """Make sure that a worker lives: tests may kill it, and it may have died by itself."""
        worker = self.workers[-1]
        if worker.poll() is None:
            return
        if worker.returncode > 0:
            pytest.fail(f"the worker ended: {self.log.read_text(errors='replace')[-2000:]}")
        self.start_worker()


def _environment(settings: Settings, auth: str) -> dict[str, str]:
    path = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **path,
        **client_environment(settings),
        "STABLEQUEUE_HOME": str(settings.home),
        "STABLEQUEUE_PREFECT_API_URL": settings.prefect_api_url,
        "STABLEQUEUE_PREFECT_AUTH": auth,
        "STABLEQUEUE_INPUT_FOLDERS": os.pathsep.join(map(str, settings.input_folders)),
    }


@pytest.fixture(scope="session")
def house(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Give the installation; its worker takes runs of the pools any, comfy and forge."""
    folder = tmp_path_factory.mktemp("house")
    settings = Settings(
        home=folder / "home",
        prefect_api_url=prefect_server.url,
        prefect_auth=SecretStr(prefect_server.auth),
        input_folders=[folder / "inputs"],
    )
    (folder / "inputs").mkdir()
    settings.home.mkdir()
    with (
        serve_sandbox("comfyui", name="comfy") as comfy,
        serve_sandbox("forge", name="forge") as forge,
    ):
        house = House(
            settings=settings,
            server=prefect_server,
            environment=_environment(settings, prefect_server.auth),
            sandboxes={"comfy": comfy, "forge": forge},
            log=folder / "worker.log",
        )
        house.run("-m", "deployments")
        with house.client() as client:
            for alias, sandbox in house.sandboxes.items():
                kind = "comfyui" if alias == "comfy" else alias
                config = {"alias": alias, "type": kind, "url": sandbox.url, "stall_after_s": 600}
                save_server(client.session.api, ServerConfig.model_validate(config))
        house.run("-m", "deployments", "--limit", str(RUNS_AT_ONCE))
        house.catalogue().close()
        house.start_worker()
        yield house
        for worker in house.workers:
            if worker.poll() is None:
                stop_process(worker)


@pytest.fixture
def queue(house: House) -> Iterator[Client]:
    """Give a client of the house, which has a worker."""
    house.has_worker()
    with house.client() as client:
        yield client
        house.calm_down(client)


@pytest.fixture
def api(queue: Client) -> PrefectApi:
    """Give Prefect's API as the client uses it."""
    return queue.session.api


@pytest.fixture
def catalogue(house: House) -> Iterator[Catalogue]:
    """Give the house's catalogue."""
    catalogue = house.catalogue()
    yield catalogue
    catalogue.close()


__all__ = ["CHECKPOINT", "House", "wait_until"]
