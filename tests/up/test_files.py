"""The file route: thumbnails by hash, nothing else, whatever is asked."""

import asyncio
from collections.abc import Callable
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

from stablequeue.settings import Settings
from stablequeue.up.files import FilesServer, listen

HASH = "ab" * 32


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Give an installation with one thumbnail, and files that must not be served."""
    settings = Settings(home=tmp_path / "home")
    shown = settings.thumbnails / HASH[:2] / f"{HASH}.webp"
    shown.parent.mkdir(parents=True)
    shown.write_bytes(b"a thumbnail")
    (shown.parent / "secret.webp").write_bytes(b"secret")
    (settings.home / "secret.webp").write_bytes(b"secret")
    (settings.thumbnails / "cd").mkdir()
    (settings.thumbnails / "cd" / f"{'cd' * 32}.webp").mkdir()
    return settings


def served(settings: Settings, ask: Callable[[int], None]) -> None:
    """Serve on a free port while `ask` runs in a thread."""

    async def main() -> None:
        listener = listen("127.0.0.1", 0)
        server = FilesServer(settings)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.to_thread(ask, listener.getsockname()[1])
        finally:
            server.should_exit = True
            await serving
            listener.close()

    asyncio.run(main())


def raw(port: int, target: str, method: str = "GET") -> tuple[int, bytes]:
    """Ask for a target as it is, without a client that tidies it up."""
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        connection.putheader("Host", "x")
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_thumbnail_is_served_for_ever_and_for_nothing_but_showing(settings: Settings) -> None:
    def ask(port: int) -> None:
        url = f"http://127.0.0.1:{port}"
        for name in (f"{HASH}.webp", HASH):
            answer = httpx.get(f"{url}/thumbnails/{name}", trust_env=False)
            assert (answer.status_code, answer.content) == (200, b"a thumbnail")
            assert answer.headers["content-type"] == "image/webp"
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["content-security-policy"] == "default-src 'none'"
            assert "server" not in answer.headers
        health = httpx.get(f"{url}/health", trust_env=False)
        assert (health.status_code, health.text) == (200, "ok")

    served(settings, ask)


def test_hostile_paths_get_nothing(settings: Settings) -> None:
    hostile = [
        "/",
        "/thumbnails",
        "/thumbnails/",
        "/thumbnails/secret.webp",
        "/thumbnails/../secret.webp",
        "/thumbnails/..%2fsecret.webp",
        "/thumbnails/%2e%2e/secret.webp",
        "/thumbnails/..%5csecret.webp",
        f"/thumbnails/ab/{HASH}.webp",
        f"/thumbnails/ab%2f{HASH}.webp",
        f"/thumbnails/{HASH.upper()}.webp",
        f"/thumbnails/{HASH}%00.webp",
        f"/thumbnails/{HASH}%0a",
        f"/thumbnails/{HASH}.webp.webp",
        f"/thumbnails/{HASH[:-1]}.webp",
        f"/thumbnails/{HASH}a.webp",
        f"/thumbnails/{'cd' * 32}.webp",
        f"/thumbnails/{'ef' * 32}.webp",
        "/thumbnails/" + "a" * 5000,
        "/thumbnails/%ff%fe",
        f"//thumbnails/{HASH}.webp",
        "/thumbnails//etc/passwd",
        "/pictures/",
    ]

    def ask(port: int) -> None:
        for target in hostile:
            status, body = raw(port, target)
            assert status in {404, 307}, (target, status)
            assert b"secret" not in body, target
            assert b"Traceback" not in body, target
        for method in ("POST", "PUT", "DELETE"):
            assert raw(port, f"/thumbnails/{HASH}.webp", method)[0] == 405
        assert raw(port, f"/thumbnails/{HASH}.webp") == (200, b"a thumbnail"), "it still serves"

    served(settings, ask)


def test_a_taken_port_is_told_and_nothing_left_open() -> None:
    with listen("127.0.0.1", 0) as taken, pytest.raises(OSError, match="in use"):
        listen("127.0.0.1", taken.getsockname()[1])
