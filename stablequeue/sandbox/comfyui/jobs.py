"""Routes of newer servers: `/api/jobs`. Source: ComfyUI's jobs API of 2026, read, not recorded."""

import json
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stablequeue.sandbox.comfyui.http import Handler, as_json, guarded, read_json
from stablequeue.sandbox.comfyui.prompts import canonical_uuid, without_secrets
from stablequeue.sandbox.comfyui.queue import Item
from stablequeue.sandbox.comfyui.server import Server

JSON = dict[str, Any]
_STATES = ("pending", "in_progress", "completed", "failed", "cancelled")
_MEDIA = {"images", "video", "audio"}


def build(server: Server) -> list[BaseRoute]:
    """Return the routes; unlike others they exist below `/api` only."""
    routes = _Jobs(server)

    def one(path: str, method: str, handler: Handler) -> Route:
        return Route(path, guarded(handler), methods=[method])

    return [
        one("/api/jobs", "GET", routes.listed),
        one("/api/jobs/cancel", "POST", routes.cancel_many),
        one("/api/jobs/{job_id}", "GET", routes.one),
        one("/api/jobs/{job_id}/cancel", "POST", routes.cancel_one),
    ]


class _Jobs:
    def __init__(self, server: Server) -> None:
        self.server = server

    async def listed(self, request: Request) -> Response:
        query = request.query_params
        wanted = [s.strip().lower() for s in query.get("status", "").split(",") if s.strip()]
        if unknown := [state for state in wanted if state not in _STATES]:
            told = f"Invalid status value(s): {', '.join(unknown)}."
            return as_json({"error": f"{told} Valid values: {', '.join(_STATES)}"}, 400)
        order = query.get("sort_order", "desc").lower()
        if order not in {"asc", "desc"}:
            return as_json({"error": "sort_order must be 'asc' or 'desc'"}, 400)
        try:
            limit = int(query["limit"]) if "limit" in query else None
            offset = max(0, int(query.get("offset", "0")))
        except ValueError:
            return as_json({"error": "limit and offset must be integers"}, 400)
        if limit is not None and limit <= 0:
            return as_json({"error": "limit must be a positive integer"}, 400)
        jobs = [job for job in self._all() if not wanted or job["status"] in wanted]
        jobs.sort(key=lambda job: job.get("create_time", 0), reverse=order == "desc")
        page = jobs[offset:] if limit is None else jobs[offset : offset + limit]
        return as_json(
            {
                "jobs": page,
                "pagination": {
                    "offset": offset,
                    "limit": limit,
                    "total": len(jobs),
                    "has_more": offset + len(page) < len(jobs),
                },
            }
        )

    def _all(self) -> list[JSON]:
        queue = self.server.queue
        return [
            *(_queued(item, "in_progress") for item in queue.running.values()),
            *(_queued(item, "pending") for item in queue.waiting),
            *(_ended(prompt_id, entry) for prompt_id, entry in queue.history.items()),
        ]

    async def one(self, request: Request) -> Response:
        job_id: str = request.path_params["job_id"]
        entry = self.server.queue.history.get(job_id)
        if entry:
            more = {
                "outputs": entry["outputs"],
                "execution_status": entry["status"],
                "workflow": {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]},
            }
            return as_json(_ended(job_id, entry) | more)
        found = next((job for job in self._all() if job["id"] == job_id), None)
        return as_json(found) if found else as_json({"error": "Job not found"}, 404)

    async def cancel_one(self, request: Request) -> Response:
        return as_json({"cancelled": self._cancel(request.path_params["job_id"])})

    async def cancel_many(self, request: Request) -> Response:
        try:
            told: Any = await read_json(request, self.server.state.config.max_upload_bytes)
        except json.JSONDecodeError:
            return as_json({"error": "Request body must be valid JSON"}, 400)
        ids: Any = cast("JSON", told).get("job_ids") if isinstance(told, dict) else None
        if not isinstance(ids, list):
            return as_json({"error": "job_ids must be a list"}, 400)
        named = cast("list[Any]", ids)
        if odd := [job_id for job_id in named if not canonical_uuid(job_id)]:
            told = [job_id if isinstance(job_id, str) else repr(job_id) for job_id in odd]
            return as_json({"error": "job_ids contains invalid id(s)", "invalid_ids": told}, 400)
        results = [self._cancel(job_id) for job_id in named]  # every one, whatever the first says
        return as_json({"cancelled": any(results)})

    def _cancel(self, job_id: str) -> bool:
        """Stop or withdraw a job, without the window that `/interrupt` leaves."""
        if job_id in self.server.queue.history:
            return False
        if any(item[1] == job_id for item in self.server.queue.running.values()):
            self.server.executor.interrupt_surely(job_id)
            return True
        return self.server.queue.delete(job_id)


def _queued(item: Item, status: str) -> JSON:
    extra = without_secrets(item[3])
    return _pruned(
        {
            "id": item[1],
            "status": status,
            "priority": item[0],
            "create_time": extra.get("create_time"),
            "outputs_count": 0,
        }
    )


def _ended(prompt_id: str, entry: JSON) -> JSON:
    events: JSON = dict(entry["status"]["messages"])
    end = next((name for name in events if name != "execution_start" and _is_end(name)), None)
    status = {
        "execution_success": "completed",
        "execution_interrupted": "cancelled",
    }.get(end or "", "failed")
    outputs: list[JSON] = [
        {**cast("JSON", item), "nodeId": node_id, "mediaType": kind}
        for node_id, told in entry["outputs"].items()
        for kind, items in told.items()
        for item in items
        if isinstance(item, dict)
    ]
    shown = [output for output in outputs if output["mediaType"] in _MEDIA]
    stored = [output for output in shown if output.get("type") == "output"]
    return _pruned(
        {
            "id": prompt_id,
            "status": status,
            "priority": entry["prompt"][0],
            "create_time": entry["prompt"][3].get("create_time"),
            "execution_start_time": events.get("execution_start", {}).get("timestamp"),
            "execution_end_time": events[end]["timestamp"] if end else None,
            "execution_error": events.get("execution_error"),
            "outputs_count": len(outputs),
            "preview_output": next(iter([*stored, *shown]), None),
        }
    )


def _is_end(event: str) -> bool:
    return event in {"execution_success", "execution_error", "execution_interrupted"}


def _pruned(job: JSON) -> JSON:
    return {key: value for key, value in job.items() if value is not None}
