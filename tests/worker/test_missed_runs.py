"""Runs of which no event told: those created in bulk."""

import asyncio
from typing import Any, cast
from uuid import uuid4

import pytest
from prefect.client.orchestration import PrefectClient

from stablequeue.worker import mirror as mirror_module
from stablequeue.worker.mirror import Mirror


class _Answer:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def json(self) -> list[dict[str, Any]]:
        return self._rows


class _Prefect:
    """Answers with waiting runs of one pool."""

    def __init__(self, count: int, *, takes_s: float = 0.0) -> None:
        self.committed = True
        self.takes_s = takes_s
        self.asked = 0
        self.rows = [
            {
                "id": str(uuid4()),
                "work_pool_name": "any",
                "state_type": "SCHEDULED",
                "expected_start_time": "2026-11-21T00:00:00Z",
                "created": "2026-11-21T00:00:00Z",
            }
            for _ in range(count)
        ]

    async def request(self, method: str, path: str, *, json: dict[str, Any]) -> _Answer:
        assert (method, path) == ("POST", "/flow_runs/filter")
        self.asked += 1
        await asyncio.sleep(self.takes_s)
        if not self.committed:
            return _Answer([])
        wanted = json["flow_runs"].get("id")
        return _Answer([row for row in self.rows if not wanted or row["id"] in wanted["any_"]])


async def test_a_run_that_was_missed_makes_all_of_them_known() -> None:
    prefect = _Prefect(5)
    mirror = Mirror(cast("PrefectClient", prefect), lambda: None, lambda _pool: None)
    mirror._pools = {"any": str(uuid4())}  # pyright: ignore[reportPrivateUsage]  follows nothing
    mirror.missed([prefect.rows[0]["id"]])
    async with asyncio.timeout(5):
        while len(list(mirror.runs)) < len(prefect.rows):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
    await mirror.close()


async def test_a_run_told_of_before_it_is_committed_is_looked_for_again() -> None:
    prefect = _Prefect(2)
    prefect.committed = False
    mirror = Mirror(cast("PrefectClient", prefect), lambda: None, lambda _pool: None)
    mirror._pools = {"any": str(uuid4())}  # pyright: ignore[reportPrivateUsage]  follows nothing
    mirror.look_at([row["id"] for row in prefect.rows])
    async with asyncio.timeout(5):
        while prefect.asked < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        assert not list(mirror.runs)
        prefect.committed = True
        while len(list(mirror.runs)) < 2:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0)
        while mirror._not_there:  # noqa: ASYNC110  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0)
    assert mirror._again is None, "what was found is not looked for any more"  # pyright: ignore[reportPrivateUsage]
    await mirror.close()


async def test_a_run_that_never_comes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mirror_module, "_GIVEN_UP_AFTER_S", 0.2)
    prefect = _Prefect(1)
    prefect.committed = False
    mirror = Mirror(cast("PrefectClient", prefect), lambda: None, lambda _pool: None)
    mirror._pools = {"any": str(uuid4())}  # pyright: ignore[reportPrivateUsage]  follows nothing
    mirror.look_at([prefect.rows[0]["id"]])
    async with asyncio.timeout(10):
        while mirror._not_there or not prefect.asked:  # noqa: ASYNC110  # pyright: ignore[reportPrivateUsage]
            await asyncio.sleep(0.01)
    assert 1 < prefect.asked < 20
    await mirror.close()


async def test_what_is_told_in_quick_succession_is_read_together() -> None:
    prefect = _Prefect(100, takes_s=0.02)
    mirror = Mirror(cast("PrefectClient", prefect), lambda: None, lambda _pool: None)
    mirror._pools = {"any": str(uuid4())}  # pyright: ignore[reportPrivateUsage]  follows nothing
    begun = asyncio.get_running_loop().time()
    for row in prefect.rows:  # one every 5 ms: read as fast as Prefect answers, 25 times
        mirror.look_at([row["id"]])
        await asyncio.sleep(0.005)
    async with asyncio.timeout(10):
        while len(list(mirror.runs)) < len(prefect.rows):  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.005)
    passed = asyncio.get_running_loop().time() - begun
    await mirror.close()
    assert prefect.asked <= 2 + passed / prefect.takes_s / 3, "most of the time Prefect has peace"
