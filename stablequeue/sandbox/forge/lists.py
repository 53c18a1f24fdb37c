"""`/sdapi/v1`: options, lists, memory, refreshing, loading and unloading; `/controlnet`."""

import json
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from stablequeue.sandbox.forge.answers import Failure, answer, no_content, read_dict
from stablequeue.sandbox.forge.facts import facts, rows, samplers, schedulers
from stablequeue.sandbox.forge.names import STYLES
from stablequeue.sandbox.forge.options import summary
from stablequeue.sandbox.forge.routing import Endpoint, Guard, Handler
from stablequeue.sandbox.forge.server import ForgeServer
from stablequeue.sandbox.models import CONTROLNETS, UPSCALERS

_MB = 1024 * 1024
_RAM_MB = 32_768


async def get_options(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /sdapi/v1/options`: 500 for everybody once a wrong type is stored."""
    del request
    return answer(server.options.listed())


async def post_options(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/options`: takes no lock, so it reaches the running job."""
    wanted = await read_dict(request)
    server.options.post(wanted, lambda title: server.shelf.find(title) is not None)
    server.state.note("forge.options", keys=sorted(wanted))
    return no_content()


async def cmd_flags(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /sdapi/v1/cmd-flags`: fails when `--port` was given, telling all the same."""
    del request
    folder = json.dumps(str(server.folder))[1:-1]
    flags = json.loads(json.dumps(facts("cmd_flags")).replace("{data}", folder))
    flags |= {
        "api_auth": server.settings.api_auth or None,
        "gradio_auth": server.settings.gradio_auth or None,
        "nowebui": server.settings.nowebui,
        "api_server_stop": server.settings.api_server_stop,
    }
    if not server.settings.port_given:
        return answer({**flags, "port": None})
    problem = {
        "type": "string_type",
        "loc": ("response", "port"),
        "msg": "Input should be a valid string",
        "input": flags["port"],
        "url": "https://errors.pydantic.dev/2.8/v/string_type",
    }
    raise Failure("ResponseValidationError", summary([problem]), flags)


async def memory(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /sdapi/v1/memory`; bytes."""
    del request
    card = server.state.card
    ram_used = 6_000 * _MB
    total = _RAM_MB * _MB
    ram = {"free": float(total - ram_used), "used": ram_used, "total": float(total)}
    if server.settings.cpu:
        return answer({"ram": ram, "cuda": {"error": "unavailable"}})
    free, whole = card.free_mb * _MB, card.memory_mb * _MB
    used = whole - free
    peak = {"current": used, "peak": used}
    cuda = {
        "system": {"free": free, "used": used, "total": whole},
        "active": peak,
        "allocated": peak,
        "reserved": peak,
        "inactive": {"current": 0, "peak": 0},
        "events": {"retries": 0, "oom": 0},
    }
    return answer({"ram": ram, "cuda": cuda})


async def refresh_checkpoints(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/refresh-checkpoints`: waits for the running job."""
    del request
    async with server.lock:
        server.shelf.refresh_checkpoints()
    return no_content()


async def refresh_vae(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/refresh-vae`: waits for the running job."""
    del request
    async with server.lock:
        server.shelf.refresh_modules()
    return no_content()


async def refresh_embeddings(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/refresh-embeddings`: waits for the running job."""
    del request
    async with server.lock:
        server.shelf.refresh_embeddings()
    return no_content()


async def refresh_loras(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/refresh-loras`: waits for nothing."""
    del request
    server.shelf.refresh_loras()
    return no_content()


async def unload_checkpoint(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/unload-checkpoint`."""
    del request
    server.unload()
    return answer({})


async def reload_checkpoint(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/reload-checkpoint`."""
    del request
    await server.load(server.selected())
    return answer({})


async def upscalers(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /sdapi/v1/upscalers`: built-in ones, then those on the shelf."""
    del request
    files = server.state.models.of(UPSCALERS)
    by_stem = {file.name.rsplit("/", 1)[-1].rsplit(".", 1)[0]: file for file in files}
    own = [
        {
            "name": name,
            "model_name": name,
            "model_path": server.shelf.path("models", "ESRGAN", by_stem[name].name)
            if name in by_stem
            else None,
            "model_url": None,
            "scale": 4.0,
        }
        for name in server.shelf.upscalers
    ]
    return answer([*facts("upscalers"), *own])


async def create_nothing(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/create/...`: always a failure here, as without arguments there."""
    del server
    await read_dict(request)
    return answer({"info": "create failed: the sandbox trains nothing"})


async def detect(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /controlnet/detect` with no pictures."""
    del server
    await read_dict(request)
    return answer({"images": [], "info": "Success"})


def _told(make: Callable[[ForgeServer], Any]) -> Handler:
    async def handler(server: ForgeServer, request: Request) -> Response:
        del request
        return answer(make(server))

    return handler


def _controlnet_models(server: ForgeServer) -> dict[str, Any]:
    files = server.state.models.of(CONTROLNETS) if not server.settings.cpu else []
    names = [f"{f.name.rsplit('.', 1)[0]} [{f.short_hash[:8]}]" for f in files]
    return {"model_list": ["None", *names]}


def _samplers(server: ForgeServer) -> Any:
    return samplers(forge=server.settings.is_forge)


def _schedulers(server: ForgeServer) -> Any:
    return schedulers(forge=server.settings.is_forge)


def _list_endpoints() -> list[Endpoint]:
    told: dict[str, Callable[[ForgeServer], Any]] = {
        "samplers": _samplers,
        "schedulers": _schedulers,
        "latent-upscale-modes": lambda _: facts("latent_upscale_modes"),
        "sd-models": lambda server: server.shelf.list_checkpoints(),
        "hypernetworks": lambda _: [],
        "face-restorers": lambda _: facts("face_restorers"),
        "realesrgan-models": lambda _: [
            {"name": u["name"], "path": u["model_path"], "scale": int(u["scale"])}
            for u in rows("upscalers")
            if u["name"].startswith("R-ESRGAN")
        ],
        "prompt-styles": lambda _: list(STYLES),
        "embeddings": lambda server: server.shelf.list_embeddings(),
        "scripts": lambda _: facts("scripts"),
        "script-info": lambda _: facts("script_info"),
        "extensions": lambda _: [],
    }
    return [Endpoint(path=f"/sdapi/v1/{name}", handler=_told(make)) for name, make in told.items()]


def _extension_endpoints() -> list[Endpoint]:
    """Return the routes of extensions: late after a boot, and not covered by `--api-auth`."""

    def one(path: str, handler: Handler, method: str = "GET") -> Endpoint:
        methods = (method,)
        return Endpoint(path=path, handler=handler, methods=methods, guard=Guard.NONE, late=True)

    modules = facts("controlnet_modules")
    types = {"All": {"module_list": modules, "default_option": "None", "default_model": "None"}}

    def control_types(server: ForgeServer) -> Any:
        told = {name: {**kind, **_controlnet_models(server)} for name, kind in types.items()}
        return {"control_types": told}

    return [
        one("/sdapi/v1/loras", _told(lambda server: server.shelf.list_loras())),
        one("/sdapi/v1/refresh-loras", refresh_loras, "POST"),
        one("/controlnet/model_list", _told(_controlnet_models)),
        one("/controlnet/module_list", _told(lambda _: {"module_list": modules})),
        one("/controlnet/control_types", _told(control_types)),
        one("/controlnet/detect", detect, "POST"),
    ]


def endpoints(server: ForgeServer) -> list[Endpoint]:
    """Return this module's routes for a server's flavour."""
    posts: dict[str, Handler] = {
        "options": post_options,
        "refresh-checkpoints": refresh_checkpoints,
        "refresh-vae": refresh_vae,
        "refresh-embeddings": refresh_embeddings,
        "unload-checkpoint": unload_checkpoint,
        "reload-checkpoint": reload_checkpoint,
        "create/embedding": create_nothing,
        "create/hypernetwork": create_nothing,
    }
    gets: dict[str, Handler] = {
        "options": get_options,
        "cmd-flags": cmd_flags,
        "memory": memory,
        "upscalers": upscalers,
        "sd-modules" if server.settings.is_forge else "sd-vae": _told(
            lambda server: server.shelf.list_modules()
        ),
    }
    base = "/sdapi/v1/"
    return [
        *(Endpoint(path=base + n, handler=h, methods=("POST",)) for n, h in posts.items()),
        *(Endpoint(path=base + n, handler=h) for n, h in gets.items()),
        *_list_endpoints(),
        *_extension_endpoints(),
    ]
