"""Work pools, their queues, and deployments, as far as commands and `up` need them.

Pools and deployments are made by `deployments/`, which imports Prefect; here they are looked at,
paused, limited and removed.
"""

from datetime import datetime
from typing import Any

from stablequeue.errors import NotFound
from stablequeue.prefect_api.model import Deployment, Pool, Queue, parse_time
from stablequeue.prefect_api.transport import Transport


class PoolCalls(Transport):
    """Calls about pools and deployments. Each raises what `Transport.request` raises."""

    def pools(self, *, kind: str = "") -> list[Pool]:
        """Return the work pools, by name; only those of worker type `kind`, if given."""
        body: dict[str, Any] = {"work_pools": {"type": {"any_": [kind]}}} if kind else {}
        found = [Pool.from_json(row) for row in self.pages("work_pools/filter", body)]
        return sorted(found, key=lambda pool: pool.name)

    def pool(self, name: str) -> Pool:
        """Return one work pool.

        Raises:
            NotFound: There is none.
        """
        return Pool.from_json(self.call("GET", f"work_pools/{name}", missing=_no_pool(name)))

    def pause_pool(self, name: str) -> None:
        """Offer none of the pool's runs any more; running ones go on."""
        self._update_pool(name, is_paused=True)

    def begin_paused(self, name: str, *, kind: str) -> None:
        """Pause a pool, or make one that is paused and bare: `deployments/` completes it."""
        try:
            self.pause_pool(name)
        except NotFound:
            self.call("POST", "work_pools/", {"name": name, "type": kind, "is_paused": True})

    def resume_pool(self, name: str) -> None:
        """Offer the pool's runs again."""
        self._update_pool(name, is_paused=False)

    def limit_pool(self, name: str, limit: int | None) -> None:
        """Let at most `limit` of the pool's runs be pending or running; None: any number."""
        self._update_pool(name, concurrency_limit=limit)

    def delete_pool(self, name: str) -> None:
        """Delete a work pool with its queues. Its deployments stay, without a pool."""
        self.call("DELETE", f"work_pools/{name}", missing=_no_pool(name))

    def queues(self, pool: str) -> list[Queue]:
        """Return the queues of a pool, first served first."""
        rows = self.pages(f"work_pools/{pool}/queues/filter", {}, missing=_no_pool(pool))
        return sorted((Queue.from_json(row, pool) for row in rows), key=lambda q: q.priority)

    def every_queue(self) -> list[Queue]:
        """Return the queues of all pools, in one call."""
        rows = self.pages("work_queues/filter", {})
        return [Queue.from_json(row, row.get("work_pool_name") or "") for row in rows]

    def pause_queue(self, pool: str, queue: str) -> None:
        """Offer none of one queue's runs any more."""
        self._update_queue(pool, queue, paused=True)

    def resume_queue(self, pool: str, queue: str) -> None:
        """Offer one queue's runs again."""
        self._update_queue(pool, queue, paused=False)

    def last_seen(self, pool: str) -> datetime | None:
        """Return when a worker of the pool last sent a heartbeat; None: never."""
        rows = self.pages(f"work_pools/{pool}/workers/filter", {}, missing=_no_pool(pool))
        times = [time for row in rows if (time := parse_time(row.get("last_heartbeat_time")))]
        return max(times, default=None)

    def deployments(self, *, flow: str = "") -> list[Deployment]:
        """Return the deployments, those of the flow named `flow` only, if given."""
        body: dict[str, Any] = {"flows": {"name": {"any_": [flow]}}} if flow else {}
        return [Deployment.from_json(row) for row in self.pages("deployments/filter", body)]

    def delete_deployment(self, deployment_id: str) -> None:
        """Delete a deployment with its schedules and its waiting runs. Other runs stay."""
        self.call("DELETE", f"deployments/{deployment_id}")

    def _update_pool(self, name: str, **changes: Any) -> None:
        self.call("PATCH", f"work_pools/{name}", changes, missing=_no_pool(name))

    def _update_queue(self, pool: str, queue: str, *, paused: bool) -> None:
        missing = f"work pool {pool} has no queue {queue}"
        path = f"work_pools/{pool}/queues/{queue}"
        self.call("PATCH", path, {"is_paused": paused}, missing=missing)


def _no_pool(name: str) -> str:
    return f"Prefect has no work pool {name}; stablequeue servers ls shows the servers"
