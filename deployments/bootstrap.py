"""Bring Prefect in line with the saved servers: block types, pools, queues, deployments."""

import logging
from dataclasses import dataclass, field

from blocks.server import GenerationServer
from blocks.store import PictureBucket, PictureFolder
from deployments.deploying import PULL_STEPS, Deployer, Plan
from deployments.pools import USUAL, make_pool
from deployments.sandbox import save_sandbox
from deployments.static import static_plans
from deployments.unchanged import FLOW
from stablequeue.errors import NotFound
from stablequeue.prefect_api import ACTIVE, Deployment, PrefectApi, StateType, run_filter
from stablequeue.project import project_dir
from stablequeue.server_blocks import SERVER_BLOCK, saved_servers
from stablequeue.servers import ANY, DOWNLOADS, ServerConfig
from stablequeue.worker.ahead import MOST_LIMIT

logger = logging.getLogger("stablequeue.deployments")

ENTRYPOINT = "flows/generate.py:generate"
DOWNLOADS_AT_ONCE = 2
"""Limit of the pool of downloads when it is made: more files at once cost a host's goodwill."""

REMOVED = "Its server is no longer saved; paused until its jobs are gone. "


@dataclass(frozen=True, slots=True)
class Report:
    """What one run did.

    Attributes:
        changed: One line each; empty: all was as it should be.
        unfinished: Removed servers whose jobs are not gone yet.
        servers: The saved servers everything was made for.
    """

    changed: tuple[str, ...]
    unfinished: tuple[str, ...]
    servers: tuple[ServerConfig, ...] = field(default=(), compare=False)


def bootstrap(api: PrefectApi, *, limit: int = MOST_LIMIT, sandbox_url: str = "") -> Report:
    """Make everything the saved servers need; running it again changes nothing.

    The process must have Prefect's settings in its environment and the project's folder as its
    working directory.

    Args:
        api: Prefect's API.
        limit: Runs of one server active at once, for pools made now. Its worker takes as many of
            them as pays: one generates, the others prepare and store meanwhile.
        sandbox_url: Where the built-in server is reached; it is saved when no server is. Empty:
            leave the saved servers as they are.
    """
    for block in (GenerationServer, PictureFolder, PictureBucket):
        block.register_type_and_schema()
    changed = save_sandbox(api, sandbox_url) if sandbox_url else []
    servers = saved_servers(api)
    deployer = Deployer(api)
    if make_pool(api, ANY, description="Jobs for any server", limit=None):
        changed.append(f"pool {ANY}")
    if make_pool(api, DOWNLOADS, description="Downloads of models", limit=DOWNLOADS_AT_ONCE):
        changed.append(f"pool {DOWNLOADS}")
    plans = static_plans(project_dir())
    for server in servers:
        if _pool_for(api, server, limit):
            changed.append(f"pool {server.alias}")
        plans.append(_plan_for(server))
    changed += [f"deployment {plan.name}" for plan in plans if deployer.deploy(plan)]
    unfinished: list[str] = []
    for deployment in _no_longer_saved(api):
        if left := _jobs_left(api, deployment.name):
            unfinished.append(deployment.name)
            if _pause(api, deployment.name):
                changed.append(
                    f"{deployment.name}: paused, {left} jobs are left; save it again or cancel them"
                )
        else:
            _remove(api, deployment)
            changed.append(f"{deployment.name}: removed")
    for line in changed:
        logger.info("%s", line)
    return Report(tuple(changed), tuple(unfinished), tuple(servers))


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
        kind=server.type,
        fixed=True,
    )


def _no_longer_saved(api: PrefectApi) -> list[Deployment]:
    """Return deployments made for servers whose block is gone; a damaged block is not gone."""
    saved = {document.name for document in api.block_documents(SERVER_BLOCK)}
    return [
        deployment
        for deployment in api.deployments(flow=FLOW)
        if deployment.name not in saved and _is_ours(deployment)
    ]


def _jobs_left(api: PrefectApi, name: str) -> int:
    states = [*ACTIVE, StateType.SCHEDULED, StateType.PAUSED]
    return api.count_runs(run_filter(deployments=[name], states=states))


def _remove(api: PrefectApi, deployment: Deployment) -> None:
    api.delete_deployment(deployment.id)
    try:
        api.delete_pool(deployment.name)
    except NotFound:
        logger.debug("pool %s was gone", deployment.name)


def _is_ours(deployment: Deployment) -> bool:
    """Whether it was made for a saved server, and not by a person or `prefect.yaml`."""
    made = (deployment.raw.get("entrypoint"), deployment.raw.get("pull_steps"))
    own_pool = deployment.pool in {"", deployment.name}
    return made == (ENTRYPOINT, PULL_STEPS) and own_pool and deployment.name != ANY


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
