"""What `doctor` finds on a Prefect server: ours as it runs, and somebody else's as it answers."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any
from uuid import uuid4

import pytest

from stablequeue.prefect_api import PrefectApi
from stablequeue.server_checks import Finding, card_checks, checks
from stablequeue.servers import ServerConfig


@pytest.mark.prefect
def test_our_own_server_has_nothing_to_mend(prefect_api: PrefectApi) -> None:
    found = checks(prefect_api, ours=True)
    assert [finding for finding in found if finding.verdict != "ok"] == []
    assert len({finding.about for finding in found}) >= 8


class Foreign:
    """A server that answers as a Prefect server somebody else started would."""

    def __init__(self) -> None:
        self.auth = False
        self.version = version("prefect")
        self.url = ""
        self.settings: dict[str, Any] = {
            "server": {
                "services": {
                    "late_runs": {"enabled": True},
                    "event_persister": {"enabled": True},
                    "db_vacuum": {"enabled": ["events"], "retention_period": "P90D"},
                },
                "events": {"retention_period": "P7D"},
                "concurrency": {"lease_storage": "prefect.server.concurrency.lease_storage.memory"},
                "database": {"driver": None},
            }
        }


@pytest.fixture
def foreign() -> Iterator[Foreign]:
    state = Foreign()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/api/admin/settings": state.settings, "/api/admin/version": state.version}
            self._send(200, answers[self.path])

        def do_POST(self) -> None:
            self._send(401 if state.auth and not self.headers.get("authorization") else 200, 0)

        def _send(self, status: int, body: Any) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            text = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/api"
    yield state
    server.shutdown()
    server.server_close()
    thread.join()


def look(foreign: Foreign) -> dict[str, Finding]:
    with PrefectApi(foreign.url, "me:secret") as api:
        return {finding.about: finding for finding in checks(api, ours=False)}


def test_a_server_as_prefect_starts_it_is_told_setting_by_setting(foreign: Foreign) -> None:
    found = look(foreign)
    assert found["prefect access"].verdict == "bad"
    advice = {
        "prefect access": "PREFECT_SERVER_API_AUTH_STRING",
        "prefect late marking": "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED=false",
        "prefect events": "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_ENABLED=false",
        "prefect retention": "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED=events,flow_runs",
        "prefect leases": "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE",
        "prefect database": "PostgreSQL",
    }
    for about, words in advice.items():
        assert found[about].verdict != "ok", about
        assert words in found[about].message, about


def test_each_mended_setting_is_ok(foreign: Foreign) -> None:
    foreign.auth = True
    server = foreign.settings["server"]
    server["services"]["late_runs"]["enabled"] = False
    server["services"]["event_persister"]["enabled"] = False
    server["services"]["db_vacuum"]["enabled"] = ["events", "flow_runs"]
    server["concurrency"]["lease_storage"] = "prefect_redis.lease_storage"
    server["database"]["driver"] = "postgresql+asyncpg"
    assert {finding.verdict for finding in look(foreign).values()} == {"ok"}


def test_another_release_is_a_warning(foreign: Foreign) -> None:
    foreign.version = "3.1.0"
    found = look(foreign)["prefect version"]
    assert found.verdict == "warning"
    assert "3.1.0" in found.message


def test_a_server_that_tells_nothing_is_warned_about_and_no_crash(foreign: Foreign) -> None:
    foreign.settings = {}
    found = look(foreign)
    assert found["prefect late marking"].verdict == "warning"
    assert found["prefect database"].verdict == "warning"


def test_plain_http_over_a_network_is_a_warning(
    foreign: Foreign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def elsewhere(_url: str) -> bool:
        return False

    monkeypatch.setattr("stablequeue.server_checks.is_loopback", elsewhere)
    assert look(foreign)["prefect address"].verdict == "warning"


class Cards:
    """Saved servers on cards, and workers of their pools on hosts."""

    def __init__(self, api: PrefectApi) -> None:
        self.api = api
        self.servers: list[ServerConfig] = []

    def server(self, card: str = "", *, workers: tuple[str, ...] = ()) -> str:
        """Add a server and its pool; `workers` are the workers' names after `ALIAS on `."""
        alias = f"gpu-{uuid4().hex[:12]}"
        fields = {"alias": alias, "type": "forge", "url": "http://127.0.0.1:9", "card": card}
        self.servers.append(ServerConfig.model_validate(fields))
        self.api.call("POST", "work_pools/", {"name": alias, "type": "gpu-server"})
        for host in workers:
            path = f"work_pools/{alias}/workers/heartbeat"
            self.api.call("POST", path, {"name": f"{alias} on {host}"})
        return alias

    def found(self, *, later: timedelta = timedelta()) -> list[Finding]:
        """Return what is found now, or later."""
        return list(card_checks(self.api, self.servers, now=datetime.now(UTC) + later))


@pytest.fixture
def cards(prefect_api: PrefectApi) -> Cards:
    return Cards(prefect_api)


def test_a_card_driven_from_two_hosts_is_a_warning_with_advice(cards: Cards) -> None:
    aliases = [
        cards.server("den/0", workers=("host-a",)),
        cards.server("den/0", workers=("host-b",)),
    ]
    [found] = cards.found()
    assert (found.about, found.verdict) == ("card den/0", "warning")
    assert found.message.startswith(f"{', '.join(sorted(aliases))}: workers on host-a and host-b ")
    assert "--card HOST/GPU" in found.message


def test_a_card_driven_from_one_host_is_fine_and_others_hosts_do_not_matter(cards: Cards) -> None:
    cards.server("den/0", workers=("host-a",))
    cards.server("den/0", workers=("host-a",))
    cards.server("attic/0", workers=("host-b",))
    [found] = cards.found()
    assert (found.about, found.verdict) == ("card den/0", "ok")
    assert found.message.endswith(": driven from host-a")


def test_a_server_with_a_card_of_its_own_is_mentioned_only_when_two_hosts_drive_it(
    cards: Cards,
) -> None:
    alias = cards.server(workers=("host-a", "host-b"))
    cards.server(workers=("host-a",))
    [found] = cards.found()
    assert (found.about, found.verdict) == (f"card server/{alias}", "warning")


def test_workers_of_long_ago_or_of_somebody_else_and_missing_pools_name_no_host(
    cards: Cards,
) -> None:
    alias = cards.server("den/0", workers=("host-a",))
    cards.server("den/0", workers=("host-b",))
    cards.api.call("POST", f"work_pools/{alias}/workers/heartbeat", {"name": "ProcessWorker 1"})
    fields = {"alias": "no-pool-yet", "type": "forge", "url": "http://h", "card": "den/0"}
    cards.servers.append(ServerConfig.model_validate(fields))
    assert cards.found()[0].verdict == "warning"
    [found] = cards.found(later=timedelta(minutes=5))
    assert (found.verdict, found.message.rpartition(": ")[2]) == ("ok", "no worker drives it now")
