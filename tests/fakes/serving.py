"""A fake's application on a real socket, in a thread of this process."""

import asyncio
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any

import uvicorn

_START_S = 20.0
_STOP_S = 10.0


class Served:
    """A server in a thread.

    Args:
        app: An ASGI application.
        host: Address to listen on.
        name: How its URL calls the host; `localhost` and `127.0.0.1` are different hosts to HTTP.
    """

    def __init__(self, app: Any, *, host: str = "127.0.0.1", name: str = "127.0.0.1") -> None:
        self._listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._listener.bind((host, 0))
        self._listener.listen(256)
        self.url = f"http://{name}:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, name=f"fake:{self.url}", daemon=True)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._server.serve(sockets=[self._listener]))

    def start(self) -> None:
        """Serve; return when it does."""
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                msg = f"{self.url} did not start"
                raise RuntimeError(msg)
            time.sleep(0.002)

    def stop(self) -> None:
        """End; stalled answers are cut."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(_STOP_S)
        self._listener.close()


@contextmanager
def serve(app: Any, *, name: str = "127.0.0.1") -> Generator[str]:
    """Serve `app` for the length of the block; the value is its URL."""
    served = Served(app, name=name)
    served.start()
    try:
        yield served.url
    finally:
        served.stop()
