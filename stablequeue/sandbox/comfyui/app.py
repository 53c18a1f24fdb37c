"""Puts ComfyUI's half together."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.websockets import WebSocket

from stablequeue.sandbox.comfyui import files, info, jobs, prompts
from stablequeue.sandbox.comfyui.http import empty, origin_refused, route, unknown
from stablequeue.sandbox.comfyui.server import Server
from stablequeue.sandbox.state import SandboxState

__all__ = ["build", "unknown"]


def build(state: SandboxState) -> list[BaseRoute]:
    """Return the routes of one life of a ComfyUI server."""
    server = Server(state)

    async def socket(websocket: WebSocket) -> None:
        if origin_refused(websocket):
            await websocket.send_denial_response(empty(403))
            return
        await server.hub.serve(websocket)

    async def not_a_socket(_request: Request) -> Response:
        return Response('No WebSocket UPGRADE hdr: None\n Can "Upgrade" only to "WebSocket".', 400)

    return [
        *prompts.build(server),
        *files.build(server),
        *info.build(server),
        *(jobs.build(server) if state.config.newer_comfyui else []),
        WebSocketRoute("/ws", socket),
        WebSocketRoute("/api/ws", socket),
        *route("/ws", get=not_a_socket),
    ]
