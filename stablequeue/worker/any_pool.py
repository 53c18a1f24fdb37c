"""The shared pool `any`: which servers may have one of its runs, and why others do not."""

import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from stablequeue.flowrun import TOO_SMALL
from stablequeue.ids import short_id
from stablequeue.servers import ANY
from stablequeue.worker.ability import Abilities, Lack
from stablequeue.worker.knowledge import PoolState, ServerState
from stablequeue.worker.mirror import Seen
from stablequeue.worker.tickets import Tickets

logger = logging.getLogger("stablequeue.worker")

_TOO_SMALL_FOR_S = 15.0
_BEGUN_GOOD_FOR_S = 3.0


class AnyPool:
    """Finds servers for runs of `any`, and remembers what each lacks.

    Args:
        pools: What is known of the pools this host serves, by name; read, never changed.
        servers: The same of the servers.
        abilities: Asks servers what they can do.
        tickets: Tells where a job was begun.
        take: Starts a run without a server.
    """

    def __init__(
        self,
        pools: Mapping[str, PoolState],
        servers: Mapping[str, ServerState],
        abilities: Abilities,
        tickets: Tickets,
        take: Callable[[Seen], None],
    ) -> None:
        self._pools, self._servers = pools, servers
        self._abilities, self._tickets, self._take = abilities, tickets, take
        self._lacks: dict[str, dict[str, Lack]] = {}

    def may_go_to(self, seen: Seen, server: ServerState) -> bool:
        """Whether a server may take a run as far as pools, tiers and earlier answers go."""
        pool = self._pools.get(ANY)
        own = self._pools[server.alias]
        if pool is None or pool.paused:
            return False
        if pool.limit is not None and self._taken() >= pool.limit:
            return False
        if pool.stops(seen.waiting.tier) or own.stops(seen.waiting.tier):
            return False
        lack = self._lacks.get(seen.waiting.run_id, {}).get(server.alias)
        if lack is not None and time.monotonic() < lack.until:
            return False
        return server in self._candidates(seen)

    async def can_have(self, server: ServerState, seen: Seen) -> bool:
        """Whether a server can do a run now; what it lacks is remembered."""
        lack = await self._lack(server, seen)
        if not lack.reason:
            return True
        known = self._lacks.setdefault(seen.waiting.run_id, {})
        before = known.get(server.alias)
        known[server.alias] = lack
        if before is None or before.reason != lack.reason:
            job = short_id(seen.waiting.job_id)
            logger.info("job=%s not on %s: %s", job, server.alias, lack.reason)
        return False

    def let_refuse(self, due: Iterable[Seen]) -> list[Seen]:
        """Start runs of `any` that no server can do: the flow says what each lacks, and fails.

        Returns:
            The other runs, also those of other pools.
        """
        left: list[Seen] = []
        pool = self._pools.get(ANY)
        for seen in due:
            names = {server.alias for server in self._candidates(seen)}
            lacks = self._lacks.get(seen.waiting.run_id, {})
            nobody = all(alias in lacks and lacks[alias].final for alias in names)
            if seen.pool == ANY and nobody and pool is not None and not pool.paused:
                self._take(seen)
            else:
                left.append(seen)
        return left

    def asked_again_in(self, due: Iterable[Seen]) -> list[float]:
        """Return in how many seconds what a server lacks for these runs may have changed."""
        now = time.monotonic()
        lacks = [
            lack
            for seen in due
            for lack in self._lacks.get(seen.waiting.run_id, {}).values()
            if not lack.final
        ]
        return [lack.until - now for lack in lacks if lack.until > now]

    def forget(self, run_id: str) -> None:
        """Forget what servers lack for a run: it is being started."""
        self._lacks.pop(run_id, None)

    def forget_all(self) -> None:
        """Forget what servers lack: they have changed."""
        self._lacks.clear()

    def reasons(self) -> dict[str, dict[str, str]]:
        """Return why servers do not get runs: by run, then server."""
        return {
            run: {alias: lack.reason for alias, lack in lacks.items()}
            for run, lacks in self._lacks.items()
        }

    def _candidates(self, seen: Seen) -> list[ServerState]:
        """Return the servers a run may go to at all, busy or not."""
        wanted = str(seen.request.get("server") or ANY)
        sections: object = seen.request.get("sections")
        kinds = set[str]()
        if isinstance(sections, dict):
            kinds = set(cast("Mapping[str, Any]", sections))
        real = any(not server.config.sandbox for server in self._servers.values())
        return [
            server
            for server in self._servers.values()
            if server.alias in self._pools
            and wanted in {ANY, server.alias}
            and (not kinds or server.config.type in kinds)
            and not (real and server.config.sandbox and wanted == ANY)
        ]

    def _taken(self) -> int:
        """Return how many runs of this pool the host works on."""
        return sum(
            taken.pool == ANY
            for server in self._servers.values()
            for taken in server.taken.values()
        )

    async def _lack(self, server: ServerState, seen: Seen) -> Lack:
        if seen.again:
            begun = await self._tickets.begun_on(seen.waiting.job_id)
            begun -= {one.alias for one in self._servers.values() if one.has_forgotten}
            if begun and server.alias not in begun:
                reason = f"may still be running on {', '.join(sorted(begun))}"
                return Lack(reason, until=time.monotonic() + _BEGUN_GOOD_FOR_S)
            if begun:
                return Lack()
        if f"{TOO_SMALL}{server.alias}" in seen.tags:
            reason = "its card has not enough memory for this job"
            return Lack(reason, True, time.monotonic() + _TOO_SMALL_FOR_S)
        if len(self._candidates(seen)) == 1:
            return Lack()  # the flow finds out, and says what is lacking
        return await self._abilities.lacks(server.config, seen.request)
