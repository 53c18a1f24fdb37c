"""Our Prefect server as it really runs: what it answers, to whom, and how it starts and ends."""

import logging
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import httpx
import psutil
import pytest

from stablequeue import server
from stablequeue.prefect_api import NewRun, PrefectApi
from stablequeue.secrets import load_secrets
from stablequeue.server_login import issue_ticket, login_url
from stablequeue.server_settings import clean_environment
from stablequeue.settings import Settings
from tests.support.prefect import PrefectServer, copied_home, start_server, stop_process
from tests.support.prefect_rows import make_deployment

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(180)]


def test_it_is_set_up_as_a_queue(prefect_api: PrefectApi) -> None:
    found = prefect_api.server_settings()["server"]
    services = found["services"]
    assert services["late_runs"]["enabled"] is False
    assert services["event_persister"]["enabled"] is False
    assert services["triggers"]["enabled"] is True
    assert set(services["db_vacuum"]["enabled"]) == {"events", "flow_runs"}
    assert found["analytics_enabled"] is False
    assert found["concurrency"]["lease_storage"].endswith("filesystem")
    assert found["api"]["host"] == "127.0.0.1"


def test_it_listens_on_loopback_only(prefect_server: PrefectServer) -> None:
    port = httpx.URL(prefect_server.url).port
    listening = [
        item.laddr
        for item in psutil.net_connections("tcp")
        if item.status == psutil.CONN_LISTEN and item.laddr and item.laddr[1] == port
    ]
    assert [address[0] for address in listening] == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "block_documents/filter"),
        ("POST", "flow_runs/filter"),
        ("GET", "admin/settings"),
        ("POST", "deployments/"),
        ("POST", "variables/filter"),
    ],
)
def test_nothing_is_told_without_the_credential(
    prefect_server: PrefectServer, method: str, path: str
) -> None:
    url = f"{prefect_server.url}/{path}"
    for auth in (None, ("stablequeue", "guess"), ("", "")):
        assert httpx.request(method, url, json={}, auth=auth).status_code == 401


def test_a_foreign_web_page_can_read_nothing(
    prefect_server: PrefectServer, prefect_api: PrefectApi
) -> None:
    prefect_api.save_block_document("secret", "canary", {"value": "canary-in-a-block"})
    foreign = {"origin": "https://evil.example"}
    url = f"{prefect_server.url}/block_documents/filter"
    preflight = httpx.options(url, headers={**foreign, "access-control-request-method": "POST"})
    assert "access-control-allow-origin" not in preflight.headers
    asked = httpx.post(url, json={"include_secrets": True}, headers=foreign)
    assert asked.status_code == 401
    assert "access-control-allow-origin" not in asked.headers
    assert "canary-in-a-block" not in asked.text


def test_secrets_are_encrypted_with_a_key_that_is_not_in_the_database(
    prefect_server: PrefectServer, prefect_api: PrefectApi
) -> None:
    name = f"canary-{uuid4().hex}"
    prefect_api.save_block_document("secret", name, {"value": "another-canary"})
    assert prefect_api.block_document("secret", name).data == {"value": "********"}
    assert prefect_api.block_document("secret", name, secrets=True).data["value"] == (
        "another-canary"
    )
    file = prefect_server.settings.home / "prefect" / "prefect.db"
    with sqlite3.connect(f"file:{file}?mode=ro", uri=True) as database:
        keys = database.execute("select * from configuration where key='ENCRYPTION_KEY'").fetchall()
        stored = database.execute("select data from block_document").fetchall()
    assert keys == []
    assert "another-canary" not in str(stored)


def test_no_secret_stands_in_a_command_line(prefect_server: PrefectServer) -> None:
    secrets = load_secrets(prefect_server.settings)
    lines = " ".join(
        " ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])
    )
    assert secrets.auth.get_secret_value().partition(":")[2] not in lines
    assert secrets.encryption_key.get_secret_value() not in lines


def test_writers_at_once_are_never_refused(
    prefect_server: PrefectServer, prefect_api: PrefectApi
) -> None:
    """Stock, two clients at once get 503 for most of their writes."""
    target = make_deployment(prefect_api)
    url = f"{prefect_server.url}/deployments/{target.id}/create_flow_run"
    user, _, password = prefect_server.auth.partition(":")
    with httpx.Client(auth=(user, password), timeout=60) as client:

        def create(number: int) -> int:
            return client.post(url, json=NewRun(parameters={"n": number}).to_json()).status_code

        with ThreadPoolExecutor(6) as pool:
            assert list(pool.map(create, range(36))) == [201] * 36


def test_a_change_that_reads_inside_its_transaction_does_not_wait_for_itself(
    prefect_api: PrefectApi,
) -> None:
    """PATCH of a work queue opens a second session inside; it once waited out the lock, 60 s."""
    target = make_deployment(prefect_api)
    started = time.monotonic()
    prefect_api.pause_queue(target.pool, "default")
    assert [queue.paused for queue in prefect_api.queues(target.pool)] == [True]
    prefect_api.resume_queue(target.pool, "default")
    assert time.monotonic() - started < 30


