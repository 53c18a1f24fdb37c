"""Routes about prompts: queueing, looking, cancelling, history, memory."""

import json
import time
import uuid
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from stablequeue.sandbox.comfyui.executor import PROTOCOL
from stablequeue.sandbox.comfyui.http import as_json, empty, read_json, route
from stablequeue.sandbox.comfyui.queue import SECRETS
from stablequeue.sandbox.comfyui.server import Server
from stablequeue.sandbox.comfyui.validation import error, validate
from stablequeue.sandbox.faults import FaultKind

JSON = dict[str, Any]


def build(server: Server) -> list[BaseRoute]:
    """Return the routes."""
    routes = _Prompts(server)
    return [
        *route("/prompt", get=routes.info, post=routes.post),
        *route("/queue", get=routes.queue, post=routes.change_queue),
        *route("/interrupt", post=routes.interrupt),
        *route("/history", get=routes.history, post=routes.change_history),
        *route("/history/{prompt_id}", get=routes.history_of),
        *route("/free", post=routes.free),
    ]


def canonical_uuid(text: Any) -> bool:
    """Say whether `text` is a UUID in lowercase with hyphens, all a newer server takes."""
    try:
        return isinstance(text, str) and str(uuid.UUID(text)) == text
    except ValueError:
        return False


class _Prompts:
    def __init__(self, server: Server) -> None:
        self.server = server
        self.limit = server.state.config.max_upload_bytes
        self.newer = server.state.config.newer_comfyui

    async def info(self, _request: Request) -> Response:
        return as_json(self.server.queue_info())

    async def post(self, request: Request) -> Response:
        """Judge and queue a prompt; the steps come in the order their failures show."""
        server = self.server
        told: JSON = await read_json(request, self.limit)
        number = self._number(told)
        if "prompt" not in told:
            missing = error("no_prompt", "No prompt provided", "No prompt provided")
            return as_json({"error": missing, "node_errors": {}}, 400)
        prompt = told["prompt"]
        prompt_id = self._prompt_id(told)
        if prompt_id is None:
            refused = error(
                "invalid_prompt_id",
                "prompt_id must be a valid UUID",
                "expected a UUID in lowercase with hyphens",
            )
            return as_json({"error": refused, "node_errors": {}}, 400)
        verdict = validate(server, prompt, told.get("partial_execution_targets"))
        extra: JSON = told.get("extra_data", {})
        if "client_id" in told:
            extra["client_id"] = told["client_id"]
        if verdict.error:
            return as_json({"error": verdict.error, "node_errors": verdict.node_errors}, 400)
        if not isinstance(extra, dict):  # pyright: ignore[reportUnnecessaryIsInstance] - as posted
            raise TypeError(extra)
        if self.newer:
            extra["create_time"] = int(time.time() * 1000)
        server.state.note("queued", prompt_id=prompt_id, number=number)
        server.queue.put((number, prompt_id, prompt, extra, verdict.outputs))
        return as_json(
            {"prompt_id": prompt_id, "number": number, "node_errors": verdict.node_errors}
        )

    def _number(self, told: JSON) -> float:
        if "number" in told:
            return float(told["number"])
        number = -self.server.number if told.get("front") else self.server.number
        self.server.number += 1
        return number

    def _prompt_id(self, told: JSON) -> str | None:
        """Return the id to use, or None if the server refuses the one given."""
        if not self.newer:
            return str(told.get("prompt_id", uuid.uuid4()))
        given = told.get("prompt_id")
        if given is None:
            return str(uuid.uuid4())
        return given if canonical_uuid(given) else None

    async def queue(self, _request: Request) -> Response:
        queue = self.server.queue
        running, waiting = list(queue.running.values()), list(queue.waiting)
        if self.newer:
            running = [(*i[:3], without_secrets(i[3]), i[4]) for i in running]
            waiting = [(*i[:3], without_secrets(i[3]), i[4]) for i in waiting]
        return as_json({"queue_running": running, "queue_pending": waiting})

    async def change_queue(self, request: Request) -> Response:
        told: JSON = await read_json(request, self.limit)
        if told.get("clear"):
            self.server.queue.wipe()
        for prompt_id in told.get("delete", ()):  # a text is gone through letter by letter
            self.server.queue.delete(prompt_id)
        return empty()

    async def interrupt(self, request: Request) -> Response:
        """Stop one prompt if it runs; without an id, stop whatever runs."""
        try:
            told: JSON = await read_json(request, self.limit)
        except json.JSONDecodeError:
            told = {}
        prompt_id = told.get("prompt_id")
        running = [item[1] for item in self.server.queue.running.values()]
        if prompt_id and prompt_id not in running:
            return empty()
        if not self.server.state.faults.take(FaultKind.LOSE_INTERRUPT, "interrupt", PROTOCOL):
            self.server.executor.interrupted = True
        self.server.state.note("interrupt", prompt_id=prompt_id)
        return empty()

    async def history(self, request: Request) -> Response:
        query = request.query_params
        most = int(query["max_items"]) if "max_items" in query else None
        offset = int(query["offset"]) if "offset" in query else -1
        return as_json(self.server.queue.page(most, offset))

    async def history_of(self, request: Request) -> Response:
        prompt_id: str = request.path_params["prompt_id"]
        entry = self.server.queue.history.get(prompt_id)
        return as_json({prompt_id: entry} if entry else {})

    async def change_history(self, request: Request) -> Response:
        told: JSON = await read_json(request, self.limit)
        history = self.server.queue.history
        if told.get("clear"):
            history.clear()
        for prompt_id in told.get("delete", ()):
            history.pop(prompt_id, None)
        return empty()

    async def free(self, request: Request) -> Response:
        told: JSON = await read_json(request, self.limit)
        for flag in ("unload_models", "free_memory"):
            if told.get(flag):
                self.server.queue.set_flag(flag, value=True)
        self.server.state.note("free", asked=[flag for flag in told if told[flag]])
        return empty()


def without_secrets(extra: JSON) -> JSON:
    """Return extra data without the keys that newer servers hide."""
    return {key: value for key, value in extra.items() if key not in SECRETS}
