"""Runs of which no event told: those created in bulk."""

import asyncio
from typing import Any, cast
from uuid import uuid4

from prefect.client.orchestration import PrefectClient

from stablequeue.worker.mirror import Mirror


class _Answer:
    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self._rows = rows

    def json(self) -> list[dict[str, Any]]:
        return self._rows


class _Prefect:
    """Answers with waiting runs of one pool."""

    def __init__(self, count: int) -> None:
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
