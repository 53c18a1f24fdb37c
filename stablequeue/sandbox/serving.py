"""Starts sandboxes: in a thread for tests, in the foreground for `python -m stablequeue.sandbox`.

With protocol `both`, ComfyUI's and Forge's routes stand on one port. Only `GET /` means something
in both (a start page), and ComfyUI's wins. What neither knows is answered in Forge's way below
`_FORGE_PREFIXES` and in ComfyUI's everywhere else.
"""

import asyncio
import contextlib
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator
from pathlib import Path
from typing import Any, Self, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from stablequeue.errors import SettingsError
from stablequeue.sandbox import control
from stablequeue.sandbox.card import GraphicsCard
from stablequeue.sandbox.connections import Connections
from stablequeue.sandbox.disturbance import Disturbance
from stablequeue.sandbox.faults import Faults
from stablequeue.sandbox.state import SandboxConfig, SandboxState

PROTOCOLS = ("comfyui", "forge", "both")
_START_TIMEOUT_S = 20.0
_STOP_TIMEOUT_S = 10.0
_FORGE_PREFIXES = (
    "/sdapi", "/internal/", "/controlnet/", "/app_id", "/config", "/info", "/queue/", "/call/",
    "/docs", "/openapi.json",
)  # fmt: skip


def _routes(state: SandboxState) -> list[BaseRoute]:
    routes: list[BaseRoute] = control.build(state) if state.config.control else []
    if state.config.protocol in {"comfyui", "both"}:
        from stablequeue.sandbox.comfyui import app as comfyui  # noqa: PLC0415 - only when served

        routes += comfyui.build(state)
    if state.config.protocol in {"forge", "both"}:
        from stablequeue.sandbox.forge import app as forge  # noqa: PLC0415 - only when served

        routes += forge.build(state)
    return routes


