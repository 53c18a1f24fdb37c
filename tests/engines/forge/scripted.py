"""A Forge that does what a test tells it to, over real sockets.

By itself it behaves as recorded: it replaces unknown names without a word, leaks overrides whose
keys its memory lacks, answers interrupted jobs with 200, keeps ids of refused jobs waiting and of
failed jobs active, remembers 16 ended ones. A job posted is held until the test lets it go on,
unless `automatic`. Any answer can be replaced (`script`, `always`).
"""

import asyncio
import base64
import contextlib
import copy
import json
import random
import socket
from collections import defaultdict, deque
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tests.engines.forge.recordings import list_status, listed, picture

STAMP = "20261121000000"
VERSION = "f2.0.1v1.10.1-1.10.1"


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


class Cut(Response):
    """An answer that ends in the middle, or before it began: the connection is closed."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        del scope, receive
        headers = [(b"content-length", b"1000"), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"imag', "more_body": False})


class Dropped(JSONResponse):
    """A whole answer, after which the connection is closed although it was not said."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await super().__call__(scope, receive, send)
        await asyncio.sleep(0.05)  # the next request is on its way
        message = "the handler failed after answering"
        raise RuntimeError(message)


@dataclass
class Job:
    """One job posted, and how the test lets it end."""

    task_id: str
    path: str
    request: dict[str, Any]
    go: asyncio.Event = field(default_factory=asyncio.Event)
    outcome: str = "finish"  # or "stop", "fail", "none"


