"""Acts out the faults that strike HTTP requests, around every route of both protocols."""

import asyncio

from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stablequeue.sandbox.connections import Connections
from stablequeue.sandbox.faults import FaultKind
from stablequeue.sandbox.state import SandboxState

CONTROL_PREFIX = "/stablequeue/"
_HTTP_KINDS = (
    FaultKind.CLOSE,
    FaultKind.CUT,
    FaultKind.DELAY,
    FaultKind.STATUS,
    FaultKind.HANG,
    FaultKind.DIE,
)


class Disturbance:
    """ASGI middleware; see `stablequeue.sandbox.faults` for the places."""

    def __init__(self, app: ASGIApp, state: SandboxState, connections: Connections) -> None:
        self._app, self._state, self._connections = app, state, connections

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass one request on, or do to it what is due."""
        if scope["type"] == "websocket":
            self._connections.mark_socket(scope)
        if scope["type"] == "lifespan" or scope["path"].startswith(CONTROL_PREFIX):
            await self._app(scope, receive, send)
            return
        place = self._place(scope)
        if await self._struck(place, scope, receive, send):
            return
        after = f"after {place}"
        faults = self._state.faults
        if scope["type"] != "http" or not (
            any(faults.may_strike(kind, after) for kind in _HTTP_KINDS)
            or faults.may_strike(FaultKind.CUT, place)
        ):
            await self._app(scope, receive, send)
            return
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        if await self._struck(after, scope, receive, send):
            return
        if faults.take(FaultKind.CUT, place) or faults.take(FaultKind.CUT, after):
            await self._cut(answer, scope, send)
            return
        for message in answer:
            await send(message)

    @staticmethod
    def _place(scope: Scope) -> str:
        path = scope["path"].removeprefix("/api") or "/"
        return f"{scope.get('method', 'WS')} {path}"

    async def _struck(self, place: str, scope: Scope, receive: Receive, send: Send) -> bool:
        """Act out what is due at `place`; whether the request is dealt with."""
        faults = self._state.faults
        if delay := faults.take(FaultKind.DELAY, place):
            await asyncio.sleep(delay.seconds)
        if hang := faults.take(FaultKind.HANG, place):
            await self._state.hold(hang)
        if faults.take(FaultKind.DIE, place):
            await self._state.die()
        if faults.take(FaultKind.CLOSE, place):
            await self._close(scope)
            return True
        if fault := faults.take(FaultKind.STATUS, place):
            if not place.startswith("after ") and scope["type"] == "http":
                await Request(scope, receive).body()
            await PlainTextResponse(fault.body, fault.status)(scope, receive, send)
            return True
        return False

    async def _close(self, scope: Scope) -> None:
        self._connections.cut(scope)
        await asyncio.sleep(0)  # the server learns in the loop's next round that the peer is gone
        await asyncio.sleep(0)

    async def _cut(self, answer: list[Message], scope: Scope, send: Send) -> None:
        """Send the head and half of the body, then end the connection."""
        body = b"".join(m.get("body", b"") for m in answer if m["type"] == "http.response.body")
        for message in answer:
            if message["type"] == "http.response.start":
                await send(message)
        half = body[: len(body) // 2]
        await send({"type": "http.response.body", "body": half, "more_body": True})
        await asyncio.sleep(0)
        await self._close(scope)
