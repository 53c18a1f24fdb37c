"""Sandboxes set up as the recorded server."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from stablequeue.sandbox import Sandbox, SandboxConfig
from tests.sandbox.forge.recorded import HASHES, recorded_shelf


class Peer:
    """A running sandbox and a client of it."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.folder = sandbox.config.home / "forge"
        self.client = httpx.Client(base_url=sandbox.url, trust_env=False, timeout=30)

    def post(self, path: str, body: Any = None, **options: Any) -> httpx.Response:
        """POST `body` as JSON; None sends no body."""
        if body is not None:
            options["json"] = body
        return self.client.post(path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        """GET `path`."""
        return self.client.get(path, **options)

    def progress(self, task: str, **body: Any) -> dict[str, Any]:
        """Ask for a task's progress."""
        told = {"id_task": task, "live_preview": False, **body}
        return self.post("/internal/progress", told).json()

    def journal(self, what: str) -> list[dict[str, Any]]:
        """Return what the sandbox noted."""
        return [entry for entry in self.sandbox.state.journal if entry["what"] == what]


StartPeer = Callable[..., Peer]


@pytest.fixture(scope="session")
def session_starter(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPeer]:
    """Start sandboxes that live to the end."""
    with ExitStack() as stack:
        yield _starter(stack, lambda: tmp_path_factory.mktemp("forge"))


@pytest.fixture
def start_peer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPeer]:
    """Start sandboxes that live for a test: `start_peer(step=0.01, options={...}, **forge)`."""
    with ExitStack() as stack:
        yield _starter(stack, lambda: tmp_path_factory.mktemp("forge"))


def _starter(stack: ExitStack, folder: Callable[[], Path]) -> StartPeer:
    # `options`: the content of `config.json`, on a server that has hashed both checkpoints.
    def start(
        *,
        step: float = 0.0,
        load_seconds: float = 0.0,
        options: dict[str, Any] | None = None,
        models: Any = None,
        **forge: Any,
    ) -> Peer:
        home = folder()
        if options is not None:
            (home / "forge").mkdir()
            (home / "forge" / "config.json").write_text(json.dumps(options), encoding="utf-8")
            (home / "forge" / "cache.json").write_text(json.dumps([*HASHES.values()]))
        config = SandboxConfig(
            home=home,
            protocol="forge",
            step_seconds=step,
            models=recorded_shelf(load_seconds) if models is None else models,
            forge={"cpu": True, **forge},
        )
        peer = Peer(stack.enter_context(Sandbox(config)))
        stack.callback(peer.client.close)
        return peer

    return start


@pytest.fixture
def peer(start_peer: StartPeer) -> Peer:
    """A fresh sandbox without waits."""
    return start_peer()


@pytest.fixture(scope="session")
def shared_peer(session_starter: StartPeer) -> Peer:
    """A sandbox for jobs that leave nothing behind."""
    return session_starter()


@pytest.fixture(scope="session")
def listing_peer(session_starter: StartPeer) -> Peer:
    """A sandbox that made one picture and is only read from then on."""
    peer = session_starter()
    answer = peer.post("/sdapi/v1/txt2img", {"steps": 1, "width": 64, "height": 64})
    assert answer.status_code == 200
    return peer
