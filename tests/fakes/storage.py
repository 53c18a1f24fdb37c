"""A file host as R2, Backblaze or a CDN is: signed addresses, ranges, ETags, and faults on demand.

It is never kinder than those: an Authorization header is refused with 400, HEAD with 403, a
library's own User-Agent with 403, and an address that was not signed or has expired with 403.
"""

import asyncio
import hashlib
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Literal

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]

BLOCKED_AGENTS = ("python-", "aria2", "curl/", "wget", "axel", "go-http")

FaultKind = Literal[
    "cut",  # the connection ends after `after` bytes
    "stall",  # nothing more comes after `after` bytes
    "drip",  # a byte now and then comes after `after` bytes
    "short",  # Content-Length and Content-Range tell a shorter file
    "long",  # they tell a longer one
    "sizeless",  # Range is ignored and no length told: 200, chunked
    "whole",  # Range is ignored: 200 with everything
    "expired",  # the signed address is revoked: 403
    "html",  # a page with 200
    "json",  # an error in JSON with 200
    "busy",  # 429, Retry-After 0
    "broken",  # 503
    "replaced",  # another file of the same size is there from now on
    "corrupt",  # a byte is wrong, in this answer only
    "tagless",  # no ETag in this answer
    "shifted",  # the range of 206 begins elsewhere
]


@dataclass(frozen=True)
class Fault:
    """What goes wrong with one request."""

    kind: FaultKind
    after: int = 0


