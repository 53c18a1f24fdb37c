"""A ComfyUI that does what a test tells it to, over real sockets.

By itself it answers as recorded: it queues what is posted and runs nothing. A test moves prompts
on (`run`, `finish`), talks to sockets (`say`), and can replace any answer (`script`).
"""

import asyncio
import contextlib
import json
import socket
import struct
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email import message_from_bytes
from email.policy import HTTP
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from tests.engines.comfyui.recordings import recorded

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de0000000c4944415408d763f8"
    "cfc0000003010100c9fe92ef0000000049454e44ae426082"
)


@dataclass(frozen=True)
class Call:
    """One request as it came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


Answer = Response | Callable[[Call], Awaitable[Response] | Response]


class CutShort(Response):
    """An answer that ends in the middle: the connection is closed."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"prompt', "more_body": False})


@dataclass
class Scripted:
    """The server's state, for a test to read and change."""

    url: str = ""
    calls: list[Call] = field(default_factory=list[Call])
    running: list[list[Any]] = field(default_factory=list[list[Any]])
    pending: list[list[Any]] = field(default_factory=list[list[Any]])
    history: dict[str, Any] = field(default_factory=dict[str, Any])
    files: dict[tuple[str, str, str], bytes] = field(
        default_factory=dict[tuple[str, str, str], bytes]
    )
    uploads: dict[str, bytes] = field(default_factory=dict[str, bytes])
    sockets: dict[str, WebSocket] = field(default_factory=dict[str, WebSocket])
    opened: list[str] = field(default_factory=list[str])
    said_first: list[Any] = field(default_factory=list[Any])
    handshake_headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    refuse_sockets: bool = False
    jobs_api: bool = False
    number: int = 0
    stats: dict[str, Any] = field(default_factory=lambda: recorded("get")["/system_stats"])
    classes: dict[str, Any] = field(default_factory=lambda: recorded("object_info"))
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    scripts: dict[str, deque[Answer]] = field(
        default_factory=lambda: defaultdict[str, deque[Answer]](deque)
    )
    standing: dict[str, Answer] = field(default_factory=dict[str, Answer])

    # What a test does.

    def script(self, call: str, *answers: Answer) -> None:
        """Answer the next requests `METHOD /path` so, before going on as usual."""
        self.scripts[call].extend(answers)

    def always(self, call: str, answer: Answer) -> None:
        """Answer every request `METHOD /path` so."""
        self.standing[call] = answer

    def count(self, call: str) -> int:
        """Return how often `METHOD /path` was asked."""
        return sum(f"{c.method} {c.path}" == call for c in self.calls)

    def posted(self) -> list[Any]:
        """Return the bodies of all prompts posted."""
        return [c.json for c in self.calls if (c.method, c.path) == ("POST", "/prompt")]

    def graph(self, prompt_id: str) -> dict[str, Any]:
        """Return the graph of a prompt that waits or runs."""
        return next(i[2] for i in (*self.running, *self.pending) if i[1] == prompt_id)

    def run(self, prompt_id: str) -> None:
        """Let a waiting prompt run."""
        (item,) = [i for i in self.pending if i[1] == prompt_id]
        self.pending.remove(item)
        self.running.append(item)

    def finish(
        self,
        prompt_id: str,
        *,
        outputs: Mapping[str, Any] | None = None,
        messages: list[Any] | None = None,
        status: str = "success",
    ) -> None:
        """Move a prompt to the history; by itself it saved the one picture it was to save."""
        items = [i for i in (*self.running, *self.pending) if i[1] == prompt_id]
        item = items[0]
        self.running = [i for i in self.running if i is not item]
        self.pending = [i for i in self.pending if i is not item]
        made = self.saved(item[2]) if outputs is None else dict(outputs)
        end = [["execution_success", {"prompt_id": prompt_id, "timestamp": 1_500}]]
        start = [["execution_start", {"prompt_id": prompt_id, "timestamp": 1_000}]]
        self.history[prompt_id] = {
            "prompt": item,
            "outputs": made,
            "status": {
                "status_str": status,
                "completed": status == "success",
                "messages": start + (end if messages is None else messages),
            },
        }

    def saved(self, graph: Mapping[str, Any]) -> dict[str, Any]:
        """Save a picture for every SaveImage of a graph; return the outputs it is listed in."""
        outputs: dict[str, Any] = {}
        for node_id, node in graph.items():
            if node["class_type"] == "SaveImage":
                folder, _, name = node["inputs"]["filename_prefix"].rpartition("/")
                file = {"filename": f"{name}_00001_.png", "subfolder": folder, "type": "output"}
                self.files["output", folder, file["filename"]] = PNG
                outputs[node_id] = {"images": [file]}
        return outputs

    def forget_everything(self) -> None:
        """Lose what a killed server loses: all but the files."""
        self.running, self.pending, self.history, self.number = [], [], {}, 0

    async def say(self, client_id: str, kind: str, **data: Any) -> None:
        """Send a message to one client's socket."""
        await self.sockets[client_id].send_json({"type": kind, "data": data})

    async def show(self, client_id: str, image: bytes, about: Mapping[str, Any] | None) -> None:
        """Send a preview: with metadata (event 4), or without (event 1)."""
        if about is None:
            frame = struct.pack(">II", 1, 1) + image
        else:
            told = json.dumps(about).encode()
            frame = struct.pack(">II", 4, len(told)) + told + image
        await self.sockets[client_id].send_bytes(frame)

    # How it answers.

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        call = Call(
            method=request.method,
            path=f"/{request.path_params['path']}",
            query=dict(request.query_params),
            headers=dict(request.headers),
            body=body,
        )
        self.calls.append(call)
        key = f"{call.method} {call.path}"
        chosen: Answer | None = None
        if self.scripts[key]:
            chosen = self.scripts[key].popleft()
        elif key in self.standing:
            chosen = self.standing[key]
        if chosen is None:
            return self.usual(call)
        if isinstance(chosen, Response):
            return chosen
        made = chosen(call)
        return made if isinstance(made, Response) else await made

    def usual(self, call: Call) -> Response:  # noqa: C901, PLR0911, PLR0912
        gets = recorded("get")
        path = call.path.strip("/").split("/")
        match [call.method, *path]:
            case ["GET", "system_stats"]:
                return JSONResponse(self.stats)
            case ["GET", "features" | "embeddings"]:
                return JSONResponse(gets[call.path])
            case ["GET", "prompt"]:
                left = len(self.running) + len(self.pending)
                return JSONResponse({"exec_info": {"queue_remaining": left}})
            case ["GET", "object_info", name]:
                return JSONResponse({name: self.classes[name]} if name in self.classes else {})
            case ["GET", "object_info"]:
                return JSONResponse(self.classes)
            case ["GET", "view_metadata", _]:
                found = self.metadata.get(call.query["filename"])
                return JSONResponse(found) if found else Response(status_code=404)
            case ["GET", "queue"]:
                queue = {"queue_running": self.running, "queue_pending": self.pending}
                return JSONResponse(queue)
            case ["GET", "history", prompt_id]:
                entry = self.history.get(prompt_id)
                return JSONResponse({prompt_id: entry} if entry else {})
            case ["GET", "view"]:
                return self.view(call)
            case ["POST", "prompt"]:
                return self.accept(call.json)
            case ["POST", "upload", "image"]:
                return self.upload(call)
            case ["POST", "queue"]:
                gone = call.json["delete"]
                self.pending = [i for i in self.pending if i[1] not in gone]
                return Response()
            case ["POST", "interrupt"]:
                wanted = call.json.get("prompt_id")
                for item in [i for i in self.running if wanted in {None, "", i[1]}]:
                    self.interrupt(item[1])
                return Response()
            case ["POST", "free"]:
                return Response()
            case ["GET", "api", "jobs"] if self.jobs_api:
                return JSONResponse({"jobs": [], "pagination": {}})
            case ["POST", "api", "jobs", prompt_id, "cancel"] if self.jobs_api:
                known = [i[1] for i in (*self.running, *self.pending)]
                self.pending = [i for i in self.pending if i[1] != prompt_id]
                for item in [i for i in self.running if i[1] == prompt_id]:
                    self.interrupt(item[1])
                return JSONResponse({"cancelled": prompt_id in known})
            case _:
                return Response(status_code=404)

    def interrupt(self, prompt_id: str) -> None:
        said = [["execution_interrupted", {"prompt_id": prompt_id, "node_type": "KSampler"}]]
        self.finish(prompt_id, outputs={}, messages=said, status="error")

    def accept(self, body: Mapping[str, Any]) -> Response:
        item: list[Any] = [
            self.number,
            body["prompt_id"],
            body["prompt"],
            body.get("extra_data", {}),
            [],
        ]
        self.number += 1
        self.pending.append(item)
        answer: dict[str, Any] = {
            "prompt_id": body["prompt_id"],
            "number": item[0],
            "node_errors": {},
        }
        return JSONResponse(answer)

    def upload(self, call: Call) -> Response:
        head = f"Content-Type: {call.headers['content-type']}\r\n\r\n".encode()
        form: dict[str, Any] = {}
        name = ""
        for part in message_from_bytes(head + call.body, policy=HTTP).iter_parts():
            name = part.get_filename() or name
            field_name = part.get_param("name", header="content-disposition")
            form[str(field_name)] = part.get_payload(decode=True)
        assert form["overwrite"] == b"true"
        self.uploads[name] = form["image"]
        return JSONResponse({"name": name, "subfolder": "", "type": "input"})

    def view(self, call: Call) -> Response:
        place = (call.query["type"], call.query["subfolder"], call.query["filename"])
        data = self.files.get(place)
        if data is None:
            return Response(status_code=404)
        if "range" in call.headers:
            tail = int(call.headers["range"].removeprefix("bytes=-"))
            return Response(data[-tail:], status_code=206, media_type="image/png")
        return Response(data, media_type="image/png")

    async def socket(self, websocket: WebSocket) -> None:
        self.handshake_headers.append(dict(websocket.headers))
        if self.refuse_sockets:
            await websocket.send_denial_response(Response(status_code=401))
            return
        client_id = websocket.query_params["clientId"]
        await websocket.accept()
        self.opened.append(client_id)
        self.sockets[client_id] = websocket
        status = {"status": {"exec_info": {"queue_remaining": 0}}, "sid": client_id}
        await websocket.send_json({"type": "status", "data": status})
        with contextlib.suppress(WebSocketDisconnect):
            self.said_first.append(await websocket.receive_json())
            while True:
                await websocket.receive_text()
        # As the real one: whoever closes takes the id off the table, whose ever it is now.
        self.sockets.pop(client_id, None)


