"""Work pools that are no server's: how many of their runs may be started."""

from collections import defaultdict

from prefect.client.orchestration import PrefectClient

from stablequeue.worker.knowledge import PoolState

OTHERS_EVERY_S = 2.0
"""A full pool is looked at again after this time: other hosts' runs end without a word to us."""

_ACTIVE = ["PENDING", "RUNNING", "CANCELLING"]


class OwnPools:
    """Counts what runs in such pools: here by our own books, elsewhere by Prefect's.

    Args:
        client: Open when something is counted.
    """

    def __init__(self, client: PrefectClient) -> None:
        self._client = client
        self._taken: dict[str, set[str]] = defaultdict(set)

    def took(self, pool: str, run_id: str) -> None:
        """Note that a run was taken here."""
        self._taken[pool].add(run_id)

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
