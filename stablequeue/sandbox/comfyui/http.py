"""How ComfyUI's HTTP layer (aiohttp) answers, where that differs from Starlette's habits.

Source: recordings [00], [19], [23], [31]: text bodies for 500 and 405, empty ones for 404, JSON
whatever the content type says, the Origin rule, OPTIONS answered with 200 everywhere.
"""

import json
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

Handler = Callable[[Request], Awaitable[Response]]
_logger = logging.getLogger(__name__)
_LOOPBACK = {"localhost", "::1"}


class TooLarge(Exception):
    """The request body is larger than the server takes."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self.limit = limit


def as_json(value: Any, status: int = 200) -> Response:
    """Answer with JSON; NaN and Infinity go out as such, as they do there."""
    return Response(json.dumps(value), status, media_type="application/json; charset=utf-8")


def empty(status: int = 200) -> Response:
    """Answer with nothing; the content type is that of unknown bytes."""
    return Response(status_code=status, media_type="application/octet-stream")


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body.

    Raises:
        TooLarge: It is larger than `limit` bytes.
    """
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise TooLarge(limit)
        parts.append(part)
    return b"".join(parts)


async def read_json(request: Request, limit: int) -> Any:
    """Return the body as JSON, whatever its content type.

    Raises:
        TooLarge: It is larger than `limit` bytes.
        ValueError: It is no JSON (the server then fails with 500).
    """
    return json.loads((await read_body(request, limit)).decode())


def origin_refused(connection: HTTPConnection) -> bool:
    """Say whether a page from elsewhere talks to a server on a loopback name."""
    host, origin = connection.headers.get("host"), connection.headers.get("origin")
    if not host or not origin:
        return False
    try:
        here, there = urlsplit(f"//{host.lower()}"), urlsplit(origin.lower())
        if not _is_loopback(here.hostname):
            return False
        named = here.hostname if there.port is None else host.lower()
        foreign = there.hostname if here.port is None else there.netloc
    except ValueError:  # a port that is no number
        return True
    return bool(named and foreign and named != foreign)


def _is_loopback(host: str | None) -> bool:
    return host is not None and (host in _LOOPBACK or host.startswith("127."))


def route(path: str, **handlers: Handler) -> list[BaseRoute]:
    """Return the routes for a path, bare and below `/api`; handlers by method name."""
    methods = {method.upper(): guarded(handler) for method, handler in handlers.items()}
    if "GET" in methods:
        methods["HEAD"] = methods["GET"]

    def at(path: str) -> Route:
        # a parameter may hold an encoded slash, but no plain one
        slashes = path.count("/")

        async def endpoint(request: Request) -> Response:
            plain: bytes = request.scope["raw_path"]
            if plain.count(b"/") != slashes or (plain.endswith(b"/") and path != "/"):
                return unknown(request, {})
            return await methods[request.method](request)

        return Route(path.replace("}", ":path}"), endpoint, methods=list(methods))

    return [at(path), at(f"/api{path}")]


def guarded(handler: Handler) -> Handler:
    """Return `handler` with the Origin rule before it and the server's answers to exceptions."""

    async def answer(request: Request) -> Response:
        if origin_refused(request):
            return empty(403)
        try:
            return await handler(request)
        except TooLarge as error:
            return PlainTextResponse(f"Maximum request body size {error.limit} exceeded.", 413)
        except Exception:  # the real server turns any exception into this text
            _logger.debug("answered with 500", exc_info=True)
            body = "500 Internal Server Error\n\nServer got itself in trouble"
            return PlainTextResponse(body, 500)

    return answer


def unknown(request: Request, allowed: Mapping[str, str]) -> Response:
    """Answer a request no handler takes; `allowed` are the headers of a 405.

    Pages are served from everywhere below `/`, so GET of anything unknown is 404, and any other
    method is not allowed.
    """
    if origin_refused(request):
        return empty(403)
    if request.method == "OPTIONS":
        return empty()
    if request.method in {"GET", "HEAD"}:
        return empty(404)
    listed = {method.strip() for method in allowed.get("Allow", "").split(",") if method.strip()}
    headers = {"Allow": ",".join(sorted(listed | {"GET", "HEAD"}))}
    return PlainTextResponse("405: Method Not Allowed", 405, headers=headers)
