"""A download's run in Prefect, where a person pauses it at a bad moment."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.client.schemas.responses import SetStateStatus
from prefect.states import Running

from stablequeue.fetchrun import Fetch
from stablequeue.models.sources import Offer


class PausedMeanwhile:
    """Prefect's answers when a pause comes just before a state of ours."""

    def __init__(self) -> None:
        self.states: list[State[Any]] = [Running()]
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


async def test_a_pause_that_our_own_state_would_undo_stands() -> None:
    client = PausedMeanwhile()
    fetches: list[Fetch] = []

    async def fetching() -> None:
        offer = Offer(
            source="civitai",
            ident="civitai:1",
            url="https://civitai.com/a",
            name="a.safetensors",
            kind="lora",
        )
        fetch = Fetch(
            offer=offer,
            target=Path("a.safetensors"),
            roots=[],
            kind="lora",
            settings=cast("Any", None),
            client=cast("Any", client),
            api=cast("Any", None),
            flow_run_id=uuid4(),
        )
        fetches.append(fetch)
        await fetch.state("Downloading", "12 %")
        await asyncio.sleep(5)

    with pytest.raises(asyncio.CancelledError):
        await asyncio.create_task(fetching())
    assert [state.name for state in client.forced] == ["Suspended"]
    assert client.states[-1].is_paused()
    assert fetches[0].paused
