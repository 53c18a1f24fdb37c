"""Clients of installations of their own, on the tests' one Prefect server."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from pydantic import SecretStr

from stablequeue.client import Client
from stablequeue.settings import Settings
from tests.support.deployed import deploy
from tests.support.prefect import PrefectServer


@pytest.fixture
def settings(tmp_path: Path, prefect_server: PrefectServer) -> Settings:
    return Settings(
        home=tmp_path / "home",
        prefect_api_url=prefect_server.url,
        prefect_auth=SecretStr(prefect_server.auth),
    )


@pytest.fixture
def queue(settings: Settings) -> Iterator[Client]:
    with Client(settings) as client:
        yield client


@pytest.fixture
def alias(queue: Client) -> str:
    """Give a server that no other test uses."""
    name = f"gpu-{uuid4().hex[:12]}"
    deploy(queue.session.api, name)
    return name


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Client]:
    """Give a client whose Prefect does not run."""
    home = tmp_path / "alone"
    with Client(Settings(home=home, prefect_api_url="http://127.0.0.1:9/api")) as client:
        yield client
