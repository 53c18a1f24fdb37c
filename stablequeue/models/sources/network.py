"""Where we may go: hosts by an allow-list, addresses only outside private networks.

URLs come from web pages, workflows and servers. Each hop's URL is checked before it is asked, and
its host's address is checked when the connection is made and connected to as checked, so that a
name that resolves differently the second time gains nothing. Proxies of the environment are not
used: what they connect to cannot be checked.
"""

import asyncio
import ipaddress
import logging
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, cast

import httpcore
import httpx

from stablequeue.errors import UnsafeAddress
from stablequeue.hiding import without_secrets

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_READ = 1024 * 1024
"""Bytes asked for at once. httpcore asks for 64 KiB, which costs four times as much a byte."""

_LARGEST_PORT = 65535
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Reach:
    """Which URLs may be asked.

    Attributes:
        hosts: Names; `*.example.org` stands for all below example.org, `*` for any host.
        loopback: Also this machine, and there by plain http too: for a mirror, and for tests.
    """

    hosts: tuple[str, ...]
    loopback: bool = False

    def names(self, host: str) -> bool:
        """Whether the allow-list has this host."""
        return host_matches(host, self.hosts)

    def check(self, url: httpx.URL) -> None:
        """Refuse a URL we do not go to.

        Raises:
            UnsafeAddress: Not https, a password in it, or a host that is not allowed.
        """
        host = url.host
        if not host or url.userinfo or not 0 < (url.port or 1) <= _LARGEST_PORT:
            raise UnsafeAddress(host or "url", "no host, no such port, or a password in it")
        plain = url.scheme == "http" and self.loopback and _is_loopback_name(host)
        if url.scheme != "https" and not plain:
            raise UnsafeAddress(host, f"only https is allowed, not {url.scheme or 'this'}://")
        if not self.names(host):
            raise UnsafeAddress(
                host, "this host is not among the allowed ones. Add it to the source's `hosts`"
            )

    def allows(self, address: Address) -> bool:
        """Whether connecting to this address is allowed."""
        inner = _embedded(address)
        if inner is not None:
            return self.allows(inner)
        if address.is_loopback:
            return self.loopback
        return address.is_global and not (
            address.is_multicast
            or address.is_reserved
            or address.is_link_local
            or address.is_unspecified
        )


def host_matches(host: str, patterns: Iterable[str]) -> bool:
    """Whether a host's name fits one of `name`, `*.name` or `*`."""
    name = host.casefold().rstrip(".")
    for raw in patterns:
        pattern = raw.casefold().rstrip(".")
        below = pattern.removeprefix("*")
        if pattern in ("*", name) or (pattern.startswith("*.") and name.endswith(below)):
            return True
    return False


def user_agent() -> str:
    """Return how we introduce ourselves; a library's default is blocked by Civitai's edge."""
    return f"StableQueue/{version('stablequeue')}"


def open_client(
    reach: Reach, *, connect_s: float = 30.0, read_s: float = 120.0
) -> httpx.AsyncClient:
    """Return a client that connects to allowed addresses only and follows no redirects.

    Args:
        reach: What may be connected to; URLs are the caller's to check.
        connect_s: Seconds to connect, and to get a connection.
        read_s: Seconds without a single byte after which a transfer counts as stalled.
    """
    _hide_in_logs()
    return httpx.AsyncClient(
        transport=_CheckedTransport(reach),
        timeout=httpx.Timeout(read_s, connect=connect_s, pool=None),
        headers={
            "User-Agent": user_agent(),
            "Accept": "*/*",
            "Accept-Encoding": "identity",  # else sizes and ranges mean something else
        },
        follow_redirects=False,
        trust_env=False,
    )


class _Hiding(logging.Filter):
    """Takes signed parameters and keys out of what the HTTP libraries log."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


@cache
def _hide_in_logs() -> None:
    # httpx tells every URL at INFO; httpcore tells the headers of answers, Location too, at DEBUG.
    for name in ("httpx", "httpcore.connection", "httpcore.http11"):
        logging.getLogger(name).addFilter(_Hiding())


class _CheckedTransport(httpx.AsyncHTTPTransport):
    """httpx's own transport over a pool whose connections are checked."""

    def __init__(self, reach: Reach) -> None:
        super().__init__(verify=_no_tls(), trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=_tls(),
            max_connections=None,
            max_keepalive_connections=8,
            keepalive_expiry=15.0,
            network_backend=CheckedBackend(reach),
        )


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


@cache
def _no_tls() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


class CheckedBackend(httpcore.AsyncNetworkBackend):
    """Resolves a name, checks what it means, and connects to just that.

    Args:
        reach: Which addresses are allowed.
        inner: Makes the connections.
    """

    def __init__(self, reach: Reach, inner: httpcore.AsyncNetworkBackend | None = None) -> None:
        self._reach = reach
        self._inner = inner or cast("httpcore.AsyncNetworkBackend", httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - httpcore's interface
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Connect to the first of the host's allowed addresses that answers."""
        addresses = await self._resolve(host, port, timeout)
        allowed = [address for address in addresses if self._reach.allows(address)]
        if not allowed:
            raise UnsafeAddress(
                host, "its name leads into a private network or to this machine, not to the net"
            )
        failure: httpcore.NetworkError | httpcore.TimeoutException | None = None
        for address in allowed:
            try:
                stream = await self._inner.connect_tcp(
                    str(address), port, timeout, local_address, socket_options
                )
            except (httpcore.NetworkError, httpcore.TimeoutException) as error:
                failure = error
            else:
                return _WideStream(stream)
        assert failure is not None  # noqa: S101 - there was at least one address
        raise failure

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109, ARG002 - httpcore's interface
        socket_options: Iterable[Any] | None = None,  # noqa: ARG002
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no model comes from a socket of this machine."""
        raise UnsafeAddress(path, "no socket of this machine")

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    async def _resolve(self, host: str, port: int, within_s: float | None) -> list[Address]:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(within_s):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except TimeoutError as error:
            raise httpcore.ConnectTimeout(f"no address for {host} in time") from error
        except (OSError, UnicodeError) as error:
            raise httpcore.ConnectError(f"{host} has no address") from error
        return list(dict.fromkeys(ipaddress.ip_address(entry[4][0]) for entry in found))


class _WideStream(httpcore.AsyncNetworkStream):
    """A connection that is read in large pieces."""

    def __init__(self, inner: httpcore.AsyncNetworkStream) -> None:
        self._inner = inner

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._inner.read(max(max_bytes, _READ), timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        await self._inner.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _WideStream(await self._inner.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


def _embedded(address: Address) -> Address | None:
    """Return the IPv4 address an IPv6 address really leads to, if it is such a one."""
    if not isinstance(address, ipaddress.IPv6Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return None


def _is_loopback_name(host: str) -> bool:
    if host.casefold() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