@dataclass
class Scripted:
    """The server's state, for a test to read and change."""

    url: str = ""
    automatic: bool = False
    webui: bool = True
    api: bool = True
    ids: bool = True  # before AUTOMATIC1111 1.8 there are none
    flavour: str = "forge"
    app_id: int = field(default_factory=lambda: random.getrandbits(63))
    calls: list[Call] = field(default_factory=list[Call])
    jobs: list[Job] = field(default_factory=list[Job])
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    lists: dict[str, Any] = field(default_factory=dict[str, Any])
    defaults: dict[str, Any] = field(default_factory=lambda: listed("/sdapi/v1/options"))
    memory: dict[str, Any] = field(default_factory=dict[str, Any])  # keys present: config.json's
    state: dict[str, Any] = field(
        default_factory=lambda: listed("/sdapi/v1/progress")["state"] | {"job_timestamp": STAMP}
    )
    pending: list[str] = field(default_factory=list[str])
    active: str = ""
    completed: deque[str] = field(default_factory=lambda: deque[str](maxlen=16))
    scripts: dict[str, deque[Answer]] = field(
        default_factory=lambda: defaultdict[str, deque[Answer]](deque)
    )
    standing: dict[str, Answer] = field(default_factory=dict[str, Answer])
    changes: dict[str, Any] = field(default_factory=dict[str, Any])  # of the next picture's info
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    # What a test does.

    def script(self, call: str, *answers: Answer) -> None:
        """Answer the next requests `METHOD /path` so, before going on as usual."""
        self.scripts[call].extend(answers)

    def always(self, call: str, answer: Answer) -> None:
        """Answer every request `METHOD /path` so."""
        self.standing[call] = answer

    def count(self, call: str) -> int:
        return sum(f"{c.method} {c.path}" == call for c in self.calls)

    def posted(self, path: str = "/sdapi/v1/txt2img") -> list[Any]:
        return [c.json for c in self.calls if (c.method, c.path) == ("POST", path)]

    def restart(self) -> None:
        """Forget everything but files and settings, as a new process."""
        self.app_id += 1
        self.pending.clear()
        self.active = ""
        self.completed.clear()
        self.rest()

    def busy(self, job: str = "task(human)", job_count: int = 1) -> None:
        """Let somebody else's job run."""
        self.state |= {"job": job, "job_count": job_count, "job_no": 0, "sampling_step": 0}
        self.state |= {"interrupted": False, "skipped": False}

    def rest(self) -> None:
        self.state |= {"job": "", "job_count": 0}

    def options(self) -> dict[str, Any]:
        return {**self.defaults, **self.memory}

    async def job(self, number: int = 0) -> Job:
        """Return the n-th job once it runs."""
        async with asyncio.timeout(10):
            while len(self.jobs) <= number:  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0.005)
        return self.jobs[number]

    # What it answers.

    async def answer(self, request: Request) -> Response:
        body = await request.body()
        path = request.url.path
        call = Call(request.method, path, dict(request.query_params), dict(request.headers), body)
        self.calls.append(call)
        key = f"{call.method} {path}"
        replaced = self.scripts[key].popleft() if self.scripts[key] else self.standing.get(key)
        if replaced is not None:
            if isinstance(replaced, Response):
                return replaced
            response = replaced(call)
            return response if isinstance(response, Response) else await response
        return await self._usual(call)

    async def _usual(self, call: Call) -> Response:  # noqa: PLR0911 - one a route
        path = call.path
        if path.startswith("/sdapi") and not self.api:
            return missing()
        if not path.startswith("/sdapi") and not self.webui:
            return missing()
        routes: dict[str, Callable[[Call], Any]] = {
            "/app_id": lambda _: {"app_id": self.app_id},
            "/config": lambda _: {"version": "4.40.0"},
            "/internal/progress": self._task,
            "/internal/pending-tasks": lambda _: {
                "size": len(self.pending),
                "tasks": self.pending,
            },
            "/sdapi/v1/progress": lambda _: {"progress": 0.25, "state": self.state},
            "/sdapi/v1/interrupt": lambda _: self.state.update(interrupted=True) or {},
            "/sdapi/v1/unload-checkpoint": lambda _: {},
        }
        if path in routes:
            return JSONResponse(routes[path](call))
        if path == "/sdapi/v1/options":
            return self._post_options(call.json) if call.method == "POST" else self._get_options()
        if path in {"/sdapi/v1/txt2img", "/sdapi/v1/img2img"}:
            return await self.run(call)
        if path == "/sdapi/v1/extra-single-image":
            return await self._upscale(call)
        if path.startswith("/file="):
            content = self.files.get(path.removeprefix("/file="))
            return missing() if content is None else Response(content, media_type="image/png")
        return self._list(path)

    def _list(self, path: str) -> Response:
        if path in self.lists:
            return JSONResponse(self.lists[path])
        swapped = {"/sdapi/v1/sd-modules": "/sdapi/v1/sd-vae"}
        swapped |= {there: here for here, there in swapped.items()}
        if self.flavour != "forge" and path in swapped:
            path = swapped[path]
        try:
            return JSONResponse(listed(path), list_status(path))
        except KeyError:
            return missing()

    def _get_options(self) -> Response:
        return JSONResponse({key: _told(value) for key, value in self.options().items()})

    def _post_options(self, values: dict[str, Any]) -> Response:
        titles = [entry["title"] for entry in self._models()]
        for key, value in values.items():
            if key not in self.defaults:
                return raised("KeyError", repr(key))
            if value == self.memory.get(key):
                continue
            known = value in titles or value in [title.split(" [")[0] for title in titles]
            if key == "sd_model_checkpoint" and not known:
                return raised("RuntimeError", f"model {value!r} not found")
            self._set(key, value)
        return JSONResponse(None)

    def _set(self, key: str, value: Any) -> None:
        # An empty list of modules where there is none changes nothing, so the key stays absent.
        if key == "forge_additional_modules" and not value and not self.memory.get(key):
            return
        self.memory[key] = value

    def _models(self) -> list[dict[str, Any]]:
        return self.lists.get("/sdapi/v1/sd-models") or listed("/sdapi/v1/sd-models")

    def _task(self, call: Call) -> Any:
        task_id = call.json["id_task"] if self.ids else "task(of its own)"
        active = task_id == self.active
        return {
            "active": active,
            "queued": task_id in self.pending,
            "completed": task_id in self.completed,
            "progress": self.progress if active else None,
            "live_preview": None,
            "id_live_preview": -1,
            "textinfo": None if active else "Waiting...",
        }

    progress: float = 0.0

    async def run(self, call: Call) -> Response:
        request = call.json
        task_id = request["force_task_id"]
        self.pending.append(task_id)
        for encoded in request.get("init_images", []):
            if len(encoded) < 8:
                return JSONResponse({"detail": "Invalid encoded image"}, 500)
        async with self.lock:
            self.pending.remove(task_id)
            self.active = task_id
            kind = call.path.rpartition("/")[2]
            self.busy(f"scripts_{kind}", -1)
            job = Job(task_id, call.path, request)
            self.jobs.append(job)
            before = {k: self.memory[k] for k in request["override_settings"] if k in self.memory}
            try:
                for key, value in request["override_settings"].items():
                    if key not in self.defaults:
                        return raised("KeyError", repr(key))
                    if key != "sd_model_checkpoint" or self._find(value):
                        self._set(key, value)
                self.state |= {"job_count": 1, "sampling_steps": request["steps"]}
                if not self.automatic:
                    await job.go.wait()
                if job.outcome == "fail":
                    return raised("RuntimeError", "it broke")
                if job.outcome == "memory":
                    return raised("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB")
                response = self._result(job, kind)
                self.active = ""
                self.completed.append(task_id)
                return response
            finally:
                self.memory.update(before)
                self.rest()

    def _find(self, title: str) -> dict[str, Any] | None:
        for entry in self._models():
            if title in {entry["title"], entry["title"].split(" [")[0], entry["hash"]}:
                return entry
        return None

    def _result(self, job: Job, kind: str) -> Response:
        request, options = job.request, self.options()
        model = self._find(options["sd_model_checkpoint"]) or self._models()[0]
        stem = model["filename"].rpartition("/")[2].rpartition(".")[0]
        digest = model["hash"] or "b1ee8ef881"
        told: dict[str, Any] = {
            "Steps": request["steps"],
            "Sampler": request["sampler_name"],
            "Schedule type": request.get("scheduler"),
            "Seed": request["seed"],
            "Size": f"{request['width']}x{request['height']}",
            "Model hash": digest,
            "Model": stem,
            "Clip skip": options["CLIP_stop_at_last_layers"],
            "Version": VERSION,
        }
        modules: list[str] = options.get("forge_additional_modules") or []
        told |= {f"Module {n}": m.rpartition(".")[0] for n, m in enumerate(modules, 1)}
        told |= self.changes
        pairs = ", ".join(f"{k}: {v}" for k, v in told.items() if v and (k, v) != ("Clip skip", 1))
        infotext = f"{request['prompt']}\n{pairs}"
        stopped = job.outcome == "stop"
        scale = request["hr_scale"] if request.get("enable_hr") else 1
        size = (int(request["width"] * scale), int(request["height"] * scale))
        mode = "RGBA" if self.flavour == "forge" and not stopped else "RGB"
        raw = picture(mode, size, infotext)
        if not stopped and options["samples_save"]:
            pattern = options["samples_filename_pattern"].replace("[seed]", str(request["seed"]))
            self.files[f"{options[f'outdir_{kind}_samples']}/{pattern}.png"] = raw
        info = {
            "all_seeds": [told["Seed"]],
            "sd_model_name": told["Model"],
            "sd_model_hash": told["Model hash"],
            "sampler_name": told["Sampler"],
            "index_of_first_image": 0,
            "infotexts": [infotext],
            "job_timestamp": self.state["job_timestamp"],
            "version": VERSION,
        }
        images = [] if job.outcome == "none" else [base64.b64encode(raw).decode()]
        return JSONResponse({"images": images, "parameters": {}, "info": json.dumps(info)})

    async def _upscale(self, call: Call) -> Response:
        async with self.lock:
            self.busy("extras")
            job = Job("", call.path, call.json)
            self.jobs.append(job)
            if not self.automatic:
                await job.go.wait()
            self.rest()
            scale = call.json["upscaling_resize"]
            raw = picture("RGB", (int(64 * scale), int(64 * scale)))
            return JSONResponse({"html_info": "<p>x</p>", "image": base64.b64encode(raw).decode()})


