"""Fixtures for the tests of the ComfyUI engine."""

from collections.abc import AsyncGenerator

import pytest

from stablequeue.engines.comfyui import ComfyUI, following
from stablequeue.servers import ServerConfig
from tests.engines.comfyui.scripted import Scripted, serve


@pytest.fixture
async def server() -> AsyncGenerator[Scripted]:
    async with serve(Scripted()) as scripted:
        yield scripted


def config(server: Scripted, **fields: object) -> ServerConfig:
    basics: dict[str, object] = {"alias": "gpu-a", "type": "comfyui", "url": server.url}
    return ServerConfig.model_validate({**basics, "read_timeout_s": 5, **fields})


@pytest.fixture
async def engine(server: Scripted) -> AsyncGenerator[ComfyUI]:
    async with ComfyUI(config(server)) as opened:
        yield opened


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses whose length is not what a test is about."""
    monkeypatch.setattr(following, "POLL_S", 0.1)
    monkeypatch.setattr(following, "POLL_WITHOUT_PUSH_S", 0.05)
    monkeypatch.setattr(following, "TWICE_S", 0.02)
