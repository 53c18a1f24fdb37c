"""Starting, stopping, steering and breaking a sandbox, over real sockets."""

import json
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.routing import Route

from stablequeue.errors import SettingsError
from stablequeue.sandbox import (
    FaultKind,
    Sandbox,
    SandboxConfig,
    SandboxState,
    serve_sandbox,
)
from stablequeue.sandbox.comfyui import app as comfyui
from stablequeue.sandbox.forge import app as forge
from tests.sandbox import graphs
from tests.sandbox.comfyui import Client
from tests.support.waiting import wait_until


@pytest.fixture
def sandbox(tmp_path: Path) -> Generator[Sandbox]:
    with serve_sandbox("comfyui", home=tmp_path, control=True) as served:
        yield served


@pytest.fixture
def client(sandbox: Sandbox) -> Generator[Client]:
    with Client(sandbox) as opened:
        yield opened


def test_a_restart_keeps_port_and_files_and_forgets_the_rest(
    sandbox: Sandbox, client: Client
) -> None:
    prompt_id = client.queue(graphs.txt2img())
    entry = client.ended(prompt_id)
    url, boot = sandbox.url, sandbox.state.boot_id
    assert sandbox.card.loaded("sandbox/comfyui")
    sandbox.restart()
    assert sandbox.url == url
    assert sandbox.state.boot_id != boot
    assert sandbox.card.loaded("sandbox/comfyui") == []
    assert client.entry(prompt_id) == {}
    assert client.file(entry).status_code == 200
    assert client.post("/prompt", json={"prompt": graphs.plain()}).json()["number"] == 0


def test_a_stopped_server_refuses_connections(sandbox: Sandbox, client: Client) -> None:
    assert sandbox.running
    sandbox.stop()
    assert not sandbox.running
    with pytest.raises(httpx.ConnectError):
        client.get("/prompt")
    sandbox.stop()
    sandbox.start()
    sandbox.start()
    assert client.get("/prompt").status_code == 200


def test_a_taken_port_is_told(sandbox: Sandbox, tmp_path: Path) -> None:
    other = Sandbox(SandboxConfig(home=tmp_path / "other"), port=sandbox.port)
    with pytest.raises(SettingsError, match="choose another port"):
        other.start()


def test_an_unknown_protocol_is_told(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="comfyui, forge, both"), serve_sandbox("a1111"):
        pass
    with pytest.raises(RuntimeError, match="never started"):
        _ = Sandbox(SandboxConfig(home=tmp_path)).state


def test_without_control_nobody_can_steer_it() -> None:
    with serve_sandbox("comfyui") as served:
        assert httpx.get(f"{served.url}/stablequeue/state").status_code == 404
        assert httpx.post(f"{served.url}/stablequeue/faults", json={}).status_code == 405


def test_faults_can_be_steered_over_http(sandbox: Sandbox, client: Client) -> None:
    fault = {"kind": "status", "where": "GET /queue", "status": 503, "body": "starting"}
    armed = client.post("/stablequeue/faults", json=[fault, {"kind": "stall"}])
    assert armed.status_code == 200
    assert [told["kind"] for told in client.get("/stablequeue/faults").json()] == [
        "status", "stall",
    ]  # fmt: skip
    refused = client.get("/queue")
    assert (refused.status_code, refused.text) == (503, "starting")
    assert client.get("/queue").status_code == 200
    client.delete("/stablequeue/faults", params={"kind": "stall"})
    assert sandbox.faults.listed() == []
    assert client.delete("/stablequeue/faults", params={"kind": "x"}).status_code == 422
    assert "no color" in client.post("/stablequeue/faults", json={"color": 1}).json()["error"]
    assert client.get("/stablequeue/state").json()["struck"] == [["status", "GET /queue"]]


def test_its_state_can_be_read_over_http(sandbox: Sandbox, client: Client) -> None:
    prompt_id = client.queue(graphs.txt2img())
    client.ended(prompt_id)
    told = client.get("/stablequeue/state").json()
    assert told["boot_id"] == sandbox.state.boot_id
    assert told["comfyui"] == {"running": [], "waiting": [], "history": [prompt_id]}
    assert told["card"]["most_at_once"] == 1
    assert [entry["what"] for entry in told["journal"]] == [
        "queued", "generated", "saved", "finished",
    ]  # fmt: skip