def test_the_login_page_of_the_running_server_takes_our_ticket(
    prefect_server: PrefectServer,
) -> None:
    ticket = issue_ticket(prefect_server.settings)
    url = login_url(prefect_server.url, ticket)
    assert "prefect-password" in httpx.get(url).text
    assert httpx.get(url).status_code == 403


def test_the_ui_asks_the_origin_it_came_from(prefect_server: PrefectServer) -> None:
    found = httpx.get(f"{prefect_server.origin}/ui-settings").json()
    assert found["api_url"] == "/api"
    assert found["auth"] == "BASIC"


def test_a_second_server_of_the_same_home_is_refused(prefect_server: PrefectServer) -> None:
    again = _run_server(prefect_server.settings)
    assert again.returncode == 1
    assert again.stderr.strip() == (
        f"stablequeue: a Prefect server already runs for {prefect_server.url}; stop it first"
    )


def test_a_taken_port_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port: int = holder.getsockname()[1]
        ended = _run_server(Settings(home=tmp_path / "home", prefect_port=port))
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"stablequeue: port {port} is taken")
    assert "STABLEQUEUE_PREFECT_PORT" in ended.stderr
    assert len(ended.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_it_stops_on_sigterm_and_keeps_what_it_had(
    prefect_server: PrefectServer, tmp_path: Path
) -> None:
    settings = copied_home(prefect_server, tmp_path / "home")
    process = start_server(settings, tmp_path / "log", measured=True)
    try:
        with PrefectServer(settings).api() as api:
            run = api.create_run(make_deployment(api), NewRun(parameters={}, name="kept"))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert not (settings.run_folder / "prefect.json").exists()
        process = start_server(settings, tmp_path / "log")
        with PrefectServer(settings).api() as api:
            assert api.read_run(run.id).name == "kept"
    finally:
        stop_process(process)
    assert not (tmp_path / "log").read_text().count("Traceback")


def test_an_untried_prefect_runs_as_it_is_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="stablequeue"):
        assert server.make_transactions_immediate("3.10.0") is False
    assert "3.10.0 was not tried" in caplog.text


def test_a_renamed_inside_runs_as_it_is_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from prefect.server.database import configurations  # noqa: PLC0415  slow to import

    monkeypatch.delattr(configurations, "SQLITE_BEGIN_MODE")
    with caplog.at_level(logging.WARNING, logger="stablequeue"):
        assert server.make_transactions_immediate("3.8.8") is False
    assert "was not tried" in caplog.text


async def test_the_same_job_variables_are_checked_once_a_minute_and_wrong_ones_every_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.server.api import deployments  # noqa: PLC0415  slow to import

    checked: list[Any] = []

    async def check(_session: Any, deployment: Any, flow_run: Any) -> None:
        checked.append(deployment.id)
        if deployment.id == "wrong" or flow_run.job_variables == {"wrong": 1}:
            message = "these do not fit"
            raise ValueError(message)

    name = "validate_job_variables_for_deployment_flow_run"
    monkeypatch.setattr(deployments, name, check)
    assert server.check_job_variables_once("3.8.8")
    validate = getattr(deployments, name)

    def deployment(which: str, *, pool_changed: int = 0) -> Any:
        pool = SimpleNamespace(id="pool", updated=pool_changed)
        return SimpleNamespace(id=which, updated=0, work_queue=SimpleNamespace(work_pool=pool))

    plain, own = SimpleNamespace(job_variables={}), SimpleNamespace(job_variables={"env": {}})
    for _ in range(3):
        await validate(None, deployment("a"), plain)
    assert checked == ["a"]
    await validate(None, deployment("b"), plain)
    await validate(None, deployment("a"), own)
    await validate(None, deployment("a", pool_changed=1), plain)
    await validate(None, SimpleNamespace(id="no queue", updated=0, work_queue=None), plain)
    assert checked == ["a", "b", "a", "a", "no queue"]
    for _ in range(2):
        with pytest.raises(ValueError, match="do not fit"):
            await validate(None, deployment("wrong"), plain)
    with pytest.raises(ValueError, match="do not fit"):
        await validate(None, deployment("a"), SimpleNamespace(job_variables={"wrong": 1}))
    assert checked[-3:] == ["wrong", "wrong", "a"]


def test_job_variables_are_checked_as_prefect_does_where_it_was_not_tried(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from prefect.server.api import deployments  # noqa: PLC0415  slow to import

    name = "validate_job_variables_for_deployment_flow_run"
    before = getattr(deployments, name)
    assert not server.check_job_variables_once("3.10.0")
    assert getattr(deployments, name) is before
    monkeypatch.delattr(deployments, name)
    assert not server.check_job_variables_once("3.8.8")


def _run_server(settings: Settings) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stablequeue.server"],
        env={
            **clean_environment(),
            "STABLEQUEUE_HOME": str(settings.home),
            "STABLEQUEUE_PREFECT_PORT": str(settings.prefect_port),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
