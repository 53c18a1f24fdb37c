"""Fixtures for the tests of the Forge engine."""

from collections.abc import AsyncGenerator

import pytest

from stablequeue.engines.forge import Forge, cancelling, collecting, doorman, following, submission
from stablequeue.engines.forge import watching as watching_module
from tests.engines.forge.making import config
from tests.engines.forge.scripted import Scripted, serve


@pytest.fixture
async def server() -> AsyncGenerator[Scripted]:
    async with serve(Scripted()) as scripted:
        yield scripted


@pytest.fixture
async def automatic() -> AsyncGenerator[Scripted]:
    """A server whose jobs end by themselves."""
    async with serve(Scripted(automatic=True)) as scripted:
        yield scripted


@pytest.fixture
async def engine(server: Scripted) -> AsyncGenerator[Forge]:
    async with Forge(config(server)) as opened:
        yield opened


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the pauses whose length is not what a test is about."""
    monkeypatch.setattr(watching_module, "POLL_S", 0.02)
    monkeypatch.setattr(collecting, "POLL_S", 0.02)
    monkeypatch.setattr(collecting, "WATCH_S", 0.05)
    monkeypatch.setattr(collecting, "RECONNECT_S", 0.5)
    monkeypatch.setattr(following, "TWICE_S", 0.02)
    monkeypatch.setattr(submission, "LOOK_EVERY_S", 0.02)
    monkeypatch.setattr(doorman, "LEAKED_AFTER_S", 0.2)
    monkeypatch.setattr(cancelling, "SETTLES_WITHIN_S", 0.5)
