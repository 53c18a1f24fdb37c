"""What people keep from starting: paused servers and tiers, and parked servers."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from stablequeue.catalogue import Parked
from stablequeue.prefect_api import PrefectApi
from stablequeue.servers import ANY
from stablequeue.views import JobView, ViewState
from stablequeue.worker import WORKER_TYPE


@dataclass(frozen=True, kw_only=True)
class Held:
    """What starts no jobs now.

    Attributes:
        servers: The pools of servers.
        paused: Which pools are paused, `any` among them.
        tiers: Which tiers are paused, as (pool, tier).
        parked: Servers whose pictures cannot be kept, by alias.
    """

    servers: frozenset[str] = frozenset()
    paused: frozenset[str] = frozenset()
    tiers: frozenset[tuple[str, str]] = frozenset()
    parked: Mapping[str, Parked] = field(default_factory=dict[str, Parked])

    def noted(self, job: JobView) -> JobView:
        """Say what holds a waiting job; its place in the order matters only without that."""
        if job.state is not ViewState.WAITING:
            return job
        reason = self._reason(job.pool or job.server, job.tier)
        return replace(job, why=reason) if reason else job

    def _reason(self, pool: str, tier: str) -> str:
        if pool in self.parked:
            return f"{pool} is parked: {self.parked[pool].reason}"
        if pool in self.paused:
            return f"{pool} is paused"
        if (pool, tier) in self.tiers:
            return f"tier {tier} is paused on {pool}"
        if pool == ANY and self.servers and self.servers <= self.paused:
            return "every server is paused"
        return ""


def held(api: PrefectApi, parked: Mapping[str, Parked]) -> Held:
    """Ask Prefect what is paused: two calls, however many servers there are."""
    pools = api.pools(kind=WORKER_TYPE)
    return Held(
        servers=frozenset(pool.name for pool in pools if pool.name != ANY),
        paused=frozenset(pool.name for pool in pools if pool.paused),
        tiers=frozenset((queue.pool, queue.name) for queue in api.every_queue() if queue.paused),
        parked=parked,
    )
