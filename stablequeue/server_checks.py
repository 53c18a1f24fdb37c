"""What `doctor` looks at on a Prefect server, ours or somebody else's, over its API."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from importlib.metadata import version
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx

from stablequeue.errors import NotFound, PrefectUnreachable
from stablequeue.prefect_api import PrefectApi
from stablequeue.prefect_api.model import parse_time
from stablequeue.server_settings import is_loopback
from stablequeue.servers import ServerConfig

Verdict = Literal["ok", "warning", "bad"]

_HOST = " on "
"""Our workers are named POOL on HOST."""

_ALIVE = timedelta(seconds=100)
"""A worker's heartbeat comes every 30 s."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; the message says what to do where it is not ok."""

    about: str
    verdict: Verdict
    message: str


def checks(api: PrefectApi, *, ours: bool) -> list[Finding]:
    """Return what is right and wrong about the server for our use.

    Args:
        api: A session with it.
        ours: Whether it is the one we start (else advice is about its settings).

    Raises:
        PrefectUnreachable: No answer.
        PrefectRefused: It refuses our credentials.
    """
    settings = api.server_settings()
    server: Mapping[str, Any] = settings.get("server", {})
    found = [*_versions(api), *_access(api), *_late(server), *_growth(server)]
    found += [*_leases(server), *_key(ours)]
    return [*found, *_database(server, ours=ours)]


def card_checks(
    api: PrefectApi, servers: Sequence[ServerConfig], *, now: datetime
) -> Iterator[Finding]:
    """Say which cards are driven from more than one host, where their lock does not hold.

    Cards of one server are mentioned only when that is so.

    Args:
        api: A session with the Prefect server.
        servers: The saved ones.
        now: With a time zone, on Prefect's clock.
    """
    cards: dict[str, list[str]] = {}
    for server in servers:
        cards.setdefault(server.card_key, []).append(server.alias)
    for card, aliases in sorted(cards.items()):
        hosts = sorted({host for alias in aliases for host in _hosts(api, alias, now)})
        named, about = ", ".join(sorted(aliases)), f"card {card}"
        if len(hosts) > 1:
            yield Finding(
                about,
                "warning",
                f"{named}: workers on {' and '.join(hosts)} drive it, so jobs of theirs can"
                " generate at the same time; run StableQueue on one of these hosts only, or, if"
                " the servers have different cards, say so: stablequeue servers add NAME --update"
                " --card HOST/GPU",
            )
        elif len(aliases) > 1:
            driven = f"driven from {hosts[0]}" if hosts else "no worker drives it now"
            yield Finding(about, "ok", f"{named}: {driven}")


def _hosts(api: PrefectApi, pool: str, now: datetime) -> Iterator[str]:
    """Yield the hosts whose workers of this pool live; a worker of somebody else's names none."""
    try:
        rows = list(api.pages(f"work_pools/{pool}/workers/filter", {}, missing="no such pool"))
    except NotFound:
        return  # a new server: `up` has not made its pool yet
    for row in rows:
        seen = parse_time(row.get("last_heartbeat_time"))
        _, named, host = str(row.get("name", "")).rpartition(_HOST)
        if named and seen is not None and now - seen < _ALIVE:
            yield host


def _versions(api: PrefectApi) -> Iterator[Finding]:
    there, here = api.version(), version("prefect")
    if there.split(".")[:2] == here.split(".")[:2]:
        yield Finding("prefect version", "ok", there)
    else:
        yield Finding(
            "prefect version",
            "warning",
            f"the server is {there}, here is {here}; bring both to the same release",
        )


def _access(api: PrefectApi) -> Iterator[Finding]:
    try:
        # A request without our credentials, as any web page on this machine could send it.
        answer = httpx.post(f"{api.url}/flow_runs/count", json={}, timeout=10, trust_env=False)
    except httpx.TransportError as error:
        message = f"lost the connection to Prefect's API at {api.url}"
        raise PrefectUnreachable(message) from error
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        yield Finding("prefect access", "ok", "it asks for credentials")
    else:
        yield Finding(
            "prefect access",
            "bad",
            "anyone who reaches it, any web page you open included, can read saved passwords and"
            " run code on workers; set PREFECT_SERVER_API_AUTH_STRING on it",
        )
    if urlsplit(api.url).scheme == "https" or is_loopback(api.url):
        yield Finding("prefect address", "ok", api.url)
    else:
        yield Finding(
            "prefect address",
            "warning",
            f"{api.url} is plain http over a network: credentials can be read on the way;"
            " put TLS in front of it",
        )


def _late(server: Mapping[str, Any]) -> Iterator[Finding]:
    if _at(server, "services", "late_runs", "enabled") is False:
        yield Finding("prefect late marking", "ok", "off")
    else:
        yield Finding(
            "prefect late marking",
            "warning",
            "on: it rewrites every waiting job again and again; set"
            " PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED=false on the server",
        )


def _growth(server: Mapping[str, Any]) -> Iterator[Finding]:
    if _at(server, "services", "event_persister", "enabled") is False:
        yield Finding("prefect events", "ok", "not stored")
    else:
        retention = _at(server, "events", "retention_period")
        yield Finding(
            "prefect events",
            "warning",
            f"stored for {retention}: 200 of 245 KiB a job; set"
            " PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED=false on the server if nobody"
            " reads the event feed",
        )
    if "flow_runs" in (_at(server, "services", "db_vacuum", "enabled") or ()):
        kept = _at(server, "services", "db_vacuum", "retention_period")
        yield Finding("prefect retention", "ok", f"finished runs are kept for {kept}")
    else:
        yield Finding(
            "prefect retention",
            "warning",
            "finished runs are kept for ever; set"
            " PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs on the server",
        )


def _leases(server: Mapping[str, Any]) -> Iterator[Finding]:
    storage = str(_at(server, "concurrency", "lease_storage") or "")
    if storage.endswith(".memory"):
        yield Finding(
            "prefect leases",
            "warning",
            "kept in memory: concurrency slots held during a restart stay taken; set"
            " PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE on the server",
        )
    else:
        yield Finding("prefect leases", "ok", "outlive a restart")


def _key(ours: bool) -> Iterator[Finding]:
    if ours:
        yield Finding("prefect encryption key", "ok", "its own, outside the database")
    else:
        yield Finding(
            "prefect encryption key",
            "ok",
            "cannot be seen from here: make sure PREFECT_SERVER_ENCRYPTION_KEY is set on the"
            " server, else the key lies in its database",
        )


def _database(server: Mapping[str, Any], *, ours: bool) -> Iterator[Finding]:
    driver = str(_at(server, "database", "driver") or "")
    if ours:
        yield Finding("prefect database", "ok", "SQLite, with immediate transactions")
    elif driver.startswith("postgresql"):
        yield Finding("prefect database", "ok", driver)
    else:
        yield Finding(
            "prefect database",
            "warning",
            f"{driver or 'which one cannot be seen from here'}: on SQLite, a server not started"
            " by StableQueue refuses writes when several come at once; use PostgreSQL",
        )


def _at(data: Mapping[str, Any], *path: str) -> Any:
    found: Any = data
    for name in path:
        found = found.get(name) if isinstance(found, Mapping) else None  # pyright: ignore[reportUnknownVariableType]
    return found  # pyright: ignore[reportUnknownVariableType]
