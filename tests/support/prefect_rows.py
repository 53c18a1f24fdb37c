"""Rows in Prefect that tests of its HTTP API need, made over that API."""

from uuid import uuid4

from stablequeue.prefect_api import Deployment, PrefectApi


def make_deployment(
    api: PrefectApi, *, flow: str = "", schema: dict[str, object] | None = None
) -> Deployment:
    """Make a deployment with a pool of its own that no worker serves."""
    name = f"pool-{uuid4().hex[:12]}"
    flow_row = api.call("POST", "flows/", {"name": flow or f"flow-{name}"})
    api.call("POST", "work_pools/", {"name": name, "type": "process", "base_job_template": {}})
    row = api.call(
        "POST",
        "deployments/",
        {
            "name": name,
            "flow_id": flow_row["id"],
            "work_pool_name": name,
            "parameter_openapi_schema": schema or {"type": "object", "properties": {}},
            "enforce_parameter_schema": True,
        },
    )
    return Deployment.from_json(row)
