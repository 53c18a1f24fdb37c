"""Gradio 4.40's queue: `/queue/join`, events over `/queue/data`, `/call`, `/cancel`, `/config`.

Each function works on one event at a time; its jobs take the same lock as the API's, but wait in
a queue of their own, so API jobs overtake them. Events of a session are kept until they are read
once; after a dropped stream the session is lost, although its job runs on.
"""

import asyncio
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from stablequeue.sandbox.forge.answers import Failure, answer, read_model
from stablequeue.sandbox.forge.gradio_config import FUNCTIONS, api_info, config
from stablequeue.sandbox.forge.gradio_jobs import BadInputs, GradioJobs
from stablequeue.sandbox.forge.payloads import CancelPayload, QueuePayload
from stablequeue.sandbox.forge.routing import Endpoint, Guard, Handler
from stablequeue.sandbox.forge.server import ForgeServer

_Work = Callable[[Sequence[Any], Callable[[str], str]], Awaitable[list[Any]]]


class StreamBroken(Exception):
    """Ends an event stream in the middle, as the real server does for a lost session."""


@dataclass
class _Function:
    name: str
    inputs: int
    work: _Work
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0
    durations: list[float] = field(default_factory=list[float])

    def average(self) -> float | None:
        return sum(self.durations) / len(self.durations) if self.durations else None


@dataclass
class _Session:
    messages: "asyncio.Queue[dict[str, Any]]" = field(default_factory=asyncio.Queue[dict[str, Any]])
    open_events: set[str] = field(default_factory=set[str])


