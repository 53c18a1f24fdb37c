"""From an offer's URL to an open answer with the file's bytes, by our own rules for redirects.

Each hop is checked; the key goes to the first host only, never on to storage; the signed address
found at the end serves further streams until storage refuses it, then the source is asked anew.
Sources: Civitai's download endpoint (307 to storage, which refuses an Authorization header and
answers 403 to an address that has expired), RFC 9110 for ranges.
"""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus

import httpx

from stablequeue.errors import (
    AccessDenied,
    DownloadError,
    LoginNeeded,
    ModelGone,
    SourceUnreachable,
)
from stablequeue.models.downloads.checking import check_type
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.offer import Offer
from stablequeue.models.sources.refusals import MOST_READ, Answer, general_refusal

_MOST_HOPS = 8
_RENEWALS = 3
_RANGE = re.compile(r"bytes\s+(\d+)-(\d+)/(\d+|\*)", re.IGNORECASE)
_REFUSED_BY_STORAGE = frozenset({400, 401, 403, 404, 410})
_LARGEST = 1 << 50
"""Bytes; a server that tells more is not to be believed."""


class TryAgain(Exception):
    """A try failed in a way that may pass.

    Args:
        error: What to raise when it was the last.
        at_once: No need to wait: the next try asks somebody else.
    """

    def __init__(self, error: DownloadError, *, at_once: bool = False) -> None:
        super().__init__(error)
        self.error, self.at_once = error, at_once