@contextlib.asynccontextmanager
async def serve(scripted: Scripted, *, prefix: str = "") -> AsyncGenerator[Scripted]:
    """Serve on a free port of loopback, in the test's own event loop."""
    methods = ["GET", "POST", "DELETE"]
    app = Starlette(
        routes=[
            WebSocketRoute(f"{prefix}/ws", scripted.socket),
            Route(f"{prefix}/{{path:path}}", scripted.answer, methods=methods),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets this only on sockets made with IPPROTO_TCP; without it an answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    config = uvicorn.Config(
        app, log_config=None, log_level="critical", lifespan="off", ws="websockets-sansio"
    )
    config.timeout_graceful_shutdown = 1
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])  # without its main loop, which ticks slowly
    scripted.url = f"http://127.0.0.1:{listener.getsockname()[1]}{prefix}"
    try:
        yield scripted
    finally:
        server.force_exit = True  # its waiting for connections goes in tenths of a second
        await server.shutdown(sockets=[listener])


async def until(what: Callable[[], Any], timeout_s: float = 10.0) -> Any:
    """Wait for the first true value of `what()`."""
    async with asyncio.timeout(timeout_s):
        while not (value := what()):  # noqa: ASYNC110 - any condition, not only events
            await asyncio.sleep(0.005)
    return value