class GradioQueue:
    """The queue of one boot."""

    def __init__(self, server: ForgeServer) -> None:
        self._server = server
        jobs = GradioJobs(server)
        works: dict[str, _Work] = {
            "txt2img": jobs.txt2img,
            "restore_progress": jobs.restore_progress,
            "nothing": jobs.nothing,
        }
        self._functions = {
            number: _Function(name, inputs, works[work])
            for number, (name, inputs, work) in FUNCTIONS.items()
        }
        self._sessions: dict[str, _Session] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    # Routes

    async def join(self, server: ForgeServer, request: Request) -> Response:
        """Answer `POST /queue/join`."""
        del server
        payload = await read_model(request, QueuePayload)
        function = self._functions.get(-1 if payload.fn_index is None else payload.fn_index)
        if function is None:
            raise Failure("KeyError", str(payload.fn_index))
        session = payload.session_hash or uuid.uuid4().hex
        base = str(request.base_url)
        return answer({"event_id": self._enqueue(function, payload.data, session, base)})

    async def call(self, server: ForgeServer, request: Request) -> Response:
        """Answer `POST /call/{name}`; the file addresses it will tell are wrong, as recorded."""
        del server
        name = request.path_params["name"]
        function = next((f for f in self._functions.values() if f.name == name), None)
        if function is None:
            raise Failure("StopIteration")
        payload = await read_model(request, QueuePayload)
        session = uuid.uuid4().hex
        base = f"{request.base_url}cal/"
        return answer({"event_id": self._enqueue(function, payload.data, session, base, session)})

    async def call_result(self, server: ForgeServer, request: Request) -> Response:
        """Answer `GET /call/{name}/{event}`: one event when the job is over."""
        del server
        session = self._sessions.get(request.path_params["event"])

        async def stream() -> AsyncIterator[str]:
            while session is not None:
                message = await session.messages.get()
                if message["msg"] == "process_completed":
                    ok = message["success"]
                    data = message["output"]["data"] if ok else None
                    yield f"event: {'complete' if ok else 'error'}\ndata: {json.dumps(data)}\n\n"
                    return

        return StreamingResponse(stream(), media_type="text/event-stream")

    async def data(self, server: ForgeServer, request: Request) -> Response:
        """Answer `GET /queue/data`: the session's events, also those from before."""
        key = request.query_params.get("session_hash", "")
        seconds = server.settings.heartbeat_s
        stream = self._stream(key, seconds)
        return StreamingResponse(stream, media_type="text/event-stream")

    async def status(self, server: ForgeServer, request: Request) -> Response:
        """Answer `GET /queue/status`: Gradio's waiting events only."""
        del server, request
        told: dict[str, Any] = {"msg": "estimation", "event_id": None, "rank": None}
        told["queue_size"] = sum(function.waiting for function in self._functions.values())
        return answer({**told, "rank_eta": None})

    async def cancel(self, server: ForgeServer, request: Request) -> Response:
        """Answer `POST /cancel`: ends the event stream, not the work."""
        del server
        payload = await read_model(request, CancelPayload)
        session = self._sessions.get(payload.session_hash)
        if session is not None and payload.event_id in session.open_events:
            self._close(session, payload.event_id, {}, success=True)
        return answer({"success": True})

    async def reset(self, server: ForgeServer, request: Request) -> Response:
        """Answer `POST /reset`."""
        del server, request
        return answer({"success": True})

    # Work

    def _enqueue(
        self,
        function: _Function,
        data: Sequence[Any],
        session_key: str,
        base: str,
        event: str = "",
    ) -> str:
        event = event or uuid.uuid4().hex
        session = self._sessions.setdefault(session_key, _Session())
        session.open_events.add(event)
        running = function.lock.locked()
        rank, average = function.waiting, function.average()
        ahead = rank + 1 + (1 if running else 0)
        session.messages.put_nowait(
            {
                "msg": "estimation",
                "event_id": event,
                "rank": rank,
                "queue_size": rank + 1,
                "rank_eta": average * ahead if average is not None else None,
            }
        )
        function.waiting += 1
        self._server.state.note("forge.join", function=function.name, event=event)
        work = self._work(function, data, session, event, lambda path: f"{base}file={path}")
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return event

    async def _work(
        self,
        function: _Function,
        data: Sequence[Any],
        session: _Session,
        event: str,
        url_of: Callable[[str], str],
    ) -> None:
        async with function.lock:
            function.waiting -= 1
            session.messages.put_nowait(
                {"msg": "process_starts", "event_id": event, "eta": function.average()}
            )
            started = time.monotonic()
            made: list[Any] | None = None
            if len(data) == function.inputs:
                with contextlib.suppress(BadInputs):
                    async with self._server.slots:
                        made = await function.work(data, url_of)
            if made is None:
                self._close(session, event, {"error": None}, success=False)
                return
            took = time.monotonic() - started
            function.durations.append(took)
            output = {
                "data": made,
                "is_generating": False,
                "duration": took,
                "average_duration": function.average(),
                "render_config": None,
                "changed_state_ids": [],
            }
            self._close(session, event, output, success=True)

    def _close(
        self, session: _Session, event: str, output: dict[str, Any], *, success: bool
    ) -> None:
        if event not in session.open_events:
            return  # cancelled meanwhile
        session.open_events.discard(event)
        told = {"msg": "process_completed", "event_id": event, "output": output}
        session.messages.put_nowait({**told, "success": success})

    async def _stream(self, key: str, heartbeat_s: float) -> AsyncIterator[str]:
        session = self._sessions.get(key)
        if session is None:
            told = {"msg": "unexpected_error", "event_id": None, "message": "", "success": False}
            yield _line(told)
            raise StreamBroken
        finished = False
        try:
            while not finished:
                try:
                    message = await asyncio.wait_for(session.messages.get(), heartbeat_s)
                except TimeoutError:
                    message = {"msg": "heartbeat", "event_id": None}
                yield _line(message)
                finished = message["msg"] == "process_completed" and not session.open_events
            yield _line({"msg": "close_stream", "event_id": None})
        finally:
            if not finished:
                self._sessions.pop(key, None)


def _line(message: dict[str, Any]) -> str:
    return f"data: {json.dumps(message)}\n\n"


async def _config(server: ForgeServer, request: Request) -> Response:
    titles = [checkpoint.title for checkpoint in server.shelf.checkpoints]
    return answer(config(server.app_id, str(request.base_url).rstrip("/"), titles))


async def _info(server: ForgeServer, request: Request) -> Response:
    del server, request
    return answer(api_info())


def endpoints(server: ForgeServer) -> list[Endpoint]:
    """Return this module's routes. AUTOMATIC1111 runs Gradio 3, whose queue is another one."""
    gets: dict[str, Handler] = {"/config": _config, "/config/": _config, "/info": _info}
    listed = [Endpoint(path=p, handler=h, guard=Guard.LOGIN) for p, h in gets.items()]
    if not server.settings.is_forge:
        return listed
    queue = GradioQueue(server)

    def one(path: str, handler: Handler, method: str = "GET", *, slot: bool = True) -> Endpoint:
        methods = (method,)
        return Endpoint(path=path, handler=handler, methods=methods, guard=Guard.LOGIN, slot=slot)

    return [
        *listed,
        one("/queue/join", queue.join, "POST"),
        one("/queue/data", queue.data, slot=False),
        one("/queue/status", queue.status),
        one("/call/{name}", queue.call, "POST"),
        one("/call/{name}/{event}", queue.call_result, slot=False),
        one("/cancel", queue.cancel, "POST"),
        one("/reset", queue.reset, "POST"),
    ]
