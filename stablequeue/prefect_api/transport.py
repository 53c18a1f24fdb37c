"""HTTP to Prefect's API: one client, retries where Prefect asks for them, one way to fail.

Nothing here imports Prefect, which takes seconds; this takes httpx.
"""

import random
import time
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

import httpx

from stablequeue.errors import NotFound, PrefectRefused, PrefectUnreachable, SettingsError

PAGE = 200
"""The most rows Prefect's API returns at once."""

_BACKOFF_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
_BUSY = {429, 503}  # 503: SQLite was locked, the transaction was rolled back
_LONGEST_REASON = 300
_LARGEST_PORT = 65535


class Transport:
    """A session with Prefect's API.

    Args:
        url: Ends with /api.
        auth: USER:PASSWORD; empty: none.
        timeout_s: For each answer, in seconds.

    Raises:
        SettingsError: `url` is none.
    """

    def __init__(self, url: str, auth: str = "", *, timeout_s: float = 30.0) -> None:
        user, _, password = auth.partition(":")
        self.url = _checked(url)
        self._client = httpx.Client(
            base_url=self.url + "/",
            auth=httpx.BasicAuth(user, password) if auth else None,
            timeout=httpx.Timeout(timeout_s, connect=5.0),
            # Uvicorn drops idle connections after 5 s; a request into a dropped one would fail.
            limits=httpx.Limits(keepalive_expiry=4.0),
            trust_env=False,
            verify=self.url.startswith("https://"),  # else 20 ms of loading certificates
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def request(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        missing: str = "",
        timeout_s: float | None = None,
    ) -> httpx.Response:
        """Send one request; an answer that says to come back soon is obeyed for about 6 s.

        Args:
            method: HTTP method.
            path: Below /api, without a leading slash.
            json: Body.
            missing: What to say when it answers 404.
            timeout_s: For this answer, in seconds; None: as for all.

        Raises:
            PrefectUnreachable: No connection, no answer in time, or it is failing. Retryable; a
                request that was sent may have had its effect.
            PrefectRefused: It refused; the message carries its reason.
            NotFound: It answered 404.
        """
        for wait in (*_BACKOFF_S, None):
            try:
                response = self._client.request(
                    method,
                    path,
                    json=json,
                    timeout=httpx.USE_CLIENT_DEFAULT if timeout_s is None else timeout_s,
                )
            except httpx.ConnectError as error:
                message = f"no Prefect server answers at {self.url}; start it with: stablequeue up"
                raise PrefectUnreachable(message) from error
            except httpx.TimeoutException as error:
                message = f"Prefect's API at {self.url} does not answer in time; is it overloaded?"
                raise PrefectUnreachable(message) from error
            except (httpx.TransportError, httpx.DecodingError) as error:
                reason = str(error) or type(error).__name__
                message = f"lost the connection to Prefect's API at {self.url} ({reason})"
                raise PrefectUnreachable(message) from error
            if response.status_code in _BUSY and wait is not None:
                time.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311  jitter
                continue
            return self._accepted(response, missing)
        raise AssertionError  # the last round returns or raises

    def call(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        missing: str = "",
        timeout_s: float | None = None,
    ) -> Any:
        """Send one request and return the answer's JSON; None when it has none."""
        response = self.request(method, path, json, missing=missing, timeout_s=timeout_s)
        if not response.content:
            return None
        try:
            return response.json()
        except ValueError as error:
            message = f"{self.url} answers, but not as Prefect's API does; correct prefect_api_url"
            raise PrefectRefused(message) from error

    def pages(
        self, path: str, body: dict[str, Any], *, limit: int | None = None, missing: str = ""
    ) -> Iterator[dict[str, Any]]:
        """Yield the rows of a filter route, page after page, each id once."""
        seen: set[str] = set()
        offset = 0
        while limit is None or len(seen) < limit:
            page = PAGE if limit is None else min(PAGE, limit - len(seen))
            rows: list[dict[str, Any]] = self.call(
                "POST", path, {**body, "limit": page, "offset": offset}, missing=missing
            )
            for row in rows:
                if row["id"] in seen:  # rows came in before this page meanwhile
                    continue
                if limit is not None and len(seen) >= limit:
                    return
                seen.add(row["id"])
                yield row
            if len(rows) < page:
                return
            offset += page

    def _accepted(self, response: httpx.Response, missing: str) -> httpx.Response:
        status = response.status_code
        if response.is_success:
            return response
        if status == HTTPStatus.UNAUTHORIZED:
            message = (
                f"Prefect's API at {self.url} refuses our credentials; set prefect_auth for a"
                " server of somebody else, or use the --home that started this one"
            )
            raise PrefectRefused(message)
        if status == HTTPStatus.NOT_FOUND:
            raise NotFound(missing or f"Prefect has nothing at {response.request.url.path}")
        reason = _reason(response)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _BUSY:
            message = f"Prefect's API at {self.url} is failing ({status}: {reason}); see its log"
            raise PrefectUnreachable(message)
        message = f"Prefect refused ({status}): {reason}"
        raise PrefectRefused(message)


def _checked(url: str) -> str:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        parsed = httpx.URL("")
    port_fits = parsed.port is None or 0 < parsed.port <= _LARGEST_PORT
    if parsed.scheme not in {"http", "https"} or not parsed.host or not port_fits:
        message = f"{url!r} is not the URL of an API, like http://127.0.0.1:4200/api; correct"
        raise SettingsError(f"{message} prefect_api_url")
    return url.rstrip("/")


def _reason(response: httpx.Response) -> str:
    """Return Prefect's own reason in one line."""
    try:
        data = response.json()
    except ValueError:
        return _one_line(response.text) or response.reason_phrase
    answer: Mapping[str, Any] = (
        cast("Mapping[str, Any]", data) if isinstance(data, dict) else {"detail": data}
    )
    problems: list[Mapping[str, Any]] = answer.get("exception_detail") or []
    for problem in problems:
        where = ".".join(str(part) for part in problem.get("loc", ()) if part != "body")
        said = str(problem.get("msg", problem))
        return _one_line(f"{where}: {said}" if where else said)
    return _one_line(str(answer.get("detail") or answer.get("exception_message") or answer))


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[: _LONGEST_REASON - 1] + "…"
