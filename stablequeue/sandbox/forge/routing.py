"""Turns handlers into routes: who may call them, worker slots, failures as answers."""

import base64
import binascii
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from stablequeue.sandbox.forge.answers import Failure, Refusal, answer_exception
from stablequeue.sandbox.forge.server import ForgeServer

logger = logging.getLogger(__name__)

Handler = Callable[[ForgeServer, Request], Awaitable[Response]]
TOKEN_COOKIE = "access-token-"  # noqa: S105 - a name


class Guard(StrEnum):
    """What a route asks for. `--api-auth` and `--gradio-auth` each cover only their own."""

    NONE = "none"
    BASIC = "basic"
    LOGIN = "login"


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """One route.

    Attributes:
        slot: Whether the answer holds a worker slot while it is made (event streams do not).
        late: An extension's route, there only some time after the boot.
    """

    path: str
    handler: Handler
    methods: Sequence[str] = ("GET",)
    guard: Guard = Guard.BASIC
    slot: bool = True
    late: bool = False


def make_route(server: ForgeServer, endpoint: Endpoint) -> BaseRoute:
    """Return the route of an endpoint."""

    async def respond(request: Request) -> Response:
        if endpoint.late and server.routes_are_late:
            return answer_exception(Refusal(404, "Not Found"))
        try:
            if not endpoint.slot:
                _check(server, request, endpoint.guard)
                return await endpoint.handler(server, request)
            async with server.slots:
                _check(server, request, endpoint.guard)
                return await endpoint.handler(server, request)
        except (Refusal, Failure) as error:
            return answer_exception(error)
        except Exception as error:
            logger.debug("unforeseen failure of the sandbox", exc_info=error)
            server.state.note("forge.unforeseen", error=repr(error))
            return answer_exception(error)

    return Route(endpoint.path, respond, methods=[*endpoint.methods])


def _check(server: ForgeServer, request: Request, guard: Guard) -> None:
    if guard is Guard.BASIC and server.settings.api_auth:
        _check_basic(server.settings.api_auth, request)
    if guard is Guard.LOGIN and server.settings.gradio_auth and user_of(server, request) is None:
        raise Refusal(401, "Not authenticated")


def _check_basic(allowed: str, request: Request) -> None:
    challenge = {"WWW-Authenticate": "Basic"}
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        raise Refusal(401, "Not authenticated", challenge)
    try:
        told = base64.b64decode(given, validate=True)
        told.decode("ascii")
    except (binascii.Error, ValueError) as error:
        raise Refusal(401, "Invalid authentication credentials", challenge) from error
    if not any(secrets.compare_digest(told, pair.encode()) for pair in allowed.split(",")):
        raise Refusal(401, "Incorrect username or password", challenge)


def token_of(server: ForgeServer) -> str:
    """Return the value of this boot's login cookie."""
    return f"{server.app_id:x}"


def user_of(server: ForgeServer, request: Request) -> str | None:
    """Return who is logged in to Gradio, or None."""
    for name, value in request.cookies.items():
        if name.startswith(TOKEN_COOKIE) and secrets.compare_digest(
            value.encode(), token_of(server).encode()
        ):
            return server.settings.gradio_auth.split(",")[0].partition(":")[0]
    return None
