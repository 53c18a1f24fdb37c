"""The runs that wait in our pools, kept by events.

Prefect offers a worker only as many runs as it has places, in its own order; ours is decided over
all of them. Every change of a run's state is an event; what an event cannot tell (parameters,
tags) is read, many runs in one call. A count now and then tells whether an event was missed.
"""

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import inf
from typing import Any, cast

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.events import Event
from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from websockets.exceptions import WebSocketException

from stablequeue.views import TIERS, USUAL_TIER
from stablequeue.wanting import wanted_by
from stablequeue.worker.waiting import Waiting, models_of

logger = logging.getLogger("stablequeue.worker")

PAGE = 200
"""The most rows Prefect returns at once."""

PINNED = "pinned"
"""Tag of a run that a person moved to the front."""

_KEPT_ROWS = 500
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_NOT_THERE_YET_S = (0.05, 0.5)
"""Prefect tells of a new run or state before it commits it; of many runs made in one call, seconds
before. So it is looked for again after as long as that took so far, within these bounds.
"""

_GIVEN_UP_AFTER_S = 30.0
_PAUSES, _LONGEST_PAUSE_S = 3, 1.0
"""Between two readings, so many times as long as the last one took, to read together what is told
meanwhile: Prefect was read 1,226 times beside the making of 1,000 runs, a sixth of its time.
"""

_PREFIXES = ["prefect.flow-run.", "prefect.work-pool.", "prefect.work-queue."]

JSON = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A waiting run as it was read.

    Attributes:
        waiting: What decides its turn.
        pool: Name of its work pool.
        request: The parameter `request`, as it is.
        again: It has run before: something of it may be on a server.
        tags: Of the run.
        wanted: The models its request names (`stablequeue.wanting`).
        row: The whole run as Prefect told it; None where very many wait.
        read_at: Loop time when it was read.
    """

    waiting: Waiting
    pool: str
    request: JSON
    row: JSON | None = field(repr=False)
    again: bool = False
    tags: frozenset[str] = frozenset()
    wanted: frozenset[str] = frozenset()
    read_at: float = 0.0

    def flow_run(self) -> FlowRun | None:
        """Return the run as Prefect's own object, if it was kept."""
        return FlowRun.model_validate(self.row) if self.row is not None else None


