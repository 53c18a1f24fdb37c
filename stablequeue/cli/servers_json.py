"""The `servers.json` of the older StableQueue, read as our configurations.

Its entries have `alias` and `apiUrl`; credentials were written as `auth` (an object with username
and password, or USER:PASSWORD) or as `authUser` and `authPass`, depending on the page used.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlsplit, urlunsplit

from stablequeue.errors import BadRequest
from stablequeue.servers import alias_from

LARGEST = 10_000_000


def read_servers_json(path: Path) -> list[dict[str, Any]]:
    """Return fields of `ServerConfig` for each entry, not validated yet.

    Raises:
        BadRequest: The file cannot be read or is none of its kind; names the entry.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise BadRequest("file", f"{path} is too large to be a list of servers")
        data: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise BadRequest("file", f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("file", f"{path} is not JSON") from error
    if isinstance(data, dict) and isinstance(data.get("servers"), list):
        data = data["servers"]  # pyright: ignore[reportUnknownVariableType]
    if not isinstance(data, list):
        raise BadRequest("file", f"{path} holds no list of servers")
    return [_entry(at, entry) for at, entry in enumerate(cast("list[Any]", data))]


def _entry(at: int, entry: Any) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise BadRequest(f"file: entry {at + 1}", "not an object")
    given = cast("dict[str, Any]", entry)
    name = _first(given, "alias", "name")
    alias = alias_from(name)
    if not alias:
        raise BadRequest(f"file: entry {at + 1}", "it has no alias with letters or digits")
    url, url_user, url_password = _split(_first(given, "apiUrl", "api_url", "url"))
    auth: Any = given.get("auth")
    user, password = _credentials(auth)
    return {
        "alias": alias,
        "type": _first(given, "type", "app_type").lower() or "forge",
        "url": url,
        "username": user or _first(given, "authUser", "username") or url_user,
        "password": password or _first(given, "authPass", "password") or url_password,
    }


def _credentials(auth: Any) -> tuple[str, str]:
    if isinstance(auth, dict):
        data = cast("Mapping[str, Any]", auth)
        return _first(data, "username", "user"), _first(data, "password", "pass")
    if isinstance(auth, str) and ":" in auth:
        user, _, password = auth.partition(":")
        return user, password
    return "", ""


def _split(url: str) -> tuple[str, str, str]:
    """Take credentials out of a URL: they have fields of their own."""
    try:
        parts = urlsplit(url.strip())
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
    except ValueError:
        return url, "", ""
    if not parts.username:
        return url.strip(), "", ""
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=host)), user, password


def _first(data: Mapping[str, Any], *names: str) -> str:
    for name in names:
        value = data.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
    return ""