@dataclass
class Stored:
    """One file."""

    data: bytes
    etag: str
    name: str = ""

    @classmethod
    def of(cls, data: bytes, name: str = "") -> "Stored":
        """Return a file with an ETag of its content."""
        return cls(data, f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"', name)


@dataclass
class Seen:
    """One request as it came."""

    method: str
    path: str
    headers: dict[str, str]


@dataclass
class FakeStorage:
    """Files by key; an ASGI application.

    Attributes:
        faults: Taken from the left, one a request; none left: all is well.
        ranges: Whether Range is understood at all.
        signed: Whether an address must be signed.
        seen: Every request, oldest first.
        piece: Bytes sent at once.
        pace_s: Seconds between two pieces.
        most_at_once: Further requests than so many are answered by 429; 0: any number.
        now: Requests being answered, since the last reset.
    """

    files: dict[str, Stored] = field(default_factory=dict[str, Stored])
    faults: deque[Fault] = field(default_factory=deque[Fault])
    ranges: bool = True
    signed: bool = True
    seen: list[Seen] = field(default_factory=list[Seen])
    piece: int = 16 * 1024
    pace_s: float = 0.0
    most_at_once: int = 0
    now: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    valid: set[str] = field(default_factory=set[str])
    _numbers: "count[int]" = field(default_factory=count)

    def sign(self, key: str) -> str:
        """Return path and query of a signed address."""
        signature = f"{next(self._numbers):06d}"
        self.valid.add(signature)
        return f"/{key}?X-Amz-Expires=86400&X-Amz-Signature={signature}"

    def put(self, key: str, data: bytes, name: str = "") -> None:
        """Store a file."""
        self.files[key] = Stored.of(data, name)

    def expire_all(self) -> None:
        """Let every address handed out so far expire."""
        self.valid.clear()

    def reset(self) -> None:
        """Forget requests and faults."""
        self.faults.clear()
        self.seen.clear()
        self.now = []
        self.ranges, self.pace_s, self.most_at_once = True, 0.0, 0

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        headers = {
            name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]
        }
        self.seen.append(Seen(scope["method"], scope["path"], headers))
        refused = self._refused(scope, headers)
        if refused is not None:
            await _answer(send, *refused)
            return
        stored = self.files.get(scope["path"].lstrip("/"))
        fault = self.faults.popleft() if self.faults else None
        if stored is None:
            await _answer(send, 404, "application/xml", _xml("NoSuchKey"))
        elif self.most_at_once and len(self.now) >= self.most_at_once:
            await self._instead(Fault("busy"), scope, send)
        elif fault is not None and fault.kind in {"expired", "html", "json", "busy", "broken"}:
            await self._instead(fault, scope, send)
        else:
            if fault is not None and fault.kind == "replaced":
                stored = Stored.of(_flipped(stored.data), stored.name)
                self.files[scope["path"].lstrip("/")] = stored
            gone = asyncio.create_task(_until_gone(receive))
            answering = self.now  # a reset begins another list
            answering.append(gone)
            try:
                await self._file(stored, fault, headers, gone, send)
            finally:
                answering.remove(gone)
                gone.cancel()

    def _refused(
        self, scope: dict[str, Any], headers: dict[str, str]
    ) -> tuple[int, str, bytes] | None:
        agent = headers.get("user-agent", "").lower()
        if not agent or agent.startswith(BLOCKED_AGENTS):
            return 403, "text/html", b"<!DOCTYPE html><html><body>blocked</body></html>"
        if "authorization" in headers:
            return 400, "application/xml", _xml("InvalidRequest")
        if scope["method"] != "GET":
            return 403, "application/xml", _xml("SignatureDoesNotMatch")
        found = re.search(r"X-Amz-Signature=(\w+)", scope["query_string"].decode())
        if self.signed and (found is None or found[1] not in self.valid):
            return 403, "application/xml", _xml("ExpiredRequest")
        return None

    async def _instead(self, fault: Fault, scope: dict[str, Any], send: Send) -> None:
        if fault.kind == "expired":
            found = re.search(r"X-Amz-Signature=(\w+)", scope["query_string"].decode())
            self.valid.discard(found[1] if found else "")
            await _answer(send, 403, "application/xml", _xml("ExpiredRequest"))
        elif fault.kind == "html":
            page = b"<!DOCTYPE html><html><head><title>Sign in</title></head></html>"
            await _answer(send, 200, "text/html; charset=utf-8", page)
        elif fault.kind == "json":
            await _answer(send, 200, "application/json", b'{"error":"File not found"}')
        elif fault.kind == "busy":
            await _answer(send, 429, "text/plain", b"slow down", [(b"retry-after", b"0")])
        else:
            await _answer(send, 503, "text/html", b"<html>upstream</html>")

    async def _file(
        self,
        stored: Stored,
        fault: Fault | None,
        headers: dict[str, str],
        gone: "asyncio.Task[None]",
        send: Send,
    ) -> None:
        kind, after = (fault.kind, fault.after) if fault else ("", 0)
        size = len(stored.data)
        start, end, ranged = 0, size, False
        same = headers.get("if-range", stored.etag) == stored.etag
        if self.ranges and same and kind not in {"whole", "sizeless"} and "range" in headers:
            wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers["range"])
            assert wanted is not None, headers["range"]
            start, ranged = int(wanted[1]), True
            end = min(int(wanted[2]) + 1, size) if wanted[2] else size
            if start >= size:
                extra = [(b"content-range", f"bytes */{size}".encode())]
                await _answer(send, 416, "application/xml", _xml("InvalidRange"), extra)
                return
        body = stored.data[start:end]
        lie = {"short": -(len(body) // 2), "long": 1000}.get(kind, 0)
        told = len(body) + lie
        body = _flipped(body) if kind == "corrupt" else body[:told]
        answer = {
            "content-type": "application/octet-stream",
            "content-length": str(told),
            "accept-ranges": "bytes" if self.ranges else "none",
            "content-disposition": f'attachment; filename="{stored.name}"',
        }
        if kind == "sizeless":
            del answer["content-length"]
        if kind != "tagless":
            answer["etag"] = stored.etag
        if ranged:
            shown = start + 1 if kind == "shifted" else start
            answer["content-range"] = f"bytes {shown}-{start + told - 1}/{size + lie}"
        raw = [(name.encode(), value.encode()) for name, value in answer.items()]
        status = 206 if ranged else 200
        await send({"type": "http.response.start", "status": status, "headers": raw})
        stop = after if kind in {"cut", "stall", "drip"} else len(body)
        await self._send_body(send, body[:stop], gone)
        if kind == "drip":
            await _drip(send, body[stop:], gone)
        elif kind == "stall":
            await gone
        elif kind not in {"cut", "long"}:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        # Returning without the end makes the server cut the connection.

    async def _send_body(self, send: Send, body: bytes, gone: "asyncio.Task[None]") -> None:
        for begin in range(0, len(body), self.piece):
            if begin:
                await asyncio.sleep(self.pace_s)
            if gone.done():
                return  # sending would go on without complaint, and hold a place
            piece = body[begin : begin + self.piece]
            await send({"type": "http.response.body", "body": piece, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _drip(send: Send, rest: bytes, gone: "asyncio.Task[None]") -> None:
    for begin in range(min(len(rest), 100)):  # then the connection is cut
        piece = rest[begin : begin + 1]
        await send({"type": "http.response.body", "body": piece, "more_body": True})
        await asyncio.sleep(0.03)
        if gone.done():
            return


async def _answer(
    send: Send,
    status: int,
    kind: str,
    body: bytes,
    extra: list[tuple[bytes, bytes]] | None = None,
) -> None:
    headers = [
        (b"content-type", kind.encode()),
        (b"content-length", str(len(body)).encode()),
        *(extra or []),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _xml(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code></Error>'.encode()


def _flipped(data: bytes) -> bytes:
    """Return other bytes of the same size whose beginning is the same."""
    return data[:-1] + bytes([data[-1] ^ 1]) if data else data
