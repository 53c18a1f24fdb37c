"""A job below Prefect: real catalogue, real store, a real server of either protocol."""

import shutil
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from stablequeue.catalogue import Catalogue, open_catalogue
from stablequeue.ids import new_job_id
from stablequeue.pipeline.accept import begin
from stablequeue.pipeline.job import Job, open_job
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings
from stablequeue.storage import Store, open_store
from tests.pipeline.scripted import Scripted

SMALL: dict[str, Any] = {
    "prompt": "a harbour",
    "checkpoint": "sandbox-sd15.safetensors",
    "width": 64,
    "height": 64,
    "steps": 2,
}

OpenJob = Callable[..., AbstractAsyncContextManager[Job]]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give the settings of an installation of its own."""
    home = tmp_path / "home"
    home.mkdir()
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    return Settings(home=home, input_folders=[inputs])


@pytest.fixture(scope="session")
def made_catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an empty catalogue to copy: making one takes a while."""
    path = tmp_path_factory.mktemp("made") / "catalogue.db"
    open_catalogue(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def catalogue(settings: Settings, made_catalogue: Path) -> Iterator[Catalogue]:
    """Give its catalogue."""
    shutil.copy(made_catalogue, settings.home / "catalogue.db")
    catalogue = open_catalogue(settings.catalogue)
    yield catalogue
    catalogue.close()


@pytest.fixture(params=["comfyui", "forge"])
def protocol(request: pytest.FixtureRequest) -> str:
    """Give each protocol in turn."""
    return request.param


@pytest.fixture
def sandbox(protocol: str) -> Iterator[Sandbox]:
    """Give a server of this protocol."""
    with serve_sandbox(protocol) as sandbox:
        yield sandbox


def config_of(sandbox: Sandbox, alias: str = "peer", **more: Any) -> ServerConfig:
    """Return a sandbox as a saved server."""
    kind = sandbox.config.protocol
    return ServerConfig.model_validate({"alias": alias, "type": kind, "url": sandbox.url, **more})


@pytest.fixture
def open_for(settings: Settings, catalogue: Catalogue) -> OpenJob:
    """Give a function that opens a job on a server, as a flow run does."""

    @asynccontextmanager
    async def opened(server: ServerConfig, job_id: str = "", **fields: Any) -> AsyncGenerator[Job]:
        stored = begin(
            {**SMALL, **fields},
            settings=settings,
            catalogue=catalogue,
            job_id=job_id or new_job_id(),
            server=server.alias,
            flow_run_id="run",
        )
        store = open_store(settings)
        async with open_job(
            stored, server, settings=settings, catalogue=catalogue, store=store
        ) as job:
            yield job

    return opened


@dataclass
class Bench:
    """Jobs of one installation on an engine that does what it is told."""

    settings: Settings
    catalogue: Catalogue
    engine: Scripted
    alias: str = "gpu-a"

    def job(self, job_id: str = "", *, store: Store | None = None, **fields: Any) -> Job:
        """Begin a job, or begin it again, as a new process would."""
        stored = begin(
            {**SMALL, **fields},
            settings=self.settings,
            catalogue=self.catalogue,
            job_id=job_id or new_job_id(),
            server=self.alias,
            flow_run_id="run",
        )
        job = Job(
            stored=stored,
            server=self.engine.server.model_copy(update={"alias": self.alias}),
            settings=self.settings,
            catalogue=self.catalogue,
            store=store or open_store(self.settings),
            engine=self.engine,
        )
        job.info, job.resolution = self.engine.info, self.engine.resolution
        return job

    def states(self, job: Job) -> list[str]:
        """Return picture, number and state of each of its attempts."""
        return [f"{a.index}-{a.attempt} {a.state}" for a in self.catalogue.attempts(job.id)]


@pytest.fixture
def bench(settings: Settings, catalogue: Catalogue) -> Bench:
    """Give jobs on a scripted engine."""
    fields = {"alias": "gpu-a", "type": "comfyui", "url": "http://127.0.0.1:1", "card": "host/0"}
    return Bench(settings, catalogue, Scripted(ServerConfig.model_validate(fields)))
