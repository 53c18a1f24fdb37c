"""A job below Prefect: real catalogue, real store, a real server of either protocol."""

from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
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
from stablequeue.storage import open_store

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


@pytest.fixture
def catalogue(settings: Settings) -> Iterator[Catalogue]:
    """Give its catalogue."""
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
