"""What Gradio serves beside its queue: identity, login, files, pages.

With `--gradio-auth` most of it wants the login cookie; HTTP Basic is not accepted here.
"""

from typing import Any
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response

from stablequeue.sandbox.forge.answers import Refusal, answer
from stablequeue.sandbox.forge.routing import (
    TOKEN_COOKIE,
    Endpoint,
    Guard,
    Handler,
    token_of,
    user_of,
)
from stablequeue.sandbox.forge.server import ForgeServer

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>StableQueue sandbox (Forge)</title></head>
<body><h1>StableQueue sandbox</h1><p>This is not Forge: it answers as Forge does and paints test
cards instead of pictures. There is no web page to use.</p></body></html>
"""


async def app_id(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /app_id`: new at each boot. `stablequeue_sandbox` tells us from a real one."""
    del request
    return answer({"app_id": server.app_id, "stablequeue_sandbox": True})


async def user(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /user`."""
    return answer(user_of(server, request))


async def token(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /token`."""
    name = user_of(server, request)
    return answer({"token": token_of(server) if name else None, "user": name})


async def login_check(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /login_check`; the guard refuses who is not logged in."""
    del server, request
    return answer(None)


async def login(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /login`: form fields in, two cookies out, one of them for HTTPS only."""
    raw = await request.body()
    fields = parse_qs(raw.decode("utf-8", "replace"), keep_blank_values=True)
    missing = [
        {"type": "missing", "loc": ["body", name], "msg": "Field required", "input": None}
        for name in ("username", "password")
        if name not in fields
    ]
    if missing:
        raise Refusal(422, missing)
    given = f"{fields['username'][0].strip()}:{fields['password'][0]}"
    if given not in server.settings.gradio_auth.split(",") or not server.settings.gradio_auth:
        raise Refusal(400, "Incorrect credentials.")
    response = answer({"success": True})
    cookie = f"{server.app_id:016x}"
    value = token_of(server)
    response.set_cookie(
        f"{TOKEN_COOKIE}{cookie}", value, httponly=True, samesite="none", secure=True
    )
    response.set_cookie(f"{TOKEN_COOKIE}unsecure-{cookie}", value, httponly=True)
    return response


async def get_file(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /file=...`: the whole data folder, nothing else; relative paths start there."""
    told = request.path_params["path"]
    try:
        path = server.files.find(told)
    except PermissionError as error:
        raise Refusal(403, f"File not allowed: {told}.") from error
    except FileNotFoundError as error:
        raise Refusal(404, f"File not found: {told}.") from error
    return FileResponse(path, headers={"Accept-Ranges": "bytes"})


async def page(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /`."""
    del server, request
    return HTMLResponse(_PAGE)


async def robots(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /robots.txt`."""
    del server, request
    return PlainTextResponse("User-agent: *\nDisallow: ")


async def theme(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /theme.css`."""
    del server, request
    return Response(":root {\n  --name: default;\n}\n", media_type="text/css")


def _constant(data: Any) -> Handler:
    async def handler(server: ForgeServer, request: Request) -> Response:
        del server, request
        return answer(data)

    return handler


def endpoints() -> list[Endpoint]:
    """Return this module's routes."""
    both = {"/app_id": app_id, "/user": user, "/token": token}
    files = {"/file={path:path}", "/file/{path:path}"}
    return [
        *(
            Endpoint(path=path + slash, handler=handler, guard=Guard.NONE)
            for path, handler in both.items()
            for slash in ("", "/")
        ),
        Endpoint(path="/login_check", handler=login_check, guard=Guard.LOGIN),
        Endpoint(path="/login_check/", handler=login_check, guard=Guard.LOGIN),
        Endpoint(path="/login", handler=login, methods=("POST",), guard=Guard.NONE),
        Endpoint(path="/login/", handler=login, methods=("POST",), guard=Guard.NONE),
        Endpoint(path="/startup-events", handler=_constant(data=False), guard=Guard.LOGIN),
        Endpoint(path="/robots.txt", handler=robots, guard=Guard.NONE),
        Endpoint(path="/theme.css", handler=theme, guard=Guard.LOGIN),
        Endpoint(path="/sd_extra_networks/metadata", handler=_constant({}), guard=Guard.NONE),
        *(Endpoint(path=path, handler=get_file, guard=Guard.LOGIN) for path in sorted(files)),
        Endpoint(path="/", handler=page, guard=Guard.NONE),
    ]