def test_a_connection_closed_before_the_request_is_worked_on(
    sandbox: Sandbox, client: Client
) -> None:
    sandbox.faults.add("close", "POST /prompt")
    # An end, or a reset where the body was not read yet: which of them is a matter of moments.
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        client.queue(graphs.plain())
    assert sandbox.state.journal == []


@pytest.mark.parametrize("kind", ["close", "cut"])
def test_an_answer_lost_after_the_request_was_worked_on(
    sandbox: Sandbox, client: Client, kind: str
) -> None:
    sandbox.faults.add(kind, "after POST /prompt")
    with pytest.raises(httpx.RemoteProtocolError):
        client.queue(graphs.plain(), prompt_id="lost")
    assert client.ended("lost")


def test_a_500_that_queued_the_prompt_all_the_same(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("status", "after POST /prompt", status=502)
    assert client.post("/prompt", json={"prompt": graphs.plain(), "prompt_id": "x"}).is_error
    assert client.ended("x")


def test_the_api_twin_suffers_the_same_faults(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("status", "GET /queue", status=500)
    assert client.get("/api/queue").status_code == 500


def test_an_answer_can_be_late(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("delay", "GET /prompt", seconds=0.2)
    start = time.monotonic()
    assert client.get("/prompt").status_code == 200
    assert time.monotonic() - start >= 0.2


def test_a_request_can_hang_until_the_fault_is_cleared(sandbox: Sandbox, client: Client) -> None:
    sandbox.faults.add("hang", "GET /prompt")
    with pytest.raises(httpx.ReadTimeout):
        client.get("/prompt", timeout=0.2)
    sandbox.faults.clear()
    assert client.get("/prompt").status_code == 200


@pytest.mark.parametrize("where", ["POST /prompt", "after POST /prompt", "start", "step 2", "save",
                                   "history"])  # fmt: skip
def test_it_can_die_anywhere_and_be_started_again(
    sandbox: Sandbox, client: Client, where: str
) -> None:
    sandbox.faults.add("die", where)
    with pytest.raises(httpx.TransportError):
        client.ended(client.queue(graphs.txt2img()))
    wait_until(lambda: not sandbox.running, every_s=0.01)
    sandbox.start()
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}
    assert client.run(graphs.txt2img())
    assert (FaultKind.DIE, where) in sandbox.faults.struck


def test_both_protocols_share_port_and_card(tmp_path: Path) -> None:
    with serve_sandbox("both", home=tmp_path) as served, Client(served) as client:
        assert client.get("/system_stats").json()["system"]["stablequeue_sandbox"] is True
        assert client.get("/sdapi/v1/samplers").status_code == 200
        assert client.get("/sdapi/v1/nope").json() == {"detail": "Not Found"}
        unknown = client.get("/nope")
        assert (unknown.status_code, unknown.text) == (404, "")
        with served.card.generating("other"):
            client.run(graphs.txt2img())
        assert served.card.most_at_once == 2


def test_only_the_start_page_means_something_in_both(tmp_path: Path) -> None:
    paths: list[set[str]] = []
    for protocol in (comfyui, forge):
        state = SandboxState(config=SandboxConfig(home=tmp_path))
        paths.append({r.path for r in protocol.build(state) if isinstance(r, Route)})
    assert paths[0] & paths[1] == {"/"}


def _start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "stablequeue.sandbox", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_it_runs_as_a_program_that_can_die(tmp_path: Path) -> None:
    fault = json.dumps({"kind": "die", "where": "GET /nope"})
    process = _start("--home", str(tmp_path), "--protocol", "comfyui", "--control",
                     "--fault", fault)  # fmt: skip
    assert process.stdout is not None
    try:
        url = process.stdout.readline().split()[-1]
        told: Any = httpx.get(f"{url}/system_stats").json()
        assert told["system"]["stablequeue_sandbox"] is True
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/nope")
        assert process.wait(10) == 137
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("fault", ["{", '{"kind": "flood"}', "[]"])
def test_a_wrong_fault_on_the_command_line_is_told(tmp_path: Path, fault: str) -> None:
    process = _start("--home", str(tmp_path), "--fault", fault)
    _, told = process.communicate(timeout=20)
    assert process.returncode == 1
    assert told.startswith("stablequeue sandbox: --fault")
    assert len(told.splitlines()) == 1
