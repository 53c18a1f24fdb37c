"""What `doctor` finds on a Prefect server: ours as it runs, and somebody else's as it answers."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import pytest

from stablequeue.prefect_api import PrefectApi
from stablequeue.server_checks import Finding, checks


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
