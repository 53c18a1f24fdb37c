"""Messages between the worker host and its warm processes: JSON, one message a line, both ways.

The host listens on loopback; a process connects, says who it is and shows the host's token, which
it was given in its environment. A closed connection tells each side, at once, that the other died.
"""

import json
import os
import secrets
import socket
import threading
from collections.abc import Callable, Mapping
from typing import Any, cast

Message = dict[str, Any]

HOST = "127.0.0.1"
LARGEST = 64 * 1024 * 1024
"""Bytes of one message at most; a flow run's parameters may have 512 KiB."""

PORT_VARIABLE = "STABLEQUEUE_WORKER_PORT"
TOKEN_VARIABLE = "STABLEQUEUE_WORKER_TOKEN"  # noqa: S105  its name


def new_token() -> str:
    """Return a token only this host and its own processes know."""
    return secrets.token_urlsafe(32)


def encode(message: Mapping[str, Any]) -> bytes:
    """Return a message as it is sent."""
    return json.dumps(message, separators=(",", ":"), default=str).encode() + b"\n"


def decode(line: bytes) -> Message:
    """Return a received message; an empty one if it is none."""
    try:
        message: object = json.loads(line)
    except ValueError:
        return {}
    return cast("Message", message) if isinstance(message, dict) else {}


class HostConnection:
    """A warm process's end: may be written from every thread, read by one.

    Args:
        name: Who this process is, as the host named it.
        kind: `runner` or `template`.
        port: Where the host listens.
        token: The host's.

    Raises:
        OSError: The host does not listen any more.
    """

    def __init__(self, name: str, kind: str, *, port: int, token: str) -> None:
        self.socket = socket.create_connection((HOST, port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._writing = threading.Lock()
        self.send({"hello": kind, "name": name, "token": token, "pid": os.getpid()})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; nothing happens when the host is gone, the reader notices that."""
        with self._writing:
            try:
                self.socket.sendall(encode(message))
            except OSError:
                return

    def read_all(self, act: Callable[[Message], None]) -> None:
        """Hand each message to `act` until the host is gone."""
        try:
            with self.socket.makefile("rb") as lines:
                for line in lines:
                    act(decode(line))
        except OSError:
            return

    def close(self) -> None:
        """Close this end."""
        self.socket.close()


def address_from_environment() -> tuple[int, str]:
    """Return the host's port and token, and take both out of the environment flows will see.

    Raises:
        KeyError: This process was not started by a host.
    """
    return int(os.environ.pop(PORT_VARIABLE)), os.environ.pop(TOKEN_VARIABLE)