def build_app(state: SandboxState, connections: Connections) -> Starlette:
    """Return the ASGI application of one life of a sandbox.

    Raises:
        SettingsError: There is no such protocol.
    """
    if state.config.protocol not in PROTOCOLS:
        message = f"sandbox protocol {state.config.protocol!r}: use {', '.join(PROTOCOLS)}"
        raise SettingsError(message)

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        state.loop = asyncio.get_running_loop()
        for start in state.on_startup:
            await start()
        yield

    def unknown(request: Request, error: Exception) -> Response:
        refused = cast("HTTPException", error)
        protocol, path = state.config.protocol, request.url.path
        if protocol == "forge" or (protocol == "both" and path.startswith(_FORGE_PREFIXES)):
            return JSONResponse(
                {"detail": refused.detail}, refused.status_code, headers=refused.headers
            )
        from stablequeue.sandbox.comfyui import app as comfyui  # noqa: PLC0415 - only when served

        return comfyui.unknown(request, refused.headers or {})

    app = Starlette(
        routes=_routes(state),
        middleware=[Middleware(Disturbance, state=state, connections=connections)],
        exception_handlers={404: unknown, 405: unknown},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


class _Life:
    """One boot of a server: uvicorn, its listening socket and its state."""

    def __init__(
        self, config: SandboxConfig, listener: socket.socket, on_kill: Callable[[], None] | None
    ) -> None:
        self.listener = listener
        self.connections = Connections()
        self.state = SandboxState(config=config)
        self.state.kill = on_kill or self.kill
        self.state.cut_sockets = self.connections.cut_sockets
        app = build_app(self.state, self.connections)
        self.server = uvicorn.Server(
            uvicorn.Config(
                app,
                http=self.connections.protocol_class(),  # type: ignore[arg-type]
                ws="websockets-sansio",
                ws_ping_interval=None,
                ws_max_size=2**31 - 1,
                log_config=None,
                log_level="critical",
                access_log=False,
                lifespan="on",
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )

        self._serving: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serve until killed or asked to exit."""
        asyncio.run(self._run())

    async def _run(self) -> None:
        self._serving = asyncio.create_task(self.server.serve(sockets=[self.listener]))
        with contextlib.suppress(asyncio.CancelledError):  # killed
            await self._serving

    def kill(self) -> None:
        """Close everything at once; from the server's event loop."""
        for server in self.server.servers:
            server.close()
        self.connections.cut_all()
        if self._serving is not None:
            self._serving.cancel()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off only for sockets that say TCP; else each answer takes 40 ms
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere this would let two servers share a port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        message = f"the sandbox cannot listen on {host}:{port} ({error}); choose another port"
        raise SettingsError(message) from error
    return listener


class Sandbox:
    """A sandbox server in a thread of this process; use it with `with`, or start and stop it.

    Attributes:
        config: Its set-up, the same through restarts.
        host: Address it listens on.
        port: 0 until the first start, then always the same.
    """

    def __init__(self, config: SandboxConfig, *, host: str = "127.0.0.1", port: int = 0) -> None:
        self.config, self.host, self.port = config, host, port
        self._life: _Life | None = None
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def state(self) -> SandboxState:
        """The present (or, when stopped, the last) life's state."""
        if self._life is None:
            message = "this sandbox was never started"
            raise RuntimeError(message)
        return self._life.state

    @property
    def faults(self) -> Faults:
        """What goes wrong; survives restarts."""
        return self.config.faults

    @property
    def card(self) -> GraphicsCard:
        """The graphics card; survives restarts, without what this server had loaded."""
        return self.config.card

    @property
    def running(self) -> bool:
        """Whether it serves."""
        return self._thread is not None and self._thread.is_alive()

    def start(self) -> None:
        """Boot: the same port and files, nothing else remembered. Fine if it runs.

        Raises:
            SettingsError: The port cannot be had, or the set-up is wrong.
            RuntimeError: It did not come up.
        """
        if self.running:
            return
        listener = _listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        try:
            life = self._life = _Life(self.config, listener, None)
        except BaseException:
            listener.close()
            raise
        for protocol in ("comfyui", "forge"):
            self.card.unload(life.state.owner(protocol))
        self._failure = None
        self._thread = threading.Thread(
            target=self._serve, args=(life,), name=f"sandbox:{self.port}", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not life.server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                message = f"the sandbox did not start on {self.host}:{self.port}"
                raise RuntimeError(message) from self._failure
            time.sleep(0.002)

    def _serve(self, life: _Life) -> None:
        try:
            life.run()
        except BaseException as error:  # noqa: BLE001 - handed to the thread that started us
            self._failure = error
        finally:
            life.listener.close()

    def stop(self) -> None:
        """End it at once: sockets cut, memory gone, files kept. Fine if it does not run.

        Raises:
            RuntimeError: It would not end.
        """
        if self._life is None or self._thread is None:
            return
        if self._thread.is_alive():
            loop = self._life.state.loop
            if loop is not None:
                with contextlib.suppress(RuntimeError):  # it has ended by itself meanwhile
                    loop.call_soon_threadsafe(self._life.kill)
        self._thread.join(_STOP_TIMEOUT_S)
        if self._thread.is_alive():
            message = f"the sandbox on {self.url} does not end"
            raise RuntimeError(message)

    def cut_connections(self) -> None:
        """End every connection at once, as a network that fails; fine if it does not run."""
        life = self._life
        if life is not None and self.running and life.state.loop is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself meanwhile
                life.state.loop.call_soon_threadsafe(life.connections.cut_all)

    def restart(self) -> None:
        """Stop and start."""
        self.stop()
        self.start()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def serve_sandbox(
    protocol: str = "comfyui",
    *,
    home: Path | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    **config: Any,
) -> Generator[Sandbox]:
    """Serve a sandbox in a thread for as long as the block lasts.

    Args:
        protocol: `comfyui`, `forge` or `both`.
        home: Folder for its files; empty: a temporary one, removed at the end.
        host: Address to listen on.
        port: 0: any free one.
        **config: Further fields of `SandboxConfig`.

    Raises:
        SettingsError: The port cannot be had, or the set-up is wrong.
    """
    folder = home or Path(tempfile.mkdtemp(prefix="stablequeue-sandbox-"))
    try:
        settings = SandboxConfig(protocol=protocol, home=folder, **config)
        with Sandbox(settings, host=host, port=port) as sandbox:
            yield sandbox
    finally:
        if home is None:
            shutil.rmtree(folder, ignore_errors=True)


def serve_forever(
    config: SandboxConfig, *, host: str, port: int, announce: Callable[[str], None]
) -> None:
    """Serve in the foreground until interrupted; the fault `die` ends the process with 137.

    Args:
        config: Its set-up.
        host: Address to listen on.
        port: 0: any free one.
        announce: Called with the URL once the port is ours.

    Raises:
        SettingsError: The port cannot be had, or the set-up is wrong.
    """
    listener = _listen(host, port)
    life = _Life(config, listener, lambda: os._exit(137))
    named = f"[{host}]" if ":" in host else host
    announce(f"http://{named}:{listener.getsockname()[1]}")
    life.run()
