"""Work pools and their queues, one pool a server."""

from typing import Any

from stablequeue.errors import NotFound
from stablequeue.prefect_api import Pool, PrefectApi
from stablequeue.request import Tier
from stablequeue.worker import WORKER_TYPE

PRIORITIES = {Tier.INTERACTIVE.value: 1, Tier.NORMAL.value: 5, Tier.BULK.value: 9}
"""Queues of every pool; the smallest number is served first."""

USUAL = Tier.NORMAL.value
"""The queue of runs that name none."""


def make_pool(api: PrefectApi, name: str, *, description: str, limit: int | None) -> bool:
    """Make a pool with its queues, or complete the one there is; whether anything changed.

    What a person may have changed on an existing pool (limit, pause, job variables) stays.

    Args:
        api: Prefect's API.
        name: Name of the pool, an alias.
        description: Shown in Prefect's pages.
        limit: How many of its runs may be active at once, if the pool is made now; None: as many as
            there are.
    """
    try:
        pool = api.pool(name)
    except NotFound:
        pool = _create(api, name, description, limit)
        changed = True
    else:
        changed = pool.raw.get("description") != description
        if changed:
            api.call("PATCH", f"work_pools/{name}", {"description": description})
        if not pool.raw.get("base_job_template"):  # made paused by `servers add --paused`
            body = {"base_job_template": _template(), "concurrency_limit": limit}
            api.call("PATCH", f"work_pools/{name}", body)
            changed = True
    return _complete_queues(api, pool) or changed


def _template() -> dict[str, Any]:
    from stablequeue.worker.gpu_server import GpuServerWorker  # noqa: PLC0415  imports Prefect

    return GpuServerWorker.get_default_base_job_template()


def _create(api: PrefectApi, name: str, description: str, limit: int | None) -> Pool:
    body = {
        "name": name,
        "type": WORKER_TYPE,
        "description": description,
        "concurrency_limit": limit,
        "base_job_template": _template(),
    }
    return Pool.from_json(api.call("POST", "work_pools/", body))


def _complete_queues(api: PrefectApi, pool: Pool) -> bool:
    """Every pool comes with a queue `default` for runs that name none: it becomes ours."""
    path = f"work_pools/{pool.name}/queues"
    queues = {queue.name: queue for queue in api.queues(pool.name)}
    changed = False
    if "default" in queues and USUAL not in queues:
        api.call("PATCH", f"{path}/default", {"name": USUAL})
        queues[USUAL] = queues.pop("default")
        changed = True
    for name, priority in PRIORITIES.items():
        if name not in queues:
            api.call("POST", path, {"name": name, "priority": priority})
            changed = True
    if changed:
        for name, priority in PRIORITIES.items():
            api.call("PATCH", f"{path}/{name}", {"priority": priority})
    return changed
