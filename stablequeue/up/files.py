"""The read-only file route: thumbnails and pictures of the folder store over http.

Prefect's pages show a picture only by an http address. Names are hashes, nothing is listed, and
it listens on loopback unless the user publishes it himself; a gateway replaces it later.
"""

import re
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from stablequeue.settings import Settings

_HASH = re.compile(r"[0-9a-f]{64}")
_FOR_EVER = {"Cache-Control": "public, max-age=31536000, immutable"}
_SAFE = {"X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'"}


def files_app(settings: Settings) -> Starlette:
    """Return the app: `GET /thumbnails/<sha256>.webp`, `GET /health`."""
    return Starlette(
        routes=[
            Route("/health", _health),
            Route("/thumbnails/{name}", _thumbnail(settings.thumbnails)),
        ]
    )


async def _health(_request: Request) -> Response:
    return PlainTextResponse("ok", headers=_SAFE)


def _thumbnail(folder: Path) -> Callable[[Request], Awaitable[Response]]:
    async def thumbnail(request: Request) -> Response:
        digest = request.path_params["name"].removesuffix(".webp")
        path = folder / digest[:2] / f"{digest}.webp"
        if not _HASH.fullmatch(digest) or not path.is_file():
            return PlainTextResponse("no such picture", status_code=404, headers=_SAFE)
        return FileResponse(path, media_type="image/webp", headers={**_SAFE, **_FOR_EVER})

    return thumbnail


class FilesServer(uvicorn.Server):
    """Serves the files of one installation; ends when its task is cancelled or told to exit."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(
            uvicorn.Config(
                files_app(settings),
                lifespan="off",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )

    def install_signal_handlers(self) -> None:
        """Leave signals to whoever runs this server."""


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; the caller closes it.

    Raises:
        OSError: The port is taken.
    """
    # Named TCP, or asyncio leaves Nagle's algorithm on: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener
