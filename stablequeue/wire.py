"""HTTP to generation servers: one client, one way to translate faults, one kind of log line.

Log lines carry the job, the server and the direction: `[SERVER→FORGE] gpu-a job=1a2b3c4d POST
/sdapi/v1/txt2img`, where SERVER is us. Queries, bodies and credentials are never logged.
"""

import logging
import ssl
from base64 import b64encode
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any

import httpx

from stablequeue.errors import EngineAuthFailed, EngineBusy, EngineUnreachable
from stablequeue.hiding import remember
from stablequeue.servers import ServerConfig

logger = logging.getLogger("stablequeue.wire")

current_job: ContextVar[str] = ContextVar("current_job", default="-")
"""Short id of the job whose exchange is logged."""

_REFUSED = {401, 403}
_STARTING = {502, 503, 504}


_LOOKS = ("GET", "HEAD")
_POLLED = ("/internal/progress", "/internal/pending-tasks")


def log_out(server: ServerConfig, text: str, *, level: int = logging.INFO) -> None:
    """Log something we send."""
    logger.log(
        level, "[SERVER→%s] %s job=%s %s", _tag(server), server.alias, current_job.get(), text
    )


def log_in(server: ServerConfig, text: str, *, level: int = logging.INFO) -> None:
    """Log something we received."""
    logger.log(
        level, "[%s→SERVER] %s job=%s %s", _tag(server), server.alias, current_job.get(), text
    )


def _level(request: httpx.Request, status: int = 200) -> int:
    """Looking is told at DEBUG only: a job looks twice a second. What fails is always told."""
    looks = request.method in _LOOKS or request.url.path.endswith(_POLLED)
    return logging.DEBUG if looks and status < HTTPStatus.INTERNAL_SERVER_ERROR else logging.INFO


def _tag(server: ServerConfig) -> str:
    return server.type.upper()


def open_client(server: ServerConfig, **options: Any) -> httpx.AsyncClient:
    """Return an httpx client for `server`: base URL, credentials, timeouts, logging.

    Redirects are not followed and the environment's proxies are not used: a saved server is
    reached directly or not at all.
    """

    async def sent(request: httpx.Request) -> None:
        log_out(server, f"{request.method} {request.url.path}", level=_level(request))

    async def answered(response: httpx.Response) -> None:
        request = response.request
        log_in(
            server,
            f"{response.status_code} {request.url.path}",
            level=_level(request, response.status_code),
        )

    _remember(server)
    headers: dict[str, str] = {}
    auth: httpx.Auth | None = None
    if token := server.token.get_secret_value():
        headers["Authorization"] = f"Bearer {token}"
    elif server.username:
        auth = httpx.BasicAuth(server.username, server.password.get_secret_value())
    if server.url.scheme == "http":
        # Reading the certificates takes 50 ms a session; without TLS none are needed, and a
        # context without any trusts nobody.
        options.setdefault("verify", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
    return httpx.AsyncClient(
        base_url=server.base_url + "/",
        headers=headers,
        auth=auth,
        timeout=httpx.Timeout(server.read_timeout_s, connect=server.connect_timeout_s),
        trust_env=False,
        event_hooks={"request": [sent], "response": [answered]},
        **options,
    )


def _remember(server: ServerConfig) -> None:
    """Have the server's secrets hidden in what it says."""
    users = (server.username, server.password), (server.ui_username, server.ui_password)
    for user, password in users:
        secret = password.get_secret_value()
        remember(secret, b64encode(f"{user}:{secret}".encode()).decode() if secret else "")
    remember(server.token.get_secret_value())


@asynccontextmanager
async def faults(server: ServerConfig, doing: str) -> AsyncGenerator[None]:
    """Translate httpx's transport errors into ours. `doing` completes "while ..."."""
    try:
        yield
    except httpx.TransportError as error:
        reason = str(error) or type(error).__name__
        raise EngineUnreachable(
            server.alias,
            f"no answer while {doing} ({reason}). Is it running at {server.base_url}?",
        ) from error
    except (httpx.InvalidURL, httpx.DecodingError) as error:
        raise EngineUnreachable(server.alias, f"unreadable answer while {doing}") from error


def nothing_listens(error: BaseException | None) -> bool:
    """Whether a request failed because the host refused the connection: no process listens."""
    if error is None or isinstance(error, ConnectionRefusedError):
        return error is not None
    if isinstance(error, BaseExceptionGroup):
        inner: tuple[BaseException, ...] = error.exceptions  # pyright: ignore[reportUnknownVariableType]
        return bool(inner) and all(map(nothing_listens, inner))
    return nothing_listens(error.__cause__ or error.__context__)


def check_access(server: ServerConfig, response: httpx.Response) -> None:
    """Raise for refused credentials and for a server (or proxy) that is not ready.

    Raises:
        EngineAuthFailed: 401 or 403.
        EngineBusy: 502, 503 or 504.
    """
    if response.status_code in _REFUSED:
        raise EngineAuthFailed(
            server.alias,
            f"it refused our credentials ({response.status_code}). "
            f"Correct them with: stablequeue servers add {server.alias} --update ...",
        )
    if response.status_code in _STARTING:
        raise EngineBusy(server.alias, f"it is not ready ({response.status_code}); trying again")
