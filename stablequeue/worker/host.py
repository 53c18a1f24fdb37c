"""The workers of several pools in one process, started, watched over and stopped as one.

Stopping is where Prefect's own worker loses runs: the children die and their runs stay RUNNING.
Here, children are killed outright (their jobs on the servers go on, and the ticket finds them
again), and every run that had not ended waits at its old place for the next worker.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from types import FrameType
from uuid import UUID

import httpx

from stablequeue.errors import PrefectError
from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.processes import keep_what_is_there
from stablequeue.settings import Settings
from stablequeue.worker.dispatch import Scheduling
from stablequeue.worker.gpu_server import GpuServerWorker
from stablequeue.worker.presence import kill, sweep
from stablequeue.worker.settling import settle, settle_lost

logger = logging.getLogger("stablequeue.worker")

RECONCILE_EVERY_S = 60.0
_AGAIN_AFTER_S = (1.0, 2.0, 5.0, 10.0, 30.0)
_TEARDOWN_S = 8.0
_LOOK_EVERY_S = 1.0
_STOPPED = "The worker was stopped; the job goes on when one runs again."


class WorkerHost:
    """Runs one `GpuServerWorker` a pool until `stop` is called.

    Args:
        settings: This installation's.
        pools: Asked every second for the names of the work pools to serve; they must exist.
    """

    def __init__(self, settings: Settings, pools: Callable[[], Collection[str]]) -> None:
        self._settings = settings
        self._pools = pools
        self._serving: dict[str, asyncio.Task[None]] = {}
        self._workers: dict[str, GpuServerWorker] = {}
        self._scheduling: Scheduling | None = None
        self._more = asyncio.Event()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ask `run` to end; safe from a signal handler through `call_soon_threadsafe`."""
        self._stopping.set()

    async def run(self) -> None:
        """Serve the pools until stopped, then leave no run behind."""
        sweep(self._settings)
        with open_prefect(self._settings) as api:
            self._scheduling = Scheduling(self._settings)
            await self._begin(self._scheduling)
            reconciling = asyncio.create_task(self._reconcile(api))
            try:
                await self._follow_pools(api)
            finally:
                reconciling.cancel()
                await self._leave(api, list(self._serving))
                await self._scheduling.close()

    async def _begin(self, scheduling: Scheduling) -> None:
        """Start deciding; Prefect's server may still be starting."""
        for wait in (*_AGAIN_AFTER_S, *[_AGAIN_AFTER_S[-1]] * 1000):
            try:
                await scheduling.start()
            except (RuntimeError, OSError, httpx.HTTPError) as error:
                logger.warning("the worker does not start yet: %s; again in %g s", error, wait)
                with suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._stopping.wait()
                if self._stopping.is_set():
                    return
            else:
                return

    async def _follow_pools(self, api: PrefectApi) -> None:
        while not self._stopping.is_set():
            wanted = self._pools()
            for pool in wanted:
                if pool not in self._serving:
                    self._serving[pool] = asyncio.create_task(self._serve(pool))
                    self._more.set()
            if gone := [pool for pool in self._serving if pool not in wanted]:
                await self._leave(api, gone)
                logger.info("not served any more: %s", ", ".join(gone))
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_EVERY_S):
                    await self._stopping.wait()

    async def _leave(self, api: PrefectApi, pools: Sequence[str]) -> None:
        """Serve these pools no longer; what still runs there waits again."""
        left = self._abandon(pools)
        tasks = [self._serving.pop(pool) for pool in pools]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_TEARDOWN_S)
        for pool in pools:
            self._workers.pop(pool, None)
        await asyncio.to_thread(self._settle_all, api, left)

    async def _serve(self, pool: str) -> None:
        """Keep a worker for `pool`; one that fails (the API was away for long) is replaced."""
        failures = 0
        while True:
            worker = GpuServerWorker(
                pool,
                name=f"{pool} on {socket.gethostname()}",
                create_pool_if_not_found=False,
                scheduling=self._scheduling,
            )
            self._workers[pool] = worker
            try:
                await worker.start(printer=logger.info)
            except (RuntimeError, OSError, httpx.HTTPError, ExceptionGroup):
                wait = _AGAIN_AFTER_S[min(failures, len(_AGAIN_AFTER_S) - 1)]
                failures += 1
                logger.warning("%s: the worker failed; again in %g s", pool, wait, exc_info=True)
                await asyncio.sleep(wait)

    async def _reconcile(self, api: PrefectApi) -> None:
        """Look for lost runs whenever a pool joins, and every minute."""
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(RECONCILE_EVERY_S):
                    await self._more.wait()
            self._more.clear()
            if not self._serving:
                continue
            pools, ours = list(self._serving), {str(run_id) for run_id in self._active()}
            try:
                await asyncio.to_thread(settle_lost, api, self._settings, pools, ours=ours)
            except PrefectError as error:
                logger.warning("looking for lost runs: %s", error)

    def _active(self, pools: Sequence[str] | None = None) -> set[UUID]:
        workers = self._of(pools)
        return {run_id for worker in workers for run_id in {*worker.children, *worker.starting}}

    def _abandon(self, pools: Sequence[str]) -> set[UUID]:
        """Kill every child; none of them counts as crashed."""
        left = self._active(pools)
        end = self._scheduling.warmth.let_go if self._scheduling is not None else kill
        for worker in self._of(pools):
            for pid in list(worker.children.values()):
                end(pid)
        return left

    def _of(self, pools: Sequence[str] | None) -> list[GpuServerWorker]:
        return [worker for pool, worker in self._workers.items() if pools is None or pool in pools]

    def _settle_all(self, api: PrefectApi, runs: set[UUID]) -> None:
        for run_id in runs:
            try:
                settle(api, str(run_id), _STOPPED, "Handed back")
            except PrefectError as error:
                logger.warning("run %s is left for the next worker: %s", run_id, error)


def serve(settings: Settings, pools: Callable[[], Collection[str]]) -> None:
    """Serve what `pools` names in this process until SIGTERM or Ctrl-C."""

    async def main() -> None:
        host = WorkerHost(settings, pools)
        loop = asyncio.get_running_loop()
        keep_what_is_there()
        _on_signal(lambda: loop.call_soon_threadsafe(host.stop))
        await host.run()

    asyncio.run(main())


def _on_signal(act: Callable[[], object]) -> None:
    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        act()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), handler)
