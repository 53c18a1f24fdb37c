"""What an unsuccessful answer means, and the one thing that helps.

Sources: Civitai's server source (v5.0.2257, August 2026) for its statuses and bodies; Hugging
Face's hub names its reasons in the header `X-Error-Code`. Bodies are quoted in one short line.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, cast

from stablequeue.errors import (
    AccessDenied,
    DownloadDisabled,
    DownloadError,
    EarlyAccess,
    LoginNeeded,
    ModelGone,
    RateLimited,
    RegionBlocked,
    SourceUnreachable,
)

MOST_READ = 16 * 1024
"""Bytes of a refusal's body that are looked at."""

_QUOTED = 160
_LONG_REST = timedelta(hours=1)
"""Civitai's download counter runs over 24 hours and names no time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An unsuccessful answer; `body` is its beginning. `keyed`: our token went with the request."""

    source: str
    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    keyed: bool = False

    @property
    def data(self) -> dict[str, Any]:
        """The body as a JSON object; empty if it is none."""
        try:
            found = json.loads(self.body)
        except (ValueError, RecursionError):
            return {}
        return cast("dict[str, Any]", found) if isinstance(found, dict) else {}

    @property
    def is_page(self) -> bool:
        """Whether it is a web page."""
        kind = self.headers.get("content-type", "").casefold()
        return "html" in kind or self.body.lstrip()[:15].casefold().startswith(("<!doc", "<html"))

    def said(self) -> str:
        """Return its own words in one line; empty for a page."""
        if self.is_page:
            return ""
        told = [str(self.data[key]) for key in ("error", "message") if self.data.get(key)]
        return " ".join(" - ".join(told or [self.body]).split())[:_QUOTED]


def retry_at(headers: Mapping[str, str], now: datetime | None = None) -> datetime | None:
    """Return the time a Retry-After header names (seconds or a date), in UTC."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal():
        seconds = min(int(value), 366 * 86400)
        return (now or datetime.now(UTC)) + timedelta(seconds=seconds)
    try:
        found = parsedate_to_datetime(value)
    except (ValueError, TypeError):
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def general_refusal(answer: Answer) -> DownloadError:  # noqa: PLR0911 - one return a meaning
    """Say what the statuses mean that mean the same everywhere."""
    source, said = answer.source, answer.said()
    quoted = f" ({said})" if said else ""
    match answer.status:
        case HTTPStatus.TOO_MANY_REQUESTS:
            return RateLimited(source, f"too many requests{quoted}.", retry_at(answer.headers))
        case HTTPStatus.UNAUTHORIZED:
            return LoginNeeded(source, f"an account is needed{quoted}. Set this source's token")
        case HTTPStatus.FORBIDDEN:
            return AccessDenied(source, f"it does not give us this file{quoted}")
        case HTTPStatus.NOT_FOUND | HTTPStatus.GONE:
            return ModelGone(source, f"there is no such file, or no longer{quoted}")
        case HTTPStatus.UNAVAILABLE_FOR_LEGAL_REASONS:
            return RegionBlocked(source, f"it does not serve this machine's country{quoted}")
        case status if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            if (when := retry_at(answer.headers)) is not None:
                return RateLimited(source, f"it has too much to do ({status}{quoted}).", when)
            return SourceUnreachable(source, f"a fault there ({status}{quoted}); try again later")
        case HTTPStatus.REQUEST_TIMEOUT:
            return SourceUnreachable(source, "it did not wait for our request; try again")
        case status:
            return DownloadError(source, f"unexpected answer {status}{quoted}")


def civitai_refusal(answer: Answer) -> DownloadError:  # noqa: PLR0911 - one return a meaning
    """Say what Civitai's refusals mean."""
    source, words = answer.source, answer.said()
    lower = words.casefold()
    if answer.is_page and answer.status in {HTTPStatus.FORBIDDEN, HTTPStatus.SERVICE_UNAVAILABLE}:
        return AccessDenied(
            source,
            "its guard against robots blocks this machine's address; use another network, or"
            " fetch the file with a browser",
        )
    if str(answer.data.get("error", "")).casefold() == "early access" or "early access" in lower:
        return EarlyAccess(
            source,
            "this version is in early access: buy it there, or wait.",
            _date(answer.data.get("deadline")),
        )
    match answer.status:
        case HTTPStatus.UNAUTHORIZED if "disabled" in lower:
            return DownloadDisabled(
                source, "its creator has disabled downloads of this file; a key does not help"
            )
        case HTTPStatus.UNAUTHORIZED if answer.keyed:
            return LoginNeeded(
                source, "it needs a login, and the key that was sent is not accepted. Set a new one"
            )
        case HTTPStatus.UNAUTHORIZED:
            return LoginNeeded(
                source, "it needs a login: make an API key in your Civitai account and set it"
            )
        case HTTPStatus.FORBIDDEN:
            return AccessDenied(source, f"this account or address may not have it ({words})")
        case HTTPStatus.GONE:
            return ModelGone(source, "the model is archived and not available for download")
        case HTTPStatus.TOO_MANY_REQUESTS:
            when = retry_at(answer.headers)
            if when is None and "download" in lower:
                when = datetime.now(UTC) + _LONG_REST
            return RateLimited(source, f"too many requests or downloads ({words}).", when)
        case _:
            return general_refusal(answer)


def huggingface_refusal(answer: Answer) -> DownloadError:
    """Say what Hugging Face's refusals mean."""
    source, code = answer.source, answer.headers.get("x-error-code", "")
    if code == "GatedRepo":
        return AccessDenied(
            source,
            "this repository is gated: accept its terms on its page with the token's account",
        )
    if code in {"RepoNotFound", "RevisionNotFound", "EntryNotFound"}:
        what = {"Repo": "repository", "Revi": "revision", "Entr": "file"}[code[:4]]
        hint = "" if answer.keyed or what != "repository" else ", or it is private: set a token"
        return ModelGone(source, f"there is no such {what}{hint}")
    if answer.status == HTTPStatus.UNAUTHORIZED:
        # Without a token it says 401 for what does not exist, too.
        return LoginNeeded(source, "there is no such repository, or it needs a (valid) token")
    return general_refusal(answer)


def _date(value: Any) -> datetime | None:
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
