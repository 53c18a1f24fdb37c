"""Running commands in this process, as `stablequeue` runs them."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import yaml

from stablequeue.cli import main
from tests.fakes.civitai import FakeCivitai, serve_civitai
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


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Take back what commands do to our logger, which ends with the process where people run them.

    After one with -q no later test of this process would see a warning.
    """
    ours = logging.getLogger("stablequeue")
    before = ours.level, ours.propagate, ours.handlers[:]
    yield
    ours.setLevel(before[0])
    ours.propagate = before[1]
    ours.handlers[:] = before[2]


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


@dataclass(frozen=True)
class Site:
    """A fake Civitai, and the folders of a library that fetches from it."""

    url: str
    fake: FakeCivitai
    loras: Path
    checkpoints: Path


@pytest.fixture(scope="session")
def _civitai() -> Iterator[tuple[str, FakeCivitai]]:
    fake = FakeCivitai()
    with serve_civitai(fake) as url:
        yield url, fake


@pytest.fixture
def site(
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    _civitai: tuple[str, FakeCivitai],
) -> Site:
    """Give an installation with folders of models, to which the fake is Civitai."""
    url, fake = _civitai
    fresh = FakeCivitai(storage=fake.storage, storage_url=fake.storage_url)
    fake.__dict__.update(fresh.__dict__)
    fake.storage.files.clear()
    fake.reset()
    for name in ("LORA_PATH", "CHECKPOINT_PATH", "CIVITAI_TOKEN", "CIVITAI_API_KEY", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    loras, checkpoints = tmp_path / "loras", tmp_path / "checkpoints"
    for folder in (home, loras, checkpoints):
        folder.mkdir()
    settings = {
        "models": {"folders": {"lora": [str(loras)], "checkpoint": [str(checkpoints)]}},
        "sources": {
            "civitai": {
                "base_url": url,
                "fallback_url": "",
                "hosts": ["127.0.0.1", "localhost"],
                "token_hosts": ["127.0.0.1"],
                "loopback": True,
                "requests_per_s": 1000,
                "burst": 1000,
                "cache_s": 0,
                "missing_s": 0,
            },
            "huggingface": {"base_url": url, "hosts": ["127.0.0.1", "localhost"], "loopback": True},
        },
    }
    (home / "stablequeue.yaml").write_text(yaml.safe_dump(settings))
    return Site(url, fake, loras, checkpoints)
