"""One deployment, made or brought up to date over Prefect's HTTP API.

An existing deployment is changed in place, never made anew: that would delete the schedules people
added in Prefect's pages.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deployments.schema import form_schema
from stablequeue.errors import NotFound
from stablequeue.prefect_api import Deployment, PrefectApi

PULL_STEPS: list[dict[str, Any]] = [{"stablequeue.project.enter": {}}]
"""Run in the project's folder, wherever it is on the worker's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a deployment should be.

    Attributes:
        name: Of the deployment.
        entrypoint: Relative to the project's folder, file:function.
        server: Alias its form is for, or any; empty: the flow takes no request.
        kind: Type of that server.
        fixed: Whether a run may name no other server.
        schedules: As Prefect's API takes them, each with a slug; added if missing.
    """

    name: str
    entrypoint: str
    pool: str
    queue: str
    description: str = ""
    server: str = ""
    kind: str = ""
    fixed: bool = False
    tags: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict[str, Any])
    job_variables: dict[str, Any] = field(default_factory=dict[str, Any])
    schedules: tuple[dict[str, Any], ...] = ()


class Deployer:
    """Makes deployments; loads each flow once.

    Args:
        api: Prefect's API.
    """

    def __init__(self, api: PrefectApi) -> None:
        self._api = api
        self._flows: dict[str, tuple[str, dict[str, Any]]] = {}

    def deploy(self, plan: Plan) -> bool:
        """Bring one deployment in line with its plan; whether anything changed.

        Raises:
            ImportError: The flow cannot be loaded (also SyntaxError and what its module raises).
            PrefectRefused: Prefect does not take it.
        """
        flow_name, parameters = self._flow(plan.entrypoint)
        schema = parameters
        if plan.server:
            schema = form_schema(parameters, plan.server, kind=plan.kind, fixed=plan.fixed)
        body: dict[str, Any] = {
            "description": plan.description,
            "entrypoint": plan.entrypoint,
            "pull_steps": PULL_STEPS,
            "work_pool_name": plan.pool,
            "work_queue_name": plan.queue,
            "tags": sorted(plan.tags),
            "parameters": plan.parameters,
            "parameter_openapi_schema": schema,
            "enforce_parameter_schema": True,
            "job_variables": plan.job_variables,
        }
        body["version"] = _fingerprint({**body, "schedules": plan.schedules})
        try:
            found = self._api.deployment(f"{flow_name}/{plan.name}")
        except NotFound:
            self._create(flow_name, plan, body)
            return True
        if found.raw.get("version") == body["version"] and found.pool == plan.pool:
            return False
        self._api.call("PATCH", f"deployments/{found.id}", body)
        self._add_schedules(found, plan)
        return True

    def _create(self, flow_name: str, plan: Plan, body: dict[str, Any]) -> None:
        flow = self._api.call("POST", "flows/", {"name": flow_name})
        new = {**body, "name": plan.name, "flow_id": flow["id"], "schedules": plan.schedules}
        self._api.call("POST", "deployments/", new)

    def _add_schedules(self, found: Deployment, plan: Plan) -> None:
        there = {schedule.get("slug") for schedule in found.raw.get("schedules") or ()}
        missing = [schedule for schedule in plan.schedules if schedule["slug"] not in there]
        if missing:
            self._api.call("POST", f"deployments/{found.id}/schedules", missing)

    def _flow(self, entrypoint: str) -> tuple[str, dict[str, Any]]:
        if entrypoint not in self._flows:
            flow: Flow[..., Any] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
            schema = parameter_schema(flow).model_dump_for_openapi()
            self._flows[entrypoint] = (flow.name, schema)
        return self._flows[entrypoint]


def _fingerprint(body: dict[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
