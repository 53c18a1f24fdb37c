"""Opening Prefect's UI logged in, over real sockets and without Prefect."""

import base64
import os
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from stablequeue.server_login import PATH, LoginRoute, issue_ticket, login_url, redeem_ticket
from stablequeue.settings import Settings
from tests.support.waiting import wait_until

AUTH = "somebody:pass & word</script>"


async def _inner(request: Request) -> PlainTextResponse:
    return PlainTextResponse(f"inner {request.url.path}")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path)


@pytest.fixture
def origin(settings: Settings) -> Iterator[str]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        inner = Starlette(routes=[Route("/{rest:path}", _inner)])
        app = LoginRoute(inner, settings, AUTH, frozenset({host}))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            wait_until(lambda: server.started)
            yield f"http://{host}"
        finally:
            server.should_exit = True
            thread.join()


def _open(origin: str, ticket: str, **options: str) -> httpx.Response:
    return httpx.get(login_url(f"{origin}/api", ticket), headers=options)


def test_a_good_ticket_stores_the_credential_where_the_ui_looks(
    settings: Settings, origin: str
) -> None:
    answer = _open(origin, issue_ticket(settings))
    assert answer.status_code == 200
    stored = re.search(
        r'localStorage\.setItem\("prefect-password","([A-Za-z0-9+/=]+)"\)', answer.text
    )
    assert stored
    assert base64.b64decode(stored[1]).decode() == AUTH


def test_the_page_leaks_to_nobody(settings: Settings, origin: str) -> None:
    answer = _open(origin, issue_ticket(settings))
    assert answer.headers["referrer-policy"] == "no-referrer"
    assert answer.headers["cache-control"] == "no-store"
    assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    assert "access-control-allow-origin" not in answer.headers
    assert AUTH not in answer.text


def test_a_ticket_works_once(settings: Settings, origin: str) -> None:
    ticket = issue_ticket(settings)
    assert _open(origin, ticket).status_code == 200
    again = _open(origin, ticket)
    assert again.status_code == 403
    assert "stablequeue ui" in again.text
    assert "localStorage" not in again.text


def test_of_many_at_once_one_gets_in(settings: Settings, origin: str) -> None:
    ticket = issue_ticket(settings)
    with ThreadPoolExecutor(8) as pool:
        answers = [answer.status_code for answer in pool.map(_open, [origin] * 8, [ticket] * 8)]
    assert sorted(answers) == [200] + [403] * 7


def test_an_old_ticket_is_refused(settings: Settings) -> None:
    ticket = issue_ticket(settings)
    for file in (settings.run_folder / "tickets").iterdir():
        os.utime(file, (file.stat().st_atime, file.stat().st_mtime - 61))
    assert not redeem_ticket(settings, ticket)


def test_old_tickets_are_swept(settings: Settings) -> None:
    issue_ticket(settings)
    folder = settings.run_folder / "tickets"
    for file in folder.iterdir():
        os.utime(file, (0, 0))
    issue_ticket(settings)
    assert len(list(folder.iterdir())) == 1


def test_a_ticket_is_not_kept_in_clear(settings: Settings) -> None:
    ticket = issue_ticket(settings)
    assert all(
        ticket not in file.name + file.read_text()
        for file in (settings.run_folder / "tickets").iterdir()
    )


@pytest.mark.parametrize("ticket", ["", "..", "../prefect.json", "/etc/passwd", "a" * 5000])
def test_an_invented_ticket_is_refused(settings: Settings, origin: str, ticket: str) -> None:
    issue_ticket(settings)
    assert _open(origin, ticket).status_code == 403


def test_a_rebound_name_is_refused_and_the_ticket_stays_good(
    settings: Settings, origin: str
) -> None:
    ticket = issue_ticket(settings)
    assert _open(origin, ticket, host="evil.example").status_code == 403
    assert _open(origin, ticket).status_code == 200


def test_only_get_is_answered(settings: Settings, origin: str) -> None:
    ticket = issue_ticket(settings)
    answer = httpx.post(login_url(f"{origin}/api", ticket))
    assert answer.status_code == 403


def test_everything_else_reaches_prefect(origin: str) -> None:
    assert httpx.get(f"{origin}/dashboard").text == "inner /dashboard"
    assert httpx.get(f"{origin}{PATH}/more").text == f"inner {PATH}/more"
