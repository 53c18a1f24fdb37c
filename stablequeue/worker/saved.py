"""What Prefect has saved: work pools with their queues, and the servers."""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError

from stablequeue.errors import SettingsError
from stablequeue.server_blocks import SERVER_BLOCK, config_of
from stablequeue.servers import ServerConfig
from stablequeue.worker.knowledge import PoolState, ServerState

logger = logging.getLogger("stablequeue.worker")

SAVED_GOOD_FOR_S = 2.0
"""How long jobs begin by what was read once; one queued since then has it read again."""


class Saved:
    """Pools and servers by name, kept current by whoever asks to read them again.

    Args:
        client: Open when something is read.
        server_changed: Called when the configuration of a known server changed.

    Attributes:
        pools: Those read last; the same dict for good.
        servers: What is known of each saved server; the same dict for good.
        learned: What an earlier host had learned of servers, by alias (`ServerState.to_json`).
    """

    def __init__(self, client: PrefectClient, server_changed: Callable[[], None]) -> None:
        self._client = client
        self._server_changed = server_changed
        self.pools: dict[str, PoolState] = {}
        self.servers: dict[str, ServerState] = {}
        self.learned: Mapping[str, Mapping[str, Any]] = {}
        self._blocks: dict[str, Mapping[str, Any]] = {}
        self._read_at = -SAVED_GOOD_FOR_S  # when the last reading began, monotonic
        self._read_on = 0.0  # the same by the clock on the wall
        self._reading: asyncio.Task[None] | None = None

    async def read_pools(self, wanted: Callable[[], Collection[str]]) -> None:
        """Read pools and which of their queues are paused.

        Args:
            wanted: Names of those to know; asked again afterwards, for one may have gone.
        """
        names = list(wanted())
        body = {"work_pools": {"name": {"any_": names}}, "limit": 200}
        answer = await self._client.request("POST", "/work_pools/filter", json=body)
        rows: list[Mapping[str, Any]] = answer.json()
        queues = await asyncio.gather(*(self._stopped_tiers(str(row["name"])) for row in rows))
        now = wanted()
        found = {
            str(row["name"]): PoolState(
                id=str(row["id"]),
                name=str(row["name"]),
                paused=bool(row.get("is_paused")),
                limit=row.get("concurrency_limit"),
                stopped_tiers=stopped,
            )
            for row, stopped in zip(rows, queues, strict=True)
            if str(row["name"]) in now
        }
        self.pools.clear()
        self.pools.update(found)

    async def _stopped_tiers(self, pool: str) -> frozenset[str]:
        try:
            answer = await self._client.request(
                "POST",
                "/work_pools/{work_pool_name}/queues/filter",
                path_params={"work_pool_name": pool},
                json={},
            )
        except (ObjectNotFound, PrefectHTTPStatusError):
            return frozenset()
        rows: list[Mapping[str, Any]] = answer.json()
        return frozenset(str(row["name"]) for row in rows if row.get("is_paused"))

    async def blocks(self, *, after: float = 0.0) -> Mapping[str, Mapping[str, Any]]:
        """Return the saved servers, fresh if Prefect answers.

        Args:
            after: They are as they were then or later: people change a server and queue the next
                job for it at once. In seconds since 1970.
        """
        try:
            await self._refresh(after)
        except (httpx.HTTPError, OSError) as error:
            logger.warning("saved servers cannot be read, those known are used: %s", error)
        return self._blocks

    async def _refresh(self, after: float) -> None:
        """Have the saved servers no older than a moment; runs that start together share it."""
        now = time.monotonic()

        def good() -> bool:
            # A reading that began since we were asked is the newest there is: Prefect's clock,
            # of which `after` is, may be ahead of ours.
            age = now - self._read_at
            return age <= 0 or (age < SAVED_GOOD_FOR_S and self._read_on >= after)

        while not good():
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self.read_servers())
            await asyncio.shield(self._reading)

    async def read_servers(self) -> None:
        """Read the saved servers; one whose values do not fit is left out."""
        began_at, began_on = time.monotonic(), time.time()
        try:
            documents = await self._client.read_block_documents_by_type(
                SERVER_BLOCK, include_secrets=True, limit=200
            )
        except PrefectHTTPStatusError as error:
            if error.response.status_code != HTTPStatus.NOT_FOUND:
                raise
            documents = []  # the block type is not registered: no server was ever saved
        self._read_at, self._read_on = began_at, began_on
        self._blocks = {document.name or "": document.data for document in documents}
        configs: dict[str, ServerConfig] = {}
        for alias, data in self._blocks.items():
            try:
                configs[alias] = config_of(alias, data)
            except SettingsError as error:
                logger.debug("%s", error)
        for alias in [alias for alias in self.servers if alias not in configs]:
            del self.servers[alias]
        for alias, config in configs.items():
            known = self.servers.get(alias)
            if known is None:
                self.servers[alias] = state = ServerState(config)
                state.recall(self.learned.get(alias) or {})
            elif known.config != config:
                known.config = config
                known.quarantined = ""
                self._server_changed()
