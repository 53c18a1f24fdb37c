"""`doctor`: what keeps jobs from being done, and what to do about it."""

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stablequeue.client import Client
from stablequeue.prefect_api import StateType
from stablequeue.settings import load
from tests.cli.conftest import Ran, Run


def verdicts(ran: Ran, about: str) -> list[tuple[str, str]]:
    """Return verdict and message of what was found about something."""
    return [(one["verdict"], one["message"]) for one in ran.json if one["about"] == about]


def test_without_prefect_it_says_how_to_start_it(run: Run, home: Path) -> None:
    ran = run("doctor", "--json")
    assert ran.code == 1
    [(verdict, message)] = verdicts(ran, "prefect")
    assert verdict == "bad"
    assert "stablequeue up" in message
    assert verdicts(ran, "home") == [("ok", str(home))]
    assert verdicts(ran, "store")[0][0] == "ok"
    assert "stablequeue up" in run("doctor").out


def test_a_store_that_cannot_be_written_is_bad(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ran = run("doctor", "--json", "--setting", f"pictures={tmp_path / 'file'}")
    assert verdicts(ran, "store")[0][0] == "bad"


@pytest.mark.prefect
def test_jobs_whose_process_died_are_named(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait(30)
    with Client(load()) as queue:
        api = queue.session.api
        flow_run = queue.job(job).flow_run_id
        api.set_state(flow_run, StateType.RUNNING, force=True)
        api.patch_run(flow_run, infrastructure_pid=f"{socket.gethostname()}:{child.pid}")
    ran = run("doctor", "--json")
    assert any(
        verdict == "warning" and f"stablequeue retry {job}" in message
        for verdict, message in verdicts(ran, "jobs")
    )
    assert verdicts(ran, "prefect")[0][0] == "ok"


@pytest.mark.prefect
def test_a_card_driven_from_two_hosts_is_warned_about(run: Run, online: str) -> None:
    add = ("servers", "add", online, "--type", "forge", "--url", "http://127.0.0.1:9", "--no-test")
    assert run(*add, "--card", "den/7").code == 0
    try:
        with Client(load()) as queue:
            for host in ("host-a", "host-b"):
                path = f"work_pools/{online}/workers/heartbeat"
                queue.session.api.call("POST", path, {"name": f"{online} on {host}"})
        [(verdict, message)] = verdicts(run("doctor", "--json"), "card den/7")
        assert verdict == "warning"
        assert "workers on host-a and host-b" in message
    finally:
        run("servers", "rm", online)


def test_passwords_in_addresses_are_not_shown(run: Run) -> None:
    url = "postgresql+psycopg://me:hunter2@127.0.0.1:9/x?password=hunter2"
    ran = run("doctor", "-v", "--setting", f"catalogue_url={url}")
    assert "127.0.0.1" in ran.out
    assert "hunter2" not in ran.out + ran.err


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_the_pages_of_somebody_elses_prefect_open_without_a_ticket(run: Run) -> None:
    address = run("ui", "--print").out.strip()
    assert address.startswith("http://127.0.0.1:")
    assert "ticket" not in address


def test_the_pages_need_a_running_prefect(run: Run) -> None:
    ran = run("ui")
    assert ran.code == 1
    assert "stablequeue up" in ran.err
