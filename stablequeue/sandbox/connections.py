"""The server's open connections, so that faults can cut them as a crash or a bad network would.

An ASGI application cannot end a connection without an answer; the transport can. uvicorn's
protocol class is extended by one line that remembers each transport by the client's address.
"""

import asyncio
from collections.abc import Callable
from typing import Any, cast

from starlette.types import Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

Address = tuple[str, int]


class Connections:
    """Open transports by the client's (host, port)."""

    def __init__(self) -> None:
        self._open: dict[Address, asyncio.Transport] = {}
        self._sockets: set[Address] = set()

    def protocol_class(self) -> Callable[..., asyncio.Protocol]:
        """Return uvicorn's HTTP protocol, reporting its connections here."""
        connections = self

        class ReportingProtocol(H11Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                connections.opened(cast("asyncio.Transport", transport))
                super().connection_made(cast("asyncio.Transport", transport))

        return ReportingProtocol

    def opened(self, transport: asyncio.Transport) -> None:
        """Remember a transport; forget those that have closed since."""
        self._open = {a: t for a, t in self._open.items() if not t.is_closing()}
        address: Any = transport.get_extra_info("peername")
        self._open[address[0], address[1]] = transport

    def mark_socket(self, scope: Scope) -> None:
        """Note that a connection has become a WebSocket."""
        self._sockets = {a for a in self._sockets if a in self._open}
        self._sockets.add(self._address(scope))

    def cut(self, scope: Scope) -> None:
        """End one connection at once, with nothing further sent."""
        if transport := self._open.pop(self._address(scope), None):
            transport.abort()

    def cut_sockets(self) -> None:
        """End every WebSocket at once, without a closing handshake."""
        for address in self._sockets:
            if transport := self._open.pop(address, None):
                transport.abort()
        self._sockets.clear()

    def cut_all(self) -> None:
        """End every connection at once."""
        for transport in self._open.values():
            transport.abort()
        self._open.clear()
        self._sockets.clear()

    @staticmethod
    def _address(scope: Scope) -> Address:
        host, port = scope["client"]
        return host, port