class Changed(Exception):
    """The storage has another file than before: everything fetched so far is of no use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """An answer with bytes of the file.

    Attributes:
        response: Its body is not read yet.
        start: Position of its first byte in the file.
        end: Position behind its last; 0: not told.
        size: Of the whole file; 0: not told.
        validator: Strong ETag, or else its date of change; empty: none.
        ranged: It is the range that was asked for, not the whole file.
    """

    response: httpx.Response
    start: int
    end: int
    size: int
    validator: str
    ranged: bool


class Door:
    """Opens one offer again and again, for several streams.

    Args:
        offer: What is fetched.
        access: Where we may go for it, and with which key.
        client: Made by `network.open_client` with the same reach.
    """

    def __init__(self, offer: Offer, access: Access, client: httpx.AsyncClient) -> None:
        self._offer, self._access, self._client = offer, access, client
        self._first = httpx.URL(offer.url)
        self._signed: httpx.URL | None = None
        self._asking = asyncio.Lock()
        self._refusals = 0
        self._missing = 0

    @property
    def name(self) -> str:
        """Who is asked, for messages."""
        return self._access.source

    @asynccontextmanager
    async def open(self, start: int, end: int | None, validator: str) -> AsyncGenerator[Opened]:
        """Ask for the bytes from `start` to before `end`; None: to the last.

        Args:
            start: First byte wanted.
            end: The one behind the last wanted.
            validator: Of the file as known so far: if the storage's differs it sends the whole.

        Raises:
            TryAgain: No connection, a fault there, or the signed address is no longer accepted.
            Changed: There is no such range (any more).
            DownloadError: A refusal that asking again does not change.
        """
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
        if validator and start > 0:
            headers["If-Range"] = validator
        try:
            if self._signed is None:
                async with self._asking:  # one asks the source, the others use what it finds
                    response = await self._follow(headers)
            else:
                response = await self._follow(headers)
        except (httpx.TransportError, httpx.StreamError) as error:
            raise TryAgain(self._broken(error)) from error
        except httpx.InvalidURL as error:
            raise DownloadError(self.name, "it redirects to an unreadable address") from error
        try:
            yield self._understood(response, start)
        except (httpx.TransportError, httpx.StreamError) as error:
            raise TryAgain(self._broken(error)) from error
        finally:
            await response.aclose()

    def broken(self, reason: str) -> TryAgain:
        """Return what to raise for a transfer that ended early."""
        return TryAgain(
            SourceUnreachable(self.name, f"the transfer broke too often ({reason}); try again")
        )

    async def _follow(self, wanted: dict[str, str]) -> httpx.Response:
        """Return the answer at the end of the redirects; its status is 200, 206 or 416."""
        url, fresh = self._signed or self._first, self._signed is None
        for _ in range(_MOST_HOPS):
            self._access.reach.check(url)
            own = self._access.headers(url) if _same_host(url, self._first) else {}
            request = self._client.build_request("GET", url, headers={**wanted, **own})
            response = await self._client.send(request, stream=True, auth=None)
            location = response.headers.get("location", "")
            if response.is_redirect and location:
                await response.aclose()
                url = self._next(url.join(location))
                continue
            if response.status_code in {
                HTTPStatus.OK,
                HTTPStatus.PARTIAL_CONTENT,
                HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE,
            }:
                self._signed = url
                return response
            try:
                body = await _beginning(response)
            finally:
                await response.aclose()
            answer = Answer(
                source=self.name,
                status=response.status_code,
                headers=response.headers,
                body=body,
                keyed=bool(own),
            )
            if url == self._signed:
                self._signed = None
            raise self._refused(answer, at_source=_same_host(url, self._first), fresh=fresh)
        raise DownloadError(self.name, "it redirects in circles; look at the model's page")

    def _next(self, url: httpx.URL) -> httpx.URL:
        """Recognise the pages a source sends people to instead of a file."""
        if _same_host(url, self._first):
            if "login" in url.path or url.params.get("reason") == "download-auth":
                raise LoginNeeded(self.name, "it needs a login: set this source's key")
            if re.fullmatch(r"/model-versions/\d+", url.path):
                raise AccessDenied(
                    self.name, "it shows the model's page instead of the file: early access, likely"
                )
        return url

    def _refused(self, answer: Answer, *, at_source: bool, fresh: bool) -> Exception:
        if at_source:
            error = self._access.refusal(answer)
            if isinstance(error, ModelGone) and answer.status == HTTPStatus.NOT_FOUND:
                # Also what Civitai says when it cannot find the storage for a moment.
                self._missing += 1
                return TryAgain(error) if self._missing < _RENEWALS else error
            return TryAgain(error) if error.retryable else error
        if answer.status in _REFUSED_BY_STORAGE:
            error = AccessDenied(
                self.name, f"its storage refuses the address it gave us ({answer.status})"
            )
            if not fresh:
                return TryAgain(error, at_once=True)
            self._refusals += 1
            return TryAgain(error) if self._refusals < _RENEWALS else error
        error = general_refusal(answer)
        return TryAgain(error) if error.retryable else error

    def _understood(self, response: httpx.Response, start: int) -> Opened:
        if response.status_code == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            raise Changed
        headers = response.headers
        check_type(self.name, self._offer.name, headers.get("content-type", ""))
        if headers.get("content-encoding", "identity").casefold() not in {"", "identity"}:
            raise self.broken("it sends the file compressed, which was not asked for")
        self._refusals = 0
        validator = _validator(headers)
        if response.status_code == HTTPStatus.OK:
            size = _number(headers.get("content-length", ""))
            return Opened(
                response=response, start=0, end=size, size=size, validator=validator, ranged=False
            )
        found = _RANGE.fullmatch(headers.get("content-range", "").strip())
        if found is None or int(found[1]) != start or int(found[2]) < start:
            raise self.broken("it sends another range than was asked for")
        size = 0 if found[3] == "*" else _number(found[3])
        return Opened(
            response=response,
            start=start,
            end=int(found[2]) + 1,
            size=size,
            validator=validator,
            ranged=True,
        )

    def _broken(self, error: Exception) -> DownloadError:
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            reason = f"no connection to its host ({str(error) or 'no answer'})"
            return SourceUnreachable(self.name, f"{reason}. Is this machine online?")
        reason = str(error) or type(error).__name__
        return SourceUnreachable(self.name, f"the transfer broke too often ({reason}); try again")


async def _beginning(response: httpx.Response) -> str:
    body = b""
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= MOST_READ:
            break
    return body[:MOST_READ].decode("utf-8", "replace")


def _same_host(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, one.port) == (other.scheme, other.host, other.port)


def _validator(headers: httpx.Headers) -> str:
    """Return what If-Range may carry: a strong ETag, else the date of change."""
    etag = headers.get("etag", "").strip()
    if etag.startswith('"'):
        return etag
    return headers.get("last-modified", "") if not etag else ""


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and int(text) <= _LARGEST else 0
