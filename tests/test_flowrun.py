"""A job's run that is ended twice at once: it saw the cancel, and its process is told to end."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.exceptions import Abort

from stablequeue import flowrun
from stablequeue.catalogue import JobState, open_catalogue
from stablequeue.flowrun import Ending, open_run
from stablequeue.server_blocks import config_of
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings
from stablequeue.storage import open_store


class Prefect:
    """Answers the questions after an end only when it is told to."""

    def __init__(self, state: State[Any]) -> None:
        self.state = state
        self.told: list[str] = []
        self.refuses = False
        self.begun, self.asked, self.answers = (asyncio.Event() for _ in range(3))

    async def read_flow_run(self, _: UUID) -> Any:
        if self.refuses:  # asked by the run itself, while it works
            self.refuses = False
        else:
            self.asked.set()
            await self.answers.wait()
        return SimpleNamespace(state=self.state)

    async def set_flow_run_state(self, _: UUID, state: State[Any], **_more: Any) -> Any:
        if self.refuses:
            return SimpleNamespace(status=SetStateStatus.REJECT)
        self.told.append(state.name or "")
        return SimpleNamespace(status=SetStateStatus.ACCEPT)

    async def request(self, *_: Any, **__: Any) -> None:
        """The process on record is forgotten."""

    async def update_flow_run(self, *_: Any, **__: Any) -> None:
        """Name and tags are kept nowhere."""


Begin = Callable[[Prefect], "asyncio.Task[None]"]
RUN = uuid4()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def begin(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Begin:
    async def server(*_: Any) -> ServerConfig:
        return config_of("gpu", {"type": "comfyui", "url": "http://127.0.0.1:9"})

    async def store(*_: Any) -> Any:
        return open_store(settings)

    async def work(prefect: Prefect) -> None:
        async with open_run(
            {"prompt": "a crane"},
            "",
            flow_run_id=RUN,
            deployed_for="gpu",
            settings=settings,
            find_server=server,
            open_store=store,
            ending=Ending(),
        ) as run:
            prefect.begun.set()
            if prefect.state.is_cancelling():
                prefect.refuses = True
                await run.phase("Generating")
            await asyncio.Event().wait()

    def begun(prefect: Prefect) -> "asyncio.Task[None]":
        @asynccontextmanager
        async def client() -> AsyncGenerator[Prefect]:
            yield prefect

        monkeypatch.setattr(flowrun, "get_client", client)
        return asyncio.create_task(work(prefect))

    return begun


async def _ended_again(task: "asyncio.Task[None]", prefect: Prefect) -> str:
    """End what asks Prefect how it ends; return what it leaves with."""
    asked = asyncio.create_task(prefect.asked.wait())
    await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    await asyncio.wait({task}, timeout=0.05)
    assert not task.done(), "it left without having said what became of it"
    prefect.answers.set()
    with pytest.raises(Abort) as left:
        await task
    return str(left.value)


async def test_a_cancelled_job_is_cancelled_in_the_catalogue_too(
    begin: Begin, settings: Settings
) -> None:
    prefect = Prefect(states.Cancelling())
    assert await _ended_again(begin(prefect), prefect) == "cancelled"
    assert prefect.told == ["Cancelled"]
    catalogue = open_catalogue(settings.catalogue)
    assert catalogue.request(str(RUN)).state is JobState.CANCELLED
    catalogue.close()


async def test_a_job_whose_process_ends_is_handed_back(begin: Begin) -> None:
    prefect = Prefect(states.Running())
    task = begin(prefect)
    begun = asyncio.create_task(prefect.begun.wait())
    await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
    task.cancel()
    assert "handed back" in await _ended_again(task, prefect)
    assert prefect.told == ["Handed back"]
