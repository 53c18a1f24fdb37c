"""Running commands in this process, as `stablequeue` runs them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from stablequeue.cli import main
from tests.support.deployed import deploy, register_server_block
from tests.support.prefect import PrefectServer

NOWHERE = "http://127.0.0.1:9/api"
"""A Prefect that does not run."""


@dataclass(frozen=True)
class Ran:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Its output, which must be one JSON document."""
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give an installation of this test's own, without Prefect."""
    folder = tmp_path / "home"
    monkeypatch.setenv("STABLEQUEUE_HOME", str(folder))
    monkeypatch.setenv("STABLEQUEUE_PREFECT_API_URL", NOWHERE)
    return folder


@pytest.fixture
def run(home: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command."""
    del home

    def call(*arguments: object) -> Ran:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(code, captured.out, captured.err)

    return call


@pytest.fixture
def online(home: Path, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Connect the installation to the tests' Prefect server; give a server of this test's own."""
    del home
    monkeypatch.setenv("STABLEQUEUE_PREFECT_API_URL", prefect_server.url)
    monkeypatch.setenv("STABLEQUEUE_PREFECT_AUTH", prefect_server.auth)
    alias = f"gpu-{uuid4().hex[:12]}"
    with prefect_server.api() as api:
        register_server_block(api)
        deploy(api, alias)
    return alias