def missing() -> Response:
    return JSONResponse({"detail": "Not Found"}, 404)


def raised(error: str, message: str) -> Response:
    """Answer as the server does when a job raised."""
    body = {"error": error, "detail": "", "body": "", "message": message}
    return JSONResponse(body, 500)


def nonsense(text: str = "not JSON") -> Response:
    return PlainTextResponse(text)


def _told(value: Any) -> Any:
    """Every number is told as a float."""
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return copy.deepcopy(value)


@contextlib.asynccontextmanager
async def serve(scripted: Scripted) -> AsyncGenerator[Scripted]:
    """Serve it on a free port, in this event loop."""
    methods = ["GET", "POST", "HEAD"]
    app = Starlette(routes=[Route("/{path:path}", scripted.answer, methods=methods)])
    listener = socket.create_server(("127.0.0.1", 0))
    # asyncio sets this only on sockets made with IPPROTO_TCP; without it an answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    scripted.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = uvicorn.Config(app, log_config=None, log_level="critical", lifespan="off")
    config.timeout_graceful_shutdown = 1
    config.load()
    server = uvicorn.Server(config)
    server.lifespan = config.lifespan_class(config)
    await server.startup(sockets=[listener])
    try:
        yield scripted
    finally:
        for job in scripted.jobs:
            job.go.set()
        server.force_exit = True
        await server.shutdown(sockets=[listener])
