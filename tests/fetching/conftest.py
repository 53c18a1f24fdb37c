"""An installation that fetches models: a Prefect server, a library, fakes of Civitai and the hub.

Of its own, because its workers serve the pools of downloads and of all saved servers: those of
other tests would take its jobs, and it would take theirs.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi
from stablequeue.project import project_dir
from stablequeue.sandbox.models import CHECKPOINTS, LORAS, TEXT_ENCODERS, UNETS, VAES, ModelShelf
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.server_blocks import save_server
from stablequeue.server_settings import client_environment
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings, load
from tests.fakes.civitai import FakeCivitai, serve_civitai
from tests.fakes.huggingface import FakeHuggingFace, serve_huggingface
from tests.fakes.model_files import safetensors
from tests.support.prefect import (
    PrefectServer,
    copied_home,
    run_module,
    start_server,
    stop_process,
)
from tests.support.waiting import wait_until

FOLDERS = {
    "checkpoint": CHECKPOINTS,
    "lora": LORAS,
    "vae": VAES,
    "unet": UNETS,
    "text_encoder": TEXT_ENCODERS,
}
"""Type in our settings, and the folder's name for ComfyUI."""

WITHIN_S = 120.0


@dataclass
class FetchHouse:
    """What a test needs of it."""

    settings: Settings
    environment: dict[str, str]
    models: Path
    civitai: FakeCivitai
    civitai_url: str
    hub: FakeHuggingFace
    hub_url: str
    sandboxes: dict[str, Sandbox]
    log: Path
    workers: list["subprocess.Popen[bytes]"] = field(
        default_factory=list["subprocess.Popen[bytes]"]
    )

    def client(self) -> Client:
        """Return a client of this installation."""
        return Client(self.settings)

    def run(self, *arguments: str) -> None:
        """Run one of our modules to its end, in the project's folder."""
        run_module(self.environment, *arguments)

    def start_worker(self, *pools: str) -> "subprocess.Popen[bytes]":
        """Start a worker, by default of all pools."""
        with self.log.open("ab") as output:
            worker = subprocess.Popen(
                [
                    *(sys.executable, "-m", "stablequeue.worker"),
                    *(pools or ("any", "downloads", *self.sandboxes)),
                ],
                env=self.environment,
                cwd=project_dir(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.workers.append(worker)
        return worker

    def kill_worker(self) -> None:
        """Kill the worker and all its processes, as a power cut would."""
        worker = self.workers.pop()
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()

    def has_worker(self) -> None:
        """Make sure that exactly one worker lives."""
        while len(self.workers) > 1:
            stop_process(self.workers.pop())
        if not self.workers or self.workers[-1].poll() is not None:
            self.workers.clear()
            self.start_worker()

    def offer(self, size: int = 40_000, **more: Any) -> dict[str, Any]:
        """Put a new file on the fake Civitai; ids and name are new unless they are given."""
        number = uuid4().int % 1_000_000 + 1_000
        defaults: dict[str, Any] = {
            "model_id": number,
            "version_id": number + 1_000_000,
            "file_id": number + 2_000_000,
            "name": f"model-{number}.safetensors",
        }
        known = {**defaults, **more}
        file = self.civitai.add_file(safetensors(size, seed=number), **known)
        return {**file, "version_id": known["version_id"], "model_id": known["model_id"]}

    def bytes_of(self, file: dict[str, Any]) -> bytes:
        """Return the bytes of a file on the fake Civitai."""
        return self.civitai.storage.files[file["key"]].data

    def offer_on_hub(self, path: str, size: int = 40_000) -> tuple[str, bytes]:
        """Put a new file into a repository of the fake hub; return its address and bytes."""
        number = uuid4().int % 1_000_000 + 1_000
        repo, data = f"acme/model-{number}", safetensors(size, seed=number)
        self.hub.add(repo, path, data)
        return f"{self.hub_url}/{repo}/resolve/main/{path}", data

    def downloads_from_hub(self, path: str) -> int:
        """Return how often a file was asked for at the hub's storage."""
        return sum(seen.path.endswith(f"/{path}") for seen in self.hub.storage.seen)

    def downloads_of(self, file: dict[str, Any]) -> int:
        """Return how often a file was asked for at the storage."""
        return sum(seen.path == f"/{file['key']}" for seen in self.civitai.storage.seen)


@pytest.fixture(scope="session")
def fetch_house(
    prefect_server: PrefectServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[FetchHouse]:
    """Give the installation; its worker serves every pool."""
    folder = tmp_path_factory.mktemp("fetch-house")
    copied = copied_home(prefect_server, folder / "home")
    server = start_server(copied, folder / "prefect.log")
    models = folder / "models"
    for name in FOLDERS.values():
        (models / name).mkdir(parents=True)
    (models / CHECKPOINTS / "base.safetensors").write_bytes(safetensors(20_000))
    shelf = ModelShelf(folders={name: models / name for name in FOLDERS.values()})
    civitai, hub = FakeCivitai(), FakeHuggingFace()
    try:
        with (
            serve_civitai(civitai) as url,
            serve_huggingface(hub) as hub_url,
            serve_sandbox("comfyui", name="comfy", models=shelf) as comfy,
            serve_sandbox("forge", name="forge", models=shelf) as forge,
        ):
            _write_settings(copied.home, models, url, hub_url)
            settings = load({"home": str(copied.home), "prefect_port": 0})
            house = FetchHouse(
                settings=settings,
                environment=_environment(settings),
                models=models,
                civitai=civitai,
                civitai_url=url,
                hub=hub,
                hub_url=hub_url,
                sandboxes={"comfy": comfy, "forge": forge},
                log=folder / "worker.log",
            )
            house.run("-m", "deployments")
            with house.client() as client:
                for alias, sandbox in house.sandboxes.items():
                    save_server(client.session.api, _server(alias, sandbox))
            house.run("-m", "deployments")
            house.start_worker()
            yield house
            for worker in house.workers:
                if worker.poll() is None:
                    stop_process(worker)
    finally:
        stop_process(server)


def _server(alias: str, sandbox: Sandbox) -> ServerConfig:
    return ServerConfig.model_validate(
        {
            "alias": alias,
            "type": "comfyui" if alias == "comfy" else "forge",
            "url": sandbox.url,
            "models_from": "same",
        }
    )


def _write_settings(home: Path, models: Path, civitai: str, hub: str) -> None:
    huggingface = {
        "base_url": hub,
        "hosts": ["127.0.0.1", "localhost"],
        "token_hosts": ["127.0.0.1"],
        "loopback": True,
    }
    source = {
        "base_url": civitai,
        "fallback_url": "",
        "hosts": ["127.0.0.1", "localhost"],
        "token_hosts": ["127.0.0.1"],
        "loopback": True,
        "requests_per_s": 200,
        "burst": 100,
        "missing_s": 0,
        "cache_s": 0,
    }
    data = {
        "models": {
            "folders": {kind: [str(models / name)] for kind, name in FOLDERS.items()},
        },
        "sources": {"civitai": source, "huggingface": huggingface},
    }
    (home / "stablequeue.yaml").write_text(yaml.safe_dump(data), encoding="utf-8")


def _environment(settings: Settings) -> dict[str, str]:
    """Return a worker's; its coverage is not measured, the tests of the worker do that."""
    path = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return {
        **path,
        **client_environment(settings),
        "STABLEQUEUE_HOME": str(settings.home),
        "STABLEQUEUE_PREFECT_PORT": "0",
    }


@pytest.fixture
def queue(fetch_house: FetchHouse) -> Iterator[Client]:
    """Give a client of the house, which has one worker and nothing left to do."""
    fetch_house.has_worker()
    with fetch_house.client() as client:
        yield client
        fetch_house.civitai.reset()
        for sandbox in fetch_house.sandboxes.values():
            sandbox.faults.clear()
            sandbox.config.step_seconds = 0.0
        for alias in (*fetch_house.sandboxes, "any"):
            for change in client.cancel_all(server=alias):
                client.wait(change.job_id, timeout=60)


@pytest.fixture
def api(queue: Client) -> PrefectApi:
    """Give Prefect's API as the client uses it."""
    return queue.session.api


__all__ = ["WITHIN_S", "FetchHouse", "wait_until"]