class Mirror:
    """Waiting runs of some pools, by flow run id.

    Args:
        client: Open.
        changed: Called when a run came, changed or went.
        pool_changed: Called with the id of a pool that changed (paused, limited), or of one whose
            queue did.
        suspended: Called with the id of a run that was suspended.
    """

    def __init__(
        self,
        client: PrefectClient,
        changed: Callable[[], None],
        pool_changed: Callable[[str], None],
        suspended: Callable[[str], None] = lambda _run: None,
    ) -> None:
        self._client = client
        self._changed = changed
        self._pool_changed = pool_changed
        self._suspended = suspended
        self._pools: dict[str, str] = {}
        self._seen: dict[str, Seen] = {}
        self._asked: set[str] = set()
        self._not_there: dict[str, float] = {}
        self._told: dict[str, float] = {}
        self._again: asyncio.TimerHandle | None = None
        self._asking = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self._reading = asyncio.create_task(self._read_asked())
        self._missing = 0
        self._all_asked = False

    @property
    def runs(self) -> Iterable[Seen]:
        """All waiting runs."""
        return self._seen.values()

    def get(self, run_id: str) -> Seen | None:
        """Return one waiting run."""
        return self._seen.get(run_id)

    def serve(self, pools: Mapping[str, str]) -> None:
        """Follow exactly these pools: id by name."""
        if pools == self._pools:
            return
        self._pools = dict(pools)
        for run_id in [run for run, seen in self._seen.items() if seen.pool not in pools]:
            del self._seen[run_id]
        if self._following is not None:
            self._following.cancel()
        self._following = asyncio.create_task(self._follow()) if pools else None

    async def close(self) -> None:
        """Follow no more."""
        tasks = [task for task in (self._following, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def forget(self, run_id: str) -> Seen | None:
        """Take a run out: it is being started, or is gone."""
        return self._seen.pop(run_id, None)

    def look_at(self, run_ids: Iterable[str]) -> None:
        """Have these runs read soon, if they wait."""
        self._asked.update(run_ids)
        self._asking.set()

    async def anew(self, runs: Collection[Seen]) -> list[Seen]:
        """Read waiting runs again, return those that still wait: no event tells of their tags."""
        body = {
            "flow_runs": {"id": {"any_": [seen.waiting.run_id for seen in runs][:PAGE]}},
            "limit": PAGE,
        }
        asked_at = asyncio.get_running_loop().time()
        answer = await self._client.request("POST", "/flow_runs/filter", json=body)
        rows: list[JSON] = answer.json()
        for row in rows:
            self._note(row, asked_at)
        found = (self._seen.get(str(row["id"])) for row in rows)
        return [seen for seen in found if seen is not None]

    def missed(self, run_ids: Iterable[str]) -> None:
        """Have these runs read soon, and then all: runs created in bulk come without events."""
        self._all_asked = True
        self.look_at(run_ids)

    def overtaken(self, run_ids: Iterable[str]) -> None:
        """Note that these runs were overtaken once more."""
        for run_id in run_ids:
            if (seen := self._seen.get(run_id)) is not None:
                waiting = replace(seen.waiting, overtaken=seen.waiting.overtaken + 1)
                self._seen[run_id] = replace(seen, waiting=waiting)

    def remember_overtaken(self, counts: Mapping[str, int]) -> None:
        """Take over counts of an earlier process."""
        self._earlier = dict(counts)

    _earlier: dict[str, int] = {}  # noqa: RUF012  replaced, never changed

    async def check(self) -> None:
        """Compare the number of waiting runs with Prefect's; read all again if it is off twice."""
        pools = list(self._pools)
        if not pools:
            return
        body = {**_waiting_in(pools), "limit": 1}
        answer = await self._client.request("POST", "/flow_runs/count", json=body)
        off = int(answer.json()) != sum(1 for seen in self._seen.values() if seen.pool in pools)
        self._missing = self._missing + 1 if off else 0
        if self._missing > 1:
            self._missing = 0
            logger.info("events about waiting runs were missed; reading all of them")
            await self._read_all()

    async def _follow(self) -> None:
        resources = [f"prefect.work-pool.{pool_id}" for pool_id in self._pools.values()]
        wanted = EventFilter(
            event=EventNameFilter(prefix=_PREFIXES),
            any_resource=EventAnyResourceFilter(id=resources),
        )
        failures = 0
        while True:
            try:
                async with get_events_subscriber(filter=wanted) as events:
                    await self._read_all()
                    failures = 0
                    async for event in events:
                        self._hear(event)
            except (httpx.HTTPError, OSError, WebSocketException, RuntimeError) as error:
                logger.info("events are not followed: %s", error)
            wait = _AGAIN_S[min(failures, len(_AGAIN_S) - 1)]
            failures += 1
            await asyncio.sleep(wait)

    def _hear(self, event: Event) -> None:
        kind, _, name = event.event.removeprefix("prefect.").partition(".")
        resource = event.resource.id
        if kind != "flow-run":
            self._pool_changed(resource)
            return
        state = event.resource.get("prefect.state-type")
        if not state:
            return  # a heartbeat
        run_id = resource.removeprefix("prefect.flow-run.")
        if state == "PAUSED" and name == "Suspended":
            self._suspended(run_id)
        if state == "SCHEDULED":
            logger.debug("run %s waits: %s", run_id, name)
            self._told[run_id] = _epoch(event.resource.get("prefect.state-timestamp"))
            self.look_at([run_id])
            return
        self._told.pop(run_id, None)
        if self._seen.pop(run_id, None) is not None:
            self._changed()

    async def _read_asked(self) -> None:
        while True:
            await self._asking.wait()
            self._asking.clear()
            batch = list(self._asked)[:PAGE]
            self._asked.difference_update(batch)
            if self._asked:
                self._asking.set()
            body = {"flow_runs": {"id": {"any_": batch}}, "limit": PAGE}
            asked_at = asyncio.get_running_loop().time()
            try:
                answer = await self._client.request("POST", "/flow_runs/filter", json=body)
            except (httpx.HTTPError, OSError) as error:
                logger.warning("%d waiting runs cannot be read: %s", len(batch), error)
                await asyncio.sleep(_AGAIN_S[1])
                self.look_at(batch)
                continue
            rows: list[JSON] = [row for row in answer.json() if not self._is_stale(row)]
            for row in rows:
                self._note(row)
            self._ask_again(batch, {str(row["id"]) for row in rows})
            self._changed()
            if self._all_asked:
                await self._read_all_asked()
            took = asyncio.get_running_loop().time() - asked_at
            await asyncio.sleep(min(took * _PAUSES, _LONGEST_PAUSE_S))

    async def _read_all_asked(self) -> None:
        self._all_asked = False
        try:
            await self._read_all()
        except (httpx.HTTPError, OSError) as error:
            self._all_asked = True  # with what is offered or told next
            logger.warning("the waiting runs cannot be read: %s", error)

    def _ask_again(self, asked: Iterable[str], there: Collection[str]) -> None:
        """Have runs that are not there yet looked at again, all at once, for a while."""
        now = asyncio.get_running_loop().time()
        for run_id in asked:
            since = self._not_there.setdefault(run_id, now)
            if run_id in there or now - since > _GIVEN_UP_AFTER_S:
                del self._not_there[run_id]
                self._told.pop(run_id, None)
        if self._not_there and self._again is None:
            waited = now - min(self._not_there.values())
            wait = min(max(waited, _NOT_THERE_YET_S[0]), _NOT_THERE_YET_S[1])
            self._again = asyncio.get_running_loop().call_later(wait, self._ask_now)

    def _ask_now(self) -> None:
        self._again = None
        self.look_at(self._not_there)

    async def _read_all(self) -> None:
        """Read every waiting run, page by page."""
        found: set[str] = set()
        offset = 0
        pools = list(self._pools)
        while True:
            asked_at = asyncio.get_running_loop().time()
            body = {
                **_waiting_in(pools),
                "sort": "EXPECTED_START_TIME_ASC",
                "limit": PAGE,
                "offset": offset,
            }
            answer = await self._client.request("POST", "/flow_runs/filter", json=body)
            rows: list[JSON] = answer.json()
            for row in rows:
                found.add(str(row["id"]))
                self._note(row, asked_at)
            self._changed()
            if len(rows) < PAGE:
                break
            offset += PAGE
        for run_id in [run for run in self._seen if run not in found]:
            if run_id not in self._asked:
                del self._seen[run_id]

    def _is_stale(self, row: JSON) -> bool:
        """Whether a row was read before the state that an event told of was committed."""
        state: object = row.get("state")
        at = cast("JSON", state).get("timestamp") if isinstance(state, dict) else None
        return bool(at) and _epoch(at) < self._told.get(str(row["id"]), 0.0)

    def _note(self, row: JSON, asked_at: float = inf) -> None:
        """Take over a row; not if a younger one came after Prefect was asked for this one."""
        run_id, pool = str(row["id"]), str(row.get("work_pool_name") or "")
        if run_id in self._told and asked_at != inf:
            return  # about to be read on its own
        if (earlier := self._seen.get(run_id)) is not None and earlier.read_at > asked_at:
            return
        if row.get("state_type") != "SCHEDULED" or pool not in self._pools:
            self._seen.pop(run_id, None)
            return
        known = self._seen.get(run_id)
        overtaken = known.waiting.overtaken if known else self._earlier.get(run_id, 0)
        parameters: JSON = row.get("parameters") or {}
        given: object = parameters.get("request")
        request: JSON = cast("JSON", given) if isinstance(given, dict) else {}
        self._seen[run_id] = Seen(
            waiting=_waiting(row, parameters, request, overtaken),
            pool=pool,
            request=request,
            again=bool(row.get("run_count")),
            tags=frozenset(str(tag) for tag in row.get("tags") or ()),
            wanted=wanted_by(request),
            row=row if len(self._seen) < _KEPT_ROWS else None,
            read_at=asyncio.get_running_loop().time(),
        )


def _waiting_in(pools: list[str]) -> dict[str, Any]:
    return {
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "work_pools": {"name": {"any_": pools}},
    }


def _waiting(row: JSON, parameters: JSON, request: JSON, overtaken: int) -> Waiting:
    tags = {str(tag) for tag in row.get("tags") or ()}
    tier = next((tag.removeprefix("tier:") for tag in tags if tag.startswith("tier:")), "")
    tier = tier or str(request.get("tier") or row.get("work_queue_name") or "")
    count = request.get("count")
    return Waiting(
        run_id=str(row["id"]),
        job_id=str(parameters.get("job_id") or row["id"]),
        tier=TIERS.index(tier if tier in TIERS else USUAL_TIER),
        place=_epoch(row.get("next_scheduled_start_time") or row.get("expected_start_time")),
        created=_epoch(row.get("created")),
        models=models_of(request),
        pictures=count if isinstance(count, int) and count > 0 else 1,
        overtaken=overtaken,
        pinned=PINNED in tags,
    )


def _epoch(value: object) -> float:
    if not value:
        return 0.0
    time = datetime.fromisoformat(str(value))
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
