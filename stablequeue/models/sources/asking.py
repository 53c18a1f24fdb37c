"""Asking an API for JSON: one client, retries, redirects by our own rules, Retry-After honoured."""

import asyncio
import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

import httpx

from stablequeue.errors import DownloadError, SourceUnreachable
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.pace import Pace
from stablequeue.models.sources.patience import Patience, Pause
from stablequeue.models.sources.refusals import MOST_READ, Answer

_MOST_HOPS = 4
_LARGEST = 64 * 1024 * 1024
"""Bytes of an answer; the site's largest pages have a few megabytes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTries:
    """How patient a request to an API is; the names are those of `patience.Tries`."""

    tries: int = 5
    most_failures: int = 5
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    patience_s: float = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """An answer that is no failure: found, not modified, or not found."""

    status: int
    headers: httpx.Headers
    data: Any = None

    @property
    def found(self) -> bool:
        """Whether there is such a thing."""
        return self.status < HTTPStatus.BAD_REQUEST


class Asker:
    """Sends requests to one source's API.

    Args:
        access: Where to, with which key.
        client: Made by `network.open_client`.
        pace: How many requests are welcome.
        tries: How patient.
        pause: Waits between tries.
    """

    def __init__(
        self,
        access: Access,
        client: httpx.AsyncClient,
        pace: Pace,
        *,
        tries: ApiTries | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._access, self._client, self._pace = access, client, pace
        self._tries, self._pause = tries or ApiTries(), pause

    async def ask(self, method: str, url: httpx.URL, *, etag: str = "", body: Any = None) -> Reply:
        """Return the reply to a request that may be repeated.

        Args:
            method: GET, HEAD, or a POST that only looks something up.
            url: Whole, with its query.
            etag: Of the answer at hand; a status of 304 says that it still holds.
            body: JSON to send.

        Raises:
            DownloadError: A refusal, or no answer after several tries.
        """
        patience = Patience(self._tries, self._pause)
        while True:
            try:
                return await self._once(method, url, etag, body)
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                failed: DownloadError = SourceUnreachable(
                    self._access.source, f"no answer ({reason}). Is this machine online?"
                )
            except DownloadError as error:
                if not error.retryable:
                    raise
                failed = error
            await patience.failed(failed)

    async def _once(self, method: str, url: httpx.URL, etag: str, body: Any) -> Reply:
        first, source = url, self._access.source
        for _ in range(_MOST_HOPS):
            self._access.reach.check(url)
            # A redirect to another host gets no key, whatever host it is.
            own = self._access.headers(url) if url.host == first.host else {}
            headers = {"Accept": "application/json", **own}
            if etag:
                headers["If-None-Match"] = etag
            if body is not None:
                headers["Content-Type"] = "application/json"
            content = None if body is None else json.dumps(body).encode()
            await self._pace.turn()
            request = self._client.build_request(method, url, headers=headers, content=content)
            response = await self._client.send(request, stream=True, auth=None)
            try:
                location = response.headers.get("location", "")
                if response.is_redirect and location and self._is_ours(url.join(location), first):
                    url = url.join(location)
                    continue
                text = await _body(response, source)
            finally:
                await response.aclose()
            return self._understood(response, text, keyed=bool(own), method=method)
        raise DownloadError(source, "it redirects in circles")

    def _is_ours(self, url: httpx.URL, first: httpx.URL) -> bool:
        """Whether a redirect stays within the API; one to storage is an answer by itself."""
        return url.host == first.host or url.path == first.path

    def _understood(
        self, response: httpx.Response, text: str, *, keyed: bool, method: str
    ) -> Reply:
        status, source = response.status_code, self._access.source
        if status == HTTPStatus.NOT_MODIFIED or response.is_redirect or method == "HEAD":
            if status < HTTPStatus.BAD_REQUEST:
                return Reply(status=status, headers=response.headers)
        elif status == HTTPStatus.OK:
            try:
                return Reply(status=status, headers=response.headers, data=json.loads(text))
            except (ValueError, RecursionError) as error:
                raise SourceUnreachable(
                    source, "it answers with a page instead of data; is its address right?"
                ) from error
        answer = Answer(
            source=source,
            status=status,
            headers=response.headers,
            body=text[:MOST_READ],
            keyed=keyed,
        )
        if status == HTTPStatus.NOT_FOUND and not answer.is_page:
            return Reply(status=status, headers=response.headers)
        raise self._access.refusal(answer)


async def _body(response: httpx.Response, source: str) -> str:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _LARGEST:
            raise DownloadError(source, "its answer is larger than any it should give")
    return body.decode("utf-8", "replace")


def as_mapping(data: Any) -> dict[str, Any]:
    """Return a JSON object; anything else is an empty one."""
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}


def as_mappings(data: Any) -> list[dict[str, Any]]:
    """Return the objects of a JSON list; `null` and the like are left out."""
    if not isinstance(data, list):
        return []
    return [as_mapping(one) for one in cast("list[Any]", data) if isinstance(one, dict)]
