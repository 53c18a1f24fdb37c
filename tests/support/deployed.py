"""Pools, deployments and block types on the tests' Prefect server, made over HTTP.

The same names and shapes as `deployments/` makes, without importing Prefect: for tests of what
only talks to Prefect's API.
"""

from typing import Any

from stablequeue.errors import PrefectRefused
from stablequeue.prefect_api import PrefectApi
from stablequeue.server_blocks import SERVER_BLOCK

TIERS = ("interactive", "normal", "bulk")


def deploy(api: PrefectApi, alias: str, *, flow: str = "generate") -> None:
    """Make pool, queues and deployment of a server; again is fine."""
    try:
        api.call("POST", "work_pools/", {"name": alias, "type": "gpu-server"})
    except PrefectRefused:
        return  # made by another test
    for priority, tier in enumerate(TIERS, start=1):
        body = {"name": tier, "priority": priority}
        api.call("POST", f"work_pools/{alias}/queues", body)
    flow_id = api.call("POST", "flows/", {"name": flow})["id"]
    api.call(
        "POST",
        "deployments/",
        {"name": alias, "flow_id": flow_id, "work_pool_name": alias, "work_queue_name": "normal"},
    )


def register_server_block(api: PrefectApi) -> None:
    """Register the block type of servers, with its secrets; again is fine."""
    try:
        kind = api.call("POST", "block_types/", {"name": "Generation server", "slug": SERVER_BLOCK})
    except PrefectRefused:
        return
    secrets = ["password", "token", "ui_password"]
    schema: dict[str, Any] = {
        "title": "GenerationServer",
        "type": "object",
        "properties": {name: {"type": "string", "format": "password"} for name in secrets},
        "block_type_slug": SERVER_BLOCK,
        "secret_fields": secrets,
        "block_schema_references": {},
    }
    body: dict[str, Any] = {"block_type_id": kind["id"], "fields": schema, "capabilities": []}
    api.call("POST", "block_schemas/", body)
