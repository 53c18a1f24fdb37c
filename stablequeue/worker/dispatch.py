"""Which server takes which waiting run, and when: the part of the worker that decides.

One for all pools of a host. Workers (one a pool, Prefect's own class below) do the taking; here is
the limiter that honours each pool's limit and pause, the order of runs, the cards and the health of
the servers.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound

from stablequeue.errors import QueueError
from stablequeue.ids import short_id
from stablequeue.prefect_api import open_prefect
from stablequeue.servers import ANY
from stablequeue.settings import Settings
from stablequeue.wanting import is_held_back, lacked_by_waiting
from stablequeue.worker.ability import Abilities
from stablequeue.worker.ahead import may_take_ahead
from stablequeue.worker.any_pool import AnyPool
from stablequeue.worker.cancelling import Cancelling
from stablequeue.worker.cards import Cards
from stablequeue.worker.health import Health
from stablequeue.worker.hearing import Hearing
from stablequeue.worker.knowledge import PoolState, ServerState, Taken
from stablequeue.worker.mirror import Mirror, Seen
from stablequeue.worker.own_pools import OwnPools
from stablequeue.worker.policy import pick
from stablequeue.worker.saved import Saved
from stablequeue.worker.settling import settle
from stablequeue.worker.state_file import read_state, write_state
from stablequeue.worker.tickets import Tickets
from stablequeue.worker.warm_process import Runner
from stablequeue.worker.warmth import Warmth

if TYPE_CHECKING:
    from stablequeue.worker.gpu_server import GpuServerWorker

logger = logging.getLogger("stablequeue.worker")

LOOK_EVERY_S = 15.0
CHECK_EVERY_S = 60.0
_ROW_GOOD_FOR_S = 1.0
_AHEAD_LOOK_S = 0.1


class Scheduling:
    """Decides for all pools of this host; made and used in one event loop."""

    def __init__(self, settings: Settings, **warmth: Any) -> None:
        self._settings = settings
        self._client: PrefectClient = get_client()
        self._workers: dict[str, GpuServerWorker] = {}
        self._owner: dict[str, str] = {}
        self._wake = asyncio.Event()
        self._tickets = Tickets(settings, self._followed_jobs)
        self._abilities = Abilities(settings)
        self._saved = Saved(self._client, self._server_changed)
        self._pools, self._servers = self._saved.pools, self._saved.servers
        take = partial(self._take, None)
        self._any = AnyPool(self._pools, self._servers, self._abilities, self._tickets, take)
        self._health = Health(self._servers, self._in_background, self._wake.set)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._own = OwnPools(self._client, take)
        self.cards = Cards(self._settle_card, self._health.free_memory, others=self._others_of)
        self.cancelling = Cancelling(
            self._client, self._tickets, self.cards.unsettled, self._in_background
        )
        self.hearing = Hearing(
            self._servers,
            self._owner,
            cards=self.cards,
            cancelling=self.cancelling,
            health=self._health,
            wake=self._wake.set,
            runner_of=self._runner_of,
        )
        self.warmth = Warmth(self.hearing.hear, self.cancelling.still_there, **warmth)
        self._mirror: Mirror | None = None
        self._due: asyncio.TimerHandle | None = None

    # ---- life

    async def start(self) -> None:
        """Open what is needed and begin to decide."""
        await self._client.__aenter__()
        await self.warmth.start()
        self._mirror = Mirror(self._client, self._wake.set, self._pool_changed, self._suspended)
        earlier = read_state(self._settings.run_folder)
        self._saved.learned = earlier.get("servers") or {}
        overtaken: dict[str, Any] = earlier.get("overtaken") or {}
        self._mirror.remember_overtaken(
            {run: count for run, count in overtaken.items() if isinstance(count, int)}
        )
        for work in (self._decide(), self._look(), self._check()):
            self._in_background(work)

    async def close(self) -> None:
        """End every process of ours and decide no more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._due is not None:
            self._due.cancel()
        if self._mirror is not None:
            await self._mirror.close()
        await self.warmth.close()
        await self._abilities.close()
        self._tickets.close()
        self._write_state()
        await self._client.__aexit__(None, None, None)

    async def join(self, worker: "GpuServerWorker") -> None:
        """Serve a worker's pool."""
        self._workers[worker.work_pool.name] = worker
        await self._saved.read_servers()
        await self._saved.read_pools(self._workers.keys)
        self._serve()

    def leave(self, worker: "GpuServerWorker") -> None:
        """Serve a worker's pool no more."""
        for name in [name for name, known in self._workers.items() if known is worker]:
            del self._workers[name]
            self._pools.pop(name, None)
        self._serve()

    def offered(self, worker: "GpuServerWorker", runs: list[FlowRun]) -> None:
        """Take note of runs Prefect offers: those we do not know of were missed."""
        del worker
        if self._mirror is not None:
            missed = [
                str(run.id)
                for run in runs
                if self._mirror.get(str(run.id)) is None and str(run.id) not in self._owner
            ]
            if missed:
                self._mirror.missed(missed)

    def ended(self, run_id: str) -> None:
        """A run is over here, however it ended."""
        alias = self._owner.pop(run_id, "")
        self._own.ended(run_id)
        server = self._servers.get(alias)
        if server is not None:
            server.taken.pop(run_id, None)
        self.cards.release(run_id, settled=False)
        self._wake.set()

    def recover(self, run_id: str) -> None:
        """Let a run whose process died wait again; blocks, so call it in a thread.

        Raises:
            PrefectError: It is settled within a minute.
        """
        with open_prefect(self._settings) as api:
            settle(api, run_id, "Its process died; the job goes on from what it had begun.")

    # ---- the processes of runs

    def _runner_of(self, run_id: str) -> Runner | None:
        return next((one for one in self.warmth.runners.all if one.run == run_id), None)

    def _suspended(self, run_id: str) -> None:
        """Tell a run's process that the run was suspended from outside."""
        if (runner := self._runner_of(run_id)) is not None:
            runner.say({"suspended": run_id})

    # ---- deciding

    async def _decide(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                again_in = await self._decide_once()
            except (httpx.HTTPError, OSError, QueueError) as error:
                logger.warning("waiting runs are not looked at: %s", error)
                again_in = 1.0
            self._look_again(again_in)

    def _look_again(self, seconds: float | None) -> None:
        if self._due is not None:
            self._due.cancel()
            self._due = None
        if seconds is not None:
            self._due = asyncio.get_running_loop().call_later(max(0.0, seconds), self._wake.set)

    async def _decide_once(self) -> float | None:
        """Let every server take what it may; return in how many seconds to look again."""
        if self._mirror is None:
            return None
        now = datetime.now(UTC).timestamp()
        again: list[float] = []
        due: list[Seen] = []
        for seen in self._mirror.runs:
            if seen.waiting.run_id in self._owner:
                continue  # read before it was claimed, or waiting again before its process ended
            if seen.waiting.place <= now:
                due.append(seen)
            else:
                again.append(seen.waiting.place - now)
        due.sort(key=lambda seen: seen.waiting.standing)
        took = bool(due)
        while took:
            took = False
            for server in sorted(self._servers.values(), key=lambda one: len(one.taken)):
                chosen, wait = await self._choose(server, due)
                if wait is not None:
                    again.append(wait)
                if chosen is not None:
                    due = [seen for seen in due if seen is not chosen]
                    took = True
        due = self._any.let_refuse(due)
        due, wait = await self._own.serve(due, self._pools, self._servers, self._mirror)
        if wait is not None:
            again.append(wait)
        again += self._any.asked_again_in(due)
        return min(again, default=None)

    async def _choose(
        self, server: ServerState, due: list[Seen]
    ) -> tuple[Seen | None, float | None]:
        """Have a server take one run, if it may; the other value is when to look again."""
        own = self._pools.get(server.alias)
        if own is None or own.paused or server.quarantined:
            return None, None
        limit = server.limit(own)
        if len(server.taken) >= limit:
            return None, None
        shared = may_take_ahead(
            server.running(time.monotonic()),
            server.card,
            limit,
            prepare_s=server.prepare_s,
            shared=True,
        )
        lacked = self._lacked(server.alias)
        fit = {
            seen.waiting.run_id: seen
            for seen in due
            if self._is_for(seen, server, own, shared=shared)
            and not is_held_back(lacked, seen.waiting.tier, seen.wanted)
        }
        wait = None if shared or not due else _AHEAD_LOOK_S
        while fit:
            picked = pick([seen.waiting for seen in fit.values()], server.card)
            if picked is None:
                break
            seen = fit.pop(picked.run.run_id)
            if seen.pool == ANY and not await self._any.can_have(server, seen):
                continue
            if self._mirror is None or self._mirror.get(seen.waiting.run_id) is not seen:
                continue  # it went, or changed, while the server was asked
            self._mirror.overtaken(picked.overtakes)
            self._take(server, seen)
            return seen, wait
        return None, wait

    def _lacked(self, alias: str) -> dict[str, int]:
        """Return the models that other jobs wait for because this server lacks them.

        A run that is due again no longer counts: its download is over, or nobody knows.
        """
        if self._mirror is None:
            return {}
        now = datetime.now(UTC).timestamp()
        waiting = (
            (seen.waiting.tier, seen.tags) for seen in self._mirror.runs if seen.waiting.place > now
        )
        return lacked_by_waiting(alias, waiting)

    def _is_for(self, seen: Seen, server: ServerState, own: PoolState, *, shared: bool) -> bool:
        """Whether a server may take a run as far as pools, tiers and earlier answers go."""
        if seen.pool == server.alias:
            return not own.stops(seen.waiting.tier)
        return seen.pool == ANY and shared and self._any.may_go_to(seen, server)

    def _take(self, server: ServerState | None, seen: Seen) -> None:
        worker, waiting = self._workers.get(seen.pool), seen.waiting
        if worker is None or self._mirror is None:
            return
        self._mirror.forget(waiting.run_id)
        self._any.forget(waiting.run_id)
        self._owner[waiting.run_id] = server.alias if server else ""
        if server is not None:
            server.taken[waiting.run_id] = Taken(
                run_id=waiting.run_id,
                job_id=waiting.job_id,
                pool=seen.pool,
                checkpoint=waiting.checkpoint,
                pictures=waiting.pictures,
            )
            if waiting.checkpoint:
                server.used(waiting.checkpoint)
        self._in_background(self._start(worker, server, seen))

    async def _start(
        self, worker: "GpuServerWorker", server: ServerState | None, seen: Seen
    ) -> None:
        run_id = seen.waiting.run_id
        try:
            flow_run = await self._fresh(seen)
            if flow_run is None:
                self.ended(run_id)
                return
            queued = flow_run.state.timestamp.timestamp() if flow_run.state else 0.0
            blocks = asyncio.create_task(self._saved.blocks(after=queued))
            self._in_background(blocks)

            async def give() -> Mapping[str, Any]:
                alias = server.alias if server else ""
                return {"server": alias, "pool": seen.pool, "servers": await blocks}

            await worker.take(flow_run, give)
        except (httpx.HTTPError, OSError, RuntimeError) as error:
            logger.warning("job=%s not started: %s", short_id(seen.waiting.job_id), error)
            self.ended(run_id)
            await asyncio.sleep(1.0)
            if self._mirror is not None:
                self._mirror.look_at([run_id])

    async def _fresh(self, seen: Seen) -> FlowRun | None:
        """Return the run as it is now; None if it does not wait any more."""
        age = asyncio.get_running_loop().time() - seen.read_at
        if age <= _ROW_GOOD_FOR_S and (known := seen.flow_run()) is not None:
            return known
        try:
            flow_run = await self._client.read_flow_run(UUID(seen.waiting.run_id))
        except ObjectNotFound:
            return None
        return flow_run if flow_run.state is not None and flow_run.state.is_scheduled() else None

    # ---- what Prefect knows

    async def _look(self) -> None:
        """Now and then look at what no event tells."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with suppress(httpx.HTTPError, OSError):
                await self._saved.read_servers()
                await self._saved.read_pools(self._workers.keys)
                self._serve()
            self._write_state()

    async def _check(self) -> None:
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            with suppress(httpx.HTTPError, OSError):
                if self._mirror is not None:
                    await self._mirror.check()

    def _server_changed(self) -> None:
        self._any.forget_all()

    def _pool_changed(self, resource: str) -> None:
        del resource
        self._in_background(self._reread_pools())

    async def _reread_pools(self) -> None:
        """Read pools anew, and servers before: people mend a server, then resume its pool."""
        with suppress(httpx.HTTPError, OSError):
            await self._saved.read_servers()
            await self._saved.read_pools(self._workers.keys)
            self._wake.set()

    def _serve(self) -> None:
        if self._mirror is not None:
            self._mirror.serve({pool.name: pool.id for pool in self._pools.values()})
        self._wake.set()

    # ---- cards and health

    def _followed_jobs(self) -> set[str]:
        return {
            taken.job_id for server in self._servers.values() for taken in server.taken.values()
        }

    def abandon(self, run_id: str) -> None:
        """A cancelled run's process was killed: stop its remote job without it."""
        server = self._servers.get(self._owner.get(run_id, ""))
        if server is not None and (taken := server.taken.get(run_id)) is not None:
            self.cancelling.stop(run_id, taken.job_id, server.config)

    async def _settle_card(self, key: str, server: str, job: str) -> None:
        del server
        on_card = [one.config for one in self._servers.values() if one.config.card_key == key]
        await self._tickets.settle(on_card, job)

    def _others_of(self, key: str, alias: str) -> list[str]:
        return [
            one.alias
            for one in self._servers.values()
            if one.config.card_key == key and one.alias != alias
        ]

    # ---- what others may read

    def _write_state(self) -> None:
        runs = self._mirror.runs if self._mirror else ()
        write_state(
            self._settings.run_folder,
            {
                "servers": {alias: server.to_json() for alias, server in self._servers.items()},
                "overtaken": {
                    seen.waiting.run_id: seen.waiting.overtaken
                    for seen in runs
                    if seen.waiting.overtaken
                },
                "skipped": self._any.reasons(),
                "written": datetime.now(UTC).timestamp(),
            },
        )

    def _in_background(self, work: Awaitable[Any]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.discard(cast("asyncio.Task[Any]", task))
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a part of the worker failed", exc_info=error)
