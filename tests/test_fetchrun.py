"""A download's run in Prefect, where a person pauses it at a bad moment."""

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect import states
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import SetStateStatus

from stablequeue import fetches
from stablequeue.fetchrun import Fetch
from stablequeue.models.downloads import Progress
from stablequeue.models.sources import Offer


class PausedMeanwhile:
    """Prefect's answers when a pause comes just before a state of ours."""

    def __init__(self) -> None:
        self.states: list[State[Any]] = [states.Running()]
        self.forced: list[State[Any]] = []

    async def read_flow_run(self, _: object) -> Any:
        return SimpleNamespace(state=self.states[-1])

    async def read_flow_run_states(self, _: object) -> list[State[Any]]:
        return self.states

    async def set_flow_run_state(self, _: object, state: State[Any], *, force: bool = False) -> Any:
        if force:
            self.forced.append(state)
        else:
            self.states.append(State(type=StateType.PAUSED, name="Suspended"))
        self.states.append(state)
        return SimpleNamespace(status=SetStateStatus.ACCEPT)


class Undisturbed:
    """Prefect's answers to a run that nobody disturbs."""

    async def read_flow_run(self, _: object) -> Any:
        return SimpleNamespace(state=states.Running())

    async def read_flow_run_states(self, _: object) -> list[State[Any]]:
        return []

    async def set_flow_run_state(self, *_: object) -> Any:
        return SimpleNamespace(status=SetStateStatus.ACCEPT)

    async def create_artifact(self, _: object) -> Any:
        return SimpleNamespace(id=uuid4())


def fetch_of(client: object) -> Fetch:
    offer = Offer(
        source="civitai",
        ident="civitai:1",
        url="https://civitai.com/a",
        name="a.safetensors",
        kind="lora",
    )
    return Fetch(
        offer=offer,
        target=Path("a.safetensors"),
        roots=[],
        kind="lora",
        settings=cast("Any", None),
        client=cast("Any", client),
        api=cast("Any", None),
        flow_run_id=uuid4(),
    )


async def test_a_pause_that_our_own_state_would_undo_stands() -> None:
    client = PausedMeanwhile()
    begun: list[Fetch] = []

    async def fetching() -> None:
        fetch = fetch_of(client)
        begun.append(fetch)
        await fetch.state("Downloading", "12 %")
        await asyncio.sleep(5)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(fetching())
    assert [state.name for state in client.forced] == ["Suspended"]
    assert client.states[-1].is_paused()
    assert begun[0].paused


async def test_those_who_wait_are_told_nothing_more_once_the_file_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A late "61 %" put jobs to sleep again that had been woken: for four minutes.
    telling, may_end = threading.Event(), threading.Event()
    said: list[str] = []

    def tell(_api: object, _key: str, message: str) -> None:
        telling.set()
        assert may_end.wait(10)
        said.append(message)

    monkeypatch.setattr(fetches, "tell", tell)
    fetch = fetch_of(Undisturbed())
    fetch.progressed(Progress(received=61, total=100, bytes_per_s=1.0))
    async with fetch.shown():
        assert await asyncio.to_thread(telling.wait, 10)
        asyncio.get_running_loop().call_later(0.1, may_end.set)
    assert len(said) == 1
