"""Work pools that are no server's: which of their runs may be started.

Those are downloads, somebody's own, and one of a server just forgotten.
"""

from collections import defaultdict
from collections.abc import Callable, Container, Mapping

from prefect.client.orchestration import PrefectClient

from stablequeue.fetches import is_for_host
from stablequeue.servers import ANY, DOWNLOADS
from stablequeue.worker.knowledge import PoolState
from stablequeue.worker.mirror import Mirror, Seen

OTHERS_EVERY_S = 2.0
"""A full pool is looked at again after this time: other hosts' runs end without a word to us."""

_ACTIVE = ["PENDING", "RUNNING", "CANCELLING"]


class OwnPools:
    """Starts runs of such pools, and counts what runs there: by our own books and Prefect's.

    Args:
        client: Open when something is counted.
        take: Starts a run.
    """

    def __init__(self, client: PrefectClient, take: Callable[[Seen], None]) -> None:
        self._client, self._take = client, take
        self._taken: dict[str, set[str]] = defaultdict(set)

    async def serve(
        self,
        due: list[Seen],
        pools: Mapping[str, PoolState],
        servers: Container[str],
        mirror: Mirror,
    ) -> tuple[list[Seen], float | None]:
        """Start what may be started, in the order of tier and place.

        Args:
            due: Runs of any pool.
            pools: What is known of the pools this host serves.
            servers: Names of the pools that are a server's.
            mirror: Of the waiting runs.

        Returns:
            The runs that were not started, and when to look again in seconds: a limit counts what
            other hosts run there, too, and nobody tells us when that ends.
        """
        left = [seen for seen in due if seen.pool == ANY or seen.pool in servers]
        again: float | None = None
        for pool in {seen.pool for seen in due} - {seen.pool for seen in left}:
            waiting: list[Seen] = []
            for seen in (one for one in due if one.pool == pool):
                ours = pool != DOWNLOADS or is_for_host(seen.tags)
                (waiting if ours else left).append(seen)
            state = pools.get(pool)
            if state is None or state.paused:
                left += waiting
                continue
            free = await self.free(state)
            if free is not None and free < len(waiting):
                waiting = await mirror.anew(waiting)
                again = OTHERS_EVERY_S
            waiting.sort(key=lambda seen: seen.waiting.standing)
            for seen in waiting:
                if (free is not None and free <= 0) or state.stops(seen.waiting.tier):
                    left.append(seen)
                    continue
                free = None if free is None else free - 1
                self._taken[pool].add(seen.waiting.run_id)
                self._take(seen)
        return left, again

    def ended(self, run_id: str) -> None:
        """Note that a run taken here is over, or was not to be had."""
        for taken in self._taken.values():
            taken.discard(run_id)

    async def free(self, pool: PoolState) -> int | None:
        """Return how many more runs the pool's limit allows now; None: any number.

        What was taken here a moment ago may not be active in Prefect yet, so the larger number
        counts. Two hosts that look at the same moment may exceed the limit by one, as Prefect's own
        workers may.
        """
        if pool.limit is None:
            return None
        here = len(self._taken[pool.name])
        if here >= pool.limit:
            return 0
        body = {
            "flow_runs": {"state": {"type": {"any_": _ACTIVE}}},
            "work_pools": {"name": {"any_": [pool.name]}},
        }
        answer = await self._client.request("POST", "/flow_runs/count", json=body)
        return max(0, pool.limit - max(here, int(answer.json())))
