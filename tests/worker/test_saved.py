"""Jobs begin by what servers are, not by what they were, and do not each read it."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from prefect.client.orchestration import PrefectClient

from stablequeue.worker.saved import SAVED_GOOD_FOR_S, Saved


class Prefect:
    """Answers with how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers, self.was_asked = asyncio.Event(), asyncio.Event()
        self.answers.set()

    async def read_block_documents_by_type(self, *_: object, **__: object) -> list[Any]:
        self.asked += 1
        self.was_asked.set()
        asked = self.asked
        await self.answers.wait()
        url = f"http://127.0.0.1:{asked}"
        return [SimpleNamespace(name="gpu", data={"type": "comfyui", "url": url})]


@pytest.fixture
def prefect() -> Prefect:
    return Prefect()


@pytest.fixture
def saved(prefect: Prefect) -> Saved:
    return Saved(cast("PrefectClient", prefect), lambda: None)


async def _url(saved: Saved, *, after: float = 0.0) -> str:
    return str((await saved.blocks(after=after))["gpu"]["url"])


async def test_jobs_that_waited_before_the_reading_share_it(saved: Saved, prefect: Prefect) -> None:
    await asyncio.gather(*(_url(saved, after=time.time() - 1) for _ in range(5)))
    await _url(saved, after=time.time() - 1)
    assert prefect.asked == 1


async def test_a_job_queued_since_the_reading_has_it_read_again(
    saved: Saved, prefect: Prefect
) -> None:
    assert await _url(saved) == "http://127.0.0.1:1"
    assert await _url(saved, after=time.time()) == "http://127.0.0.1:2"
    assert prefect.asked == 2


async def test_a_reading_under_way_is_no_use_to_a_job_queued_since_it_began(
    saved: Saved, prefect: Prefect
) -> None:
    prefect.answers.clear()
    early = asyncio.create_task(_url(saved))
    await prefect.was_asked.wait()
    late = [asyncio.create_task(_url(saved, after=time.time())) for _ in range(3)]
    await asyncio.sleep(0)
    prefect.answers.set()
    assert await early == "http://127.0.0.1:1"
    assert await asyncio.gather(*late) == ["http://127.0.0.1:2"] * 3
    assert prefect.asked == 2


async def test_a_clock_of_prefects_that_is_ahead_costs_a_reading_and_no_more(
    saved: Saved, prefect: Prefect
) -> None:
    for count in (1, 2):
        await _url(saved, after=time.time() + 3600)
        assert prefect.asked == count


async def test_what_was_read_long_ago_is_read_again(
    saved: Saved, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _url(saved)
    later = time.monotonic() + SAVED_GOOD_FOR_S
    monkeypatch.setattr("stablequeue.worker.saved.time.monotonic", lambda: later)
    await _url(saved)
    assert prefect.asked == 2


async def test_what_is_known_is_used_while_prefect_is_away(
    saved: Saved, prefect: Prefect, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _url(saved)

    async def away(*_: object, **__: object) -> list[Any]:
        message = "away"
        raise httpx.ConnectError(message)

    monkeypatch.setattr(prefect, "read_block_documents_by_type", away)
    assert await _url(saved, after=time.time()) == "http://127.0.0.1:1"
