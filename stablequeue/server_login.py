"""Opening Prefect's UI logged in, without its password ever standing in a URL.

`stablequeue ui` asks `issue_ticket` for a random ticket and opens `login_url` in the browser. Our
server redeems it once, within a minute, and answers with a page that puts the credential where
Prefect's UI keeps what its own login form is given: `localStorage["prefect-password"]`, base64 of
USER:PASSWORD (read in the bundles of Prefect 3.8.8, old UI and v2). Then it goes on to the UI.
"""

import base64
import hashlib
import secrets
import time
from collections.abc import Awaitable, Callable, MutableMapping
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote

from stablequeue.secrets import private_folder
from stablequeue.settings import Settings

PATH = "/stablequeue/login"
STORAGE_KEY = "prefect-password"
LIFETIME_S = 60.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


def issue_ticket(settings: Settings) -> str:
    """Return a new ticket. Only its hash is kept, in a file of the run folder."""
    folder = _folder(settings)
    _sweep(folder)
    ticket = secrets.token_urlsafe(32)
    (folder / _digest(ticket)).touch(mode=0o600)
    return ticket


def redeem_ticket(settings: Settings, ticket: str) -> bool:
    """Use a ticket up; whether it was good. Of two that come at once, one gets it."""
    file = _folder(settings) / _digest(ticket)
    try:
        age = time.time() - file.stat().st_mtime
        file.unlink()
    except FileNotFoundError:
        return False
    return age < LIFETIME_S


def login_url(api_url: str, ticket: str) -> str:
    """Return what to open in the browser, given the API's URL of our own server."""
    return f"{api_url.removesuffix('/api')}{PATH}?ticket={quote(ticket)}"


class LoginRoute:
    """ASGI: answers our one route and hands everything else to Prefect's app.

    Args:
        app: Prefect's application.
        settings: Where tickets are.
        auth: USER:PASSWORD that the page stores.
        hosts: `Host` headers it answers to; others may be a rebound DNS name.
    """

    def __init__(self, app: App, settings: Settings, auth: str, hosts: frozenset[str]) -> None:
        self._app = app
        self._settings = settings
        self._auth = auth
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and scope["path"] == PATH:
            await self._answer(scope, send)
        else:
            await self._app(scope, receive, send)

    async def _answer(self, scope: Scope, send: Send) -> None:
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        query = parse_qs(scope["query_string"].decode("latin-1"))
        ticket = query.get("ticket", [""])[0]
        if scope["method"] != "GET" or headers.get(b"host", "") not in self._hosts:
            await _page(send, 403, "Not here.")
        elif not redeem_ticket(self._settings, ticket):
            await _page(send, 403, "This link was used or is too old. Run: stablequeue ui")
        else:
            credential = base64.b64encode(self._auth.encode()).decode()
            await _page(send, 200, "Opening Prefect", credential=credential)


async def _page(send: Send, status: int, text: str, *, credential: str = "") -> None:
    nonce = secrets.token_urlsafe(16)
    script = ""
    if credential:
        script = (
            f'<script nonce="{nonce}">localStorage.setItem("{STORAGE_KEY}","{credential}");'
            'location.replace("/");</script>'
        )
    body = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>StableQueue</title>'
        f"<p>{escape(text)}</p>{script}</html>"
    ).encode()
    policy = f"default-src 'none'; script-src 'nonce-{nonce}'; frame-ancestors 'none'"
    headers = {
        "content-type": "text/html; charset=utf-8",
        "content-length": str(len(body)),
        "content-security-policy": policy,
        "cache-control": "no-store",
        "referrer-policy": "no-referrer",
        "cross-origin-opener-policy": "same-origin",
        "x-content-type-options": "nosniff",
        "x-frame-options": "DENY",
    }
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body})


def _folder(settings: Settings) -> Path:
    return private_folder(private_folder(settings.run_folder) / "tickets")


def _digest(ticket: str) -> str:
    return hashlib.sha256(ticket.encode()).hexdigest()


def _sweep(folder: Path) -> None:
    for file in folder.iterdir():
        try:
            if time.time() - file.stat().st_mtime > LIFETIME_S:
                file.unlink()
        except FileNotFoundError:
            continue  # redeemed just now
