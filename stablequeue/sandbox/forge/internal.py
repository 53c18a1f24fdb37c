"""`/internal`: progress by task id. There only with the web UI, and open to everybody."""

import base64
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from stablequeue.sandbox.forge.answers import answer, read_model
from stablequeue.sandbox.forge.payloads import ProgressPayload
from stablequeue.sandbox.forge.routing import Endpoint, Guard
from stablequeue.sandbox.forge.server import ForgeServer


async def progress(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /internal/progress`."""
    asked = await read_model(request, ProgressPayload)
    tasks, job, options = server.tasks, server.job, server.options
    task = asked.id_task
    told: dict[str, Any] = {
        "active": task is not None and task == tasks.current,
        "queued": task in tasks.pending,
        "completed": task in tasks.finished,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": None,
    }
    if not told["active"]:
        told["textinfo"] = tasks.waiting_text(task or "")
        return answer(told)
    fraction = job.fraction()
    told["progress"] = fraction
    told["eta"] = job.elapsed() / fraction - job.elapsed() if fraction > 0 else None
    told["textinfo"] = job.textinfo
    if asked.live_preview and options["live_previews_enable"]:
        job.refresh_preview(options.whole("show_progress_every_n_steps", 10))
        if job.id_live_preview != asked.id_live_preview:
            kind = options.text("live_previews_image_format") or "png"
            image = job.preview(kind) if kind in {"png", "jpeg", "webp"} else None
            if image is not None:
                told["live_preview"] = f"data:image/{kind};base64,{image}"
                told["id_live_preview"] = job.id_live_preview
    return answer(told)


async def pending_tasks(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /internal/pending-tasks`, leaked ones included."""
    del request
    return answer(server.tasks.list_pending())


async def ping(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /internal/ping`."""
    del server, request
    return answer({})


async def sysinfo(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /internal/sysinfo`: JSON told as plain text."""
    del request
    told: dict[str, Any] = {
        "Platform": "StableQueue sandbox",
        "Python": "3.11.7",
        "Version": server.settings.version,
        "Commit": "<none>",
        "Git status": "",
        "Script path": str(server.folder),
        "Data path": str(server.folder),
        "Extensions dir": server.shelf.path("extensions"),
        "Checksum": base64.b16encode(server.app_id.to_bytes(8, "big")).decode().lower(),
        "Commandline": ["launch.py", "--api"],
        "Torch env info": {"cuda": not server.settings.cpu, "gpu": server.state.card.name},
        "Exceptions": [],
        "CPU": {"count logical": 2},
        "RAM": {"total": "32GB"},
        "Extensions": [],
        "Inactive extensions": [],
        "Environment": {},
        "Config": {},
        "Startup": {"total": 1.0, "records": {}},
        "Packages": [],
    }
    now = datetime.fromtimestamp(server.state.wall())  # noqa: DTZ006 - local time
    name = now.strftime("sysinfo-%Y-%m-%d-%H-%M.json")
    headers = {"Content-Disposition": f'inline; filename="{name}"'}
    return JSONResponse(told, headers=headers, media_type="text/plain; charset=utf-8")


async def profile_startup(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /internal/profile-startup`; seconds."""
    del server, request
    return answer({"total": 1.0, "records": {"initial startup": 0.1, "launcher": 0.9}})


async def quicksettings_hint(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /internal/quicksettings-hint`."""
    del request
    return answer([{"name": name, "label": name} for name in server.options.names()])


def endpoints() -> list[Endpoint]:
    """Return this module's routes."""
    gets = {
        "ping": ping,
        "pending-tasks": pending_tasks,
        "sysinfo": sysinfo,
        "sysinfo-download": sysinfo,
        "profile-startup": profile_startup,
        "quicksettings-hint": quicksettings_hint,
    }
    listed = [
        Endpoint(path=f"/internal/{name}", handler=handler, guard=Guard.NONE)
        for name, handler in gets.items()
    ]
    path = "/internal/progress"
    return [*listed, Endpoint(path=path, handler=progress, methods=("POST",), guard=Guard.NONE)]
