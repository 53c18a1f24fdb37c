"""Keeps pools, deployments, workers and the sandbox in line with the servers saved now."""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

from stablequeue.errors import QueueError, Refused
from stablequeue.prefect_api import ACTIVE, PrefectApi, StateType, run_filter
from stablequeue.server_blocks import saved_servers
from stablequeue.servers import ANY, DOWNLOADS, ServerConfig
from stablequeue.up.children import Children
from stablequeue.up.files import listen
from stablequeue.up.processes import Child, run_once
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker.pools import PoolList

logger = logging.getLogger("stablequeue.up")

WATCH_EVERY_S = 3.0
_SETUP_WITHIN_S = 120.0
_AGAIN_AFTER_S = 30.0


class Following:
    """The saved servers, and what runs because of them.

    A removed server keeps its worker while jobs of it are left (its pool is paused); when they
    are gone, the pool goes, and the worker with it.

    Args:
        children: Makes the processes.
        api: Prefect's API.
        pools: The list the worker follows.
        say: Tells the person at the terminal.
    """

    def __init__(
        self, children: Children, api: PrefectApi, pools: PoolList, say: Callable[[str], None]
    ) -> None:
        self._children = children
        self._api = api
        self._pools = pools
        self._say = say
        self._served: list[str] = []
        self._failed: tuple[object, float] | None = None
        self.servers: dict[str, ServerConfig] = {}
        self.sandbox: Child | None = None

    async def watch(self) -> None:
        """Look every few seconds until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                await self.look()
            except QueueError as error:
                logger.warning("looking at the saved servers: %s", error)

    async def begin(self) -> None:
        """Serve what is saved, once pools and deployments were made.

        Raises:
            Refused: The sandbox is needed and its port is taken.
        """
        self.servers = await self._saved()
        await self._serve()

    async def look(self) -> None:
        """Bring everything in line with the servers saved now.

        Raises:
            QueueError: It is tried again, after a while if only making the deployments failed.
        """
        servers = await self._saved()
        left = [alias for alias in self._served if alias not in {ANY, DOWNLOADS, *servers}]
        changed = servers != self.servers
        if not changed and not await asyncio.to_thread(self._may_go, left):
            return
        if self._failed and self._failed[0] == servers and time.monotonic() < self._failed[1]:
            return
        try:
            await self.set_up()
        except QueueError:
            self._failed = (servers, time.monotonic() + _AGAIN_AFTER_S)
            raise
        self._failed = None
        before, self.servers = self.servers, servers
        await self._serve()
        for alias in servers:
            if alias not in before:
                self._say(f"Server {alias} is ready.")
        for alias in before:
            if alias not in servers:
                self._say(f"Server {alias} is removed.")

    async def set_up(self, arguments: Sequence[str] = ()) -> None:
        """Have block types, pools, queues and deployments made.

        Args:
            arguments: Of `python -m deployments`.

        Raises:
            Refused: That failed; says why.
        """
        child = self._children.deployments(arguments)
        try:
            code = await run_once(child, within_s=_SETUP_WITHIN_S)
        except TimeoutError:
            code = None
        if code != 0:
            message = f"pools and deployments could not be made: {child.last_words()}"
            raise Refused(f"{message} (its log: {child.log})")

    async def stop(self) -> None:
        """Stop the sandbox, if it runs."""
        if self.sandbox is not None:
            await self.sandbox.stop()

    async def _saved(self) -> dict[str, ServerConfig]:
        servers = await asyncio.to_thread(saved_servers, self._api)
        return {server.alias: server for server in servers}

    async def _serve(self) -> None:
        await self._serve_sandbox()
        pools = await asyncio.to_thread(self._api.pools, kind=WORKER_TYPE)
        there = {pool.name for pool in pools}
        wanted = dict.fromkeys([ANY, DOWNLOADS, *self.servers, *self._served])
        self._served = [name for name in wanted if name in there]
        self._pools.write(self._served)

    async def _serve_sandbox(self) -> None:
        sandboxes = [server for server in self.servers.values() if server.sandbox]
        if not sandboxes or self.sandbox is not None:
            return
        port = urlsplit(sandboxes[0].base_url).port or 80
        try:
            listen("127.0.0.1", port).close()
        except OSError as error:
            message = (
                f"port {port}, the sandbox's, is taken ({error.strerror}); choose another with"
                " STABLEQUEUE_SANDBOX_PORT"
            )
            raise Refused(message) from error
        self.sandbox = self._children.sandbox(port)
        await self.sandbox.start()

    def _may_go(self, aliases: Sequence[str]) -> bool:
        """Whether a removed server has no jobs left, so that its pool can go."""
        states = [*ACTIVE, StateType.SCHEDULED, StateType.PAUSED]
        return any(
            not self._api.count_runs(run_filter(deployments=[alias], states=states))
            for alias in aliases
        )
