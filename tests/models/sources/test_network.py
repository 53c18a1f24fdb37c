"""Where we go and where not: hosts, addresses, redirects, names."""

import ipaddress
import socket
from typing import Any

import httpcore
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import UnsafeAddress
from stablequeue.models.sources.naming import (
    LONGEST,
    has_model_suffix,
    name_of_url,
    safe_name,
)
from stablequeue.models.sources.network import CheckedBackend, Reach, open_client

ANY = Reach(("*",))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.9.9.9",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",  # noqa: S104 - an address to refuse
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "::",
        "fe80::1",
        "fc00::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "2002:7f00:1::",
        "2001:db8::1",
    ],
)
def test_addresses_that_are_not_of_the_open_net_are_refused(address: str) -> None:
    assert not ANY.allows(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111"])
def test_addresses_of_the_open_net_are_allowed(address: str) -> None:
    assert ANY.allows(ipaddress.ip_address(address))


def test_loopback_is_allowed_only_where_it_was_asked_for_and_nothing_private_with_it() -> None:
    own = Reach(("*",), loopback=True)

    assert own.allows(ipaddress.ip_address("127.0.0.1"))
    assert own.allows(ipaddress.ip_address("::1"))
    assert not own.allows(ipaddress.ip_address("192.168.1.1"))
    assert not own.allows(ipaddress.ip_address("169.254.169.254"))


@pytest.mark.parametrize(
    "url",
    [
        "http://civitai.com/x",
        "ftp://civitai.com/x",
        "file:///etc/passwd",
        "https://user:pass@civitai.com/x",
        "https://civitai.com.evil.example/x",
        "https://evil.example/civitai.com",
        "https://notcivitai.com/",
        "//civitai.com/x",
    ],
)
def test_urls_outside_the_allow_list_are_refused(url: str) -> None:
    with pytest.raises(UnsafeAddress):
        Reach(("civitai.com", "*.civitai.com")).check(httpx.URL(url))


def test_urls_within_the_allow_list_pass() -> None:
    reach = Reach(("civitai.com", "*.r2.cloudflarestorage.com"))

    reach.check(httpx.URL("https://CIVITAI.com./api"))
    reach.check(httpx.URL("https://a.b.r2.cloudflarestorage.com/x?y=z"))
    assert not reach.names("r2.cloudflarestorage.com.evil.example")


class Recorder(httpcore.AsyncNetworkBackend):
    """Notes what is connected to, and connects to nothing."""

    def __init__(self) -> None:
        self.connected: list[str] = []

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.connected.append(host)
        raise httpcore.ConnectError(host)


def resolving_to(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> None:
    left = list(answers)

    def getaddrinfo(_host: str, port: int, *_: Any, **__: Any) -> list[Any]:
        found = left.pop(0) if len(left) > 1 else left[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, port)) for one in found]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


async def test_a_name_that_leads_inside_is_not_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving_to(monkeypatch, ["127.0.0.1", "10.0.0.7"])
    recorder = Recorder()

    with pytest.raises(UnsafeAddress, match="private network"):
        await CheckedBackend(ANY, recorder).connect_tcp("rebound.example", 443)

    assert recorder.connected == []


async def test_what_was_checked_is_connected_to_not_the_name_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resolving_to(monkeypatch, ["1.1.1.1"], ["127.0.0.1"])
    recorder = Recorder()

    with pytest.raises(httpcore.ConnectError):
        await CheckedBackend(ANY, recorder).connect_tcp("rebinding.example", 443)

    assert recorder.connected == ["1.1.1.1"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::1]"])
async def test_the_client_itself_refuses_this_machine_under_all_its_names(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_client(ANY) as client:
            with pytest.raises((UnsafeAddress, httpx.ConnectError, httpx.InvalidURL)):
                await client.get(f"http://{host}:{port}/")
        listener.settimeout(0)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("model.safetensors", "model.safetensors"),
        ("../../etc/passwd", "passwd"),
        ("..\\..\\windows\\x.safetensors", "x.safetensors"),
        ("a/b.safetensors", "b.safetensors"),
        ("con.safetensors", "_con.safetensors"),
        ("a:b?.safetensors", "a_b_.safetensors"),
        ("灯笼 v2.safetensors", "灯笼 v2.safetensors"),
        ("x\u202egnp.safetensors", "x_gnp.safetensors"),
        ("...", "model.safetensors"),
        ("", "model.safetensors"),
        (".hidden.safetensors", "hidden.safetensors"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert safe_name(name) == safe


@given(st.text(max_size=400))
def test_no_name_leaves_its_folder_or_is_too_long(name: str) -> None:
    safe = safe_name(name)

    assert safe not in {"", ".", ".."}
    assert not set(safe) & set('/\\\0<>:"|?*\n')
    assert len(safe.encode()) <= LONGEST
    assert safe_name(safe) == safe


def test_a_long_name_keeps_its_suffix() -> None:
    assert safe_name("灯" * 200 + ".safetensors").endswith(".safetensors")


def test_a_url_names_its_file() -> None:
    assert name_of_url("https://h.example/a/b%20c.safetensors?download=true") == "b c.safetensors"
    assert name_of_url("https://h.example/a/..%2f..%2fx.pt") == "x.pt"
    assert name_of_url("https://h.example/") == ""
    assert has_model_suffix("A.SafeTensors")
