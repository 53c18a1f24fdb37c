"""Bring Prefect in line with the saved servers: block types, pools, queues, deployments."""

import logging
from collections.abc import Sequence

from blocks.server import GenerationServer
from blocks.store import PictureBucket, PictureFolder
from deployments.deploying import SERVER_TAG, Deployer, Plan
from deployments.pools import USUAL, make_pool
from deployments.static import static_plans
from stablequeue.errors import NotFound
from stablequeue.prefect_api import ACTIVE, PrefectApi, StateType, run_filter
from stablequeue.project import project_dir
from stablequeue.server_blocks import saved_servers
from stablequeue.servers import ANY, ServerConfig

logger = logging.getLogger("stablequeue.deployments")

ENTRYPOINT = "flows/generate.py:generate"
FLOW = "generate"
REMOVED = "Its server is no longer saved; paused until its jobs are gone. "
ANY_LIMIT = 4


def bootstrap(api: PrefectApi, *, limit: int = 1) -> list[str]:
    """Make everything the saved servers need; running it again changes nothing.

    The process must have Prefect's settings in its environment and the project's folder as its
    working directory.

    Args:
        api: Prefect's API.
        limit: Runs of one server active at once, for pools made now.

    Returns:
        What was changed, one line each.
    """
    for block in (GenerationServer, PictureFolder, PictureBucket):
        block.register_type_and_schema()
    servers = saved_servers(api)
    deployer = Deployer(api)
    done: list[str] = []
    if make_pool(api, ANY, description="Jobs for any server", limit=ANY_LIMIT):
        done.append(f"pool {ANY}")
    plans = static_plans(project_dir())
    for server in servers:
        if _pool_for(api, server, limit):
            done.append(f"pool {server.alias}")
        plans.append(_plan_for(server))
    done += [f"deployment {plan.name}" for plan in plans if deployer.deploy(plan)]
    done += _remove_others(api, servers)
    for line in done:
        logger.info("%s", line)
    return done


def _pool_for(api: PrefectApi, server: ServerConfig, limit: int) -> bool:
    description = f"{server.type} at {server.base_url}"
    try:
        came_back = str(api.pool(server.alias).raw.get("description")).startswith(REMOVED)
    except NotFound:
        came_back = False
    changed = make_pool(api, server.alias, description=description, limit=limit)
    if came_back:
        api.resume_pool(server.alias)
    return changed


def _plan_for(server: ServerConfig) -> Plan:
    return Plan(
        name=server.alias,
        entrypoint=ENTRYPOINT,
        description=f"Make pictures on {server.alias} ({server.type} at {server.base_url}).",
        pool=server.alias,
        queue=USUAL,
        server=server.alias,
        fixed=True,
        tags=(SERVER_TAG,),
    )


def _remove_others(api: PrefectApi, servers: Sequence[ServerConfig]) -> list[str]:
    """Take away deployments and pools of servers that are no longer saved."""
    aliases = {server.alias for server in servers}
    done: list[str] = []
    for deployment in api.deployments(flow=FLOW):
        name = deployment.name
        if name in aliases or SERVER_TAG not in deployment.raw.get("tags", ()):
            continue
        left = api.count_runs(
            run_filter(deployments=[name], states=[*ACTIVE, StateType.SCHEDULED, StateType.PAUSED])
        )
        if left:
            if _pause(api, name):
                done.append(f"{name}: paused, {left} jobs are left; save it again or cancel them")
            continue
        api.delete_deployment(deployment.id)
        try:
            api.delete_pool(name)
        except NotFound:
            logger.debug("pool %s was gone", name)
        done.append(f"{name}: removed")
    return done


def _pause(api: PrefectApi, name: str) -> bool:
    """Pause the pool of a removed server; whether it was not before."""
    try:
        description = str(api.pool(name).raw.get("description") or "")
    except NotFound:
        return False
    if description.startswith(REMOVED):
        return False
    api.pause_pool(name)
    api.call("PATCH", f"work_pools/{name}", {"description": REMOVED + description})
    return True
