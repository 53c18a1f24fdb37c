"""The mirror of waiting runs against a real Prefect server."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from prefect.client.orchestration import get_client
from prefect.events import Event, Resource

from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, StateType
from stablequeue.worker.mirror import Mirror
from tests.support.prefect import PrefectServer
from tests.support.prefect_rows import make_deployment

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(120)]
WITHIN_S = 30.0


class Watched:
    """A mirror of one pool, and what it said."""

    def __init__(self, mirror: Mirror) -> None:
        self.mirror = mirror
        self.pools: list[str] = []

    @property
    def ids(self) -> set[str]:
        return {seen.waiting.run_id for seen in self.mirror.runs}

    async def until(self, condition: Callable[[], bool], why: str) -> None:
        async with asyncio.timeout(WITHIN_S):
            while not condition():  # noqa: ASYNC110 - what is waited for is told by nobody else
                await asyncio.sleep(0.02)
        assert condition(), why


@asynccontextmanager
async def watching(server: PrefectServer, target: Deployment) -> AsyncGenerator[Watched]:
    """Mirror the pool of a deployment."""
    with server.in_this_process():
        async with get_client() as client:
            pools: list[str] = []
            mirror = Mirror(client, lambda: None, pools.append)
            watched = Watched(mirror)
            watched.pools = pools
            pool = await client.read_work_pool(target.pool)
            mirror.serve({pool.name: str(pool.id)})
            try:
                yield watched
            finally:
                await mirror.close()


def ask(api: PrefectApi, target: Deployment, **more: Any) -> str:
    request = {"prompt": "x", "checkpoint": "dir/Big One.safetensors", "tier": "bulk"}
    new = NewRun(parameters={"request": request, "job_id": "j"}, **more)
    return api.create_run(target, new).id


async def test_it_follows_runs_that_come_move_change_and_go(
    prefect_server: PrefectServer, prefect_api: PrefectApi
) -> None:
    target = await asyncio.to_thread(make_deployment, prefect_api)
    call = asyncio.to_thread
    old = await call(ask, prefect_api, target, tags=("tier:interactive", "pinned"))
    async with watching(prefect_server, target) as watched:
        await watched.until(lambda: old in watched.ids, "what waited before is there")
        seen = watched.mirror.get(old)
        assert seen is not None
        assert (seen.waiting.tier, seen.waiting.pinned) == (0, True)
        assert seen.waiting.models == ("big one",)
        assert seen.waiting.job_id == "j"
        flow_run = seen.flow_run()
        assert flow_run is not None
        assert str(flow_run.id) == old

        new = await call(ask, prefect_api, target)
        await watched.until(lambda: new in watched.ids, "a new one is told by an event")
        found = watched.mirror.get(new)
        assert found is not None
        assert found.waiting.tier == 2, "the request's tier counts where there is no tag"

        later = datetime.now(UTC) + timedelta(hours=1)
        await call(prefect_api.reschedule, new, scheduled_time=later)

        def moved() -> bool:
            now = watched.mirror.get(new)
            return now is not None and abs(now.waiting.place - later.timestamp()) < 1

        await watched.until(moved, "its place has changed")
        watched.mirror.overtaken([new, "nobody"])
        again = watched.mirror.get(new)
        assert again is not None
        assert again.waiting.overtaken == 1

        await call(prefect_api.set_state, old, StateType.PENDING)
        await call(prefect_api.cancel, new)
        await watched.until(lambda: not watched.ids, "both are gone")

        await call(prefect_api.pause_pool, target.pool)
        await watched.until(lambda: bool(watched.pools), "a paused pool is told")


async def test_a_missed_event_is_noticed_by_counting(
    prefect_server: PrefectServer, prefect_api: PrefectApi
) -> None:
    target = await asyncio.to_thread(make_deployment, prefect_api)
    run = await asyncio.to_thread(ask, prefect_api, target)
    async with watching(prefect_server, target) as watched:
        await watched.until(lambda: run in watched.ids, "it is read at the start")
        watched.mirror.forget(run)
        await watched.mirror.check()
        assert run not in watched.ids, "once may be a matter of time"
        await watched.mirror.check()
        assert run in watched.ids


class SlowToCommit:
    """Prefect's answers to a read that comes between an event and the commit of its change."""

    def __init__(self, *rows: dict[str, Any]) -> None:
        self.rows = list(rows)

    async def request(self, _method: str, _path: str, **_: object) -> Any:
        row = self.rows.pop(0) if len(self.rows) > 1 else self.rows[0]
        return SimpleNamespace(json=lambda: [row])


def row(name: str, place: datetime, told: datetime) -> dict[str, Any]:
    state = {"id": name, "name": name, "timestamp": told.isoformat()}
    return {
        "id": "run",
        "state": state,
        "state_id": name,
        "state_type": "SCHEDULED",
        "work_pool_name": "gpu",
        "next_scheduled_start_time": place.isoformat(),
    }


async def test_a_row_that_is_older_than_the_event_that_told_of_it_is_read_again() -> None:
    now = datetime.now(UTC)
    old = row("Waiting", now + timedelta(hours=1), now - timedelta(seconds=9))
    new = row("Queued", now, now)
    changed = asyncio.Event()
    mirror = Mirror(cast("Any", SlowToCommit(old, old, new)), changed.set, lambda _pool: None)
    mirror._pools = {"gpu": "pool"}  # pyright: ignore[reportPrivateUsage]  # not followed here
    resource = {
        "prefect.resource.id": "prefect.flow-run.run",
        "prefect.state-type": "SCHEDULED",
        "prefect.state-timestamp": now.isoformat(),
    }
    event = Event(event="prefect.flow-run.Queued", resource=Resource(resource))
    try:
        mirror._hear(event)  # pyright: ignore[reportPrivateUsage]  # as the subscriber does
        async with asyncio.timeout(WITHIN_S):
            while (seen := mirror.get("run")) is None or seen.waiting.place > now.timestamp() + 1:
                await changed.wait()
                changed.clear()
    finally:
        await mirror.close()
