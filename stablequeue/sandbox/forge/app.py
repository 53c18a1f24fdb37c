"""Forge's half of the sandbox as routes.

Which routes there are depends on `ForgeSettings`: without `--api` no `/sdapi`, with `--nowebui`
neither `/internal` nor anything of Gradio's.
"""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from stablequeue.sandbox.forge import api, gradio, internal, lists, web
from stablequeue.sandbox.forge.answers import answer
from stablequeue.sandbox.forge.routing import Endpoint, Guard, make_route
from stablequeue.sandbox.forge.server import ForgeServer
from stablequeue.sandbox.state import SandboxState


def build(state: SandboxState) -> list[BaseRoute]:
    """Return the routes of one boot.

    Raises:
        ValueError: `state.config.forge` is wrong.
    """
    server = ForgeServer(state)
    wanted: list[Endpoint] = []
    if server.settings.api:
        wanted += _api(server)
    if not server.settings.nowebui:
        wanted += [*internal.endpoints(), *gradio.endpoints(server), *web.endpoints()]
    wanted.append(_openapi([endpoint.path for endpoint in wanted]))
    return [make_route(server, endpoint) for endpoint in wanted]


def _api(server: ForgeServer) -> list[Endpoint]:
    posts = {
        "txt2img": api.txt2img,
        "img2img": api.img2img,
        "extra-single-image": api.extra_single_image,
        "extra-batch-images": api.extra_batch_images,
        "png-info": api.png_info,
        "interrogate": api.interrogate,
        "interrupt": api.interrupt,
        "skip": api.skip,
    }
    if server.settings.api_server_stop:
        posts |= {"server-stop": api.server_stop, "server-kill": api.server_kill}
    return [
        *(
            Endpoint(path=f"/sdapi/v1/{name}", handler=handler, methods=("POST",))
            for name, handler in posts.items()
        ),
        Endpoint(path="/sdapi/v1/progress", handler=api.progress),
        *lists.endpoints(server),
    ]


def _openapi(paths: list[str]) -> Endpoint:
    """Return `/openapi.json`: which paths there are; schemas are left out."""
    described: dict[str, Any] = {path.replace(":path}", "}"): {} for path in paths}

    async def openapi(server: ForgeServer, request: Request) -> Response:
        del server, request
        return answer(
            {
                "openapi": "3.1.0",
                "info": {"title": "FastAPI", "version": "0.1.0"},
                "paths": described,
                "components": {"schemas": {}},
            }
        )

    return Endpoint(path="/openapi.json", handler=openapi, guard=Guard.NONE)
