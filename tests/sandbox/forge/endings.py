"""Replays the recordings of servers that are stopped, killed or starved of workers."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx

from tests.sandbox.forge.conftest import StartPeer
from tests.sandbox.forge.gate import Gate
from tests.sandbox.forge.recorded import Differences
from tests.support.waiting import wait_until

_JOB = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64, "seed": 5}


def server_stop_midrun(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """What runs and waits is still answered; then nothing is."""
    peer = start_peer(api_server_stop=True)
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    with ThreadPoolExecutor(2) as pool:
        answers: list[Future[httpx.Response]] = []
        for number in (1, 2):
            answers.append(pool.submit(peer.post, "/sdapi/v1/txt2img", _JOB))
            wait_until(lambda n=number: len(peer.journal("forge.post")) == n, every_s=0.005)
        stop = recording["server_stop"]
        answer = peer.post("/sdapi/v1/server-stop")
        differences.same(
            [stop["status"], stop["response"]], [answer.status_code, answer.json()], "stop"
        )
        gate.open()
        for recorded, future in zip(recording["results"].values(), answers, strict=True):
            told = future.result(10)
            images = len(told.json()["images"])
            differences.same([recorded["status"], recorded["n"]], [told.status_code, images])
    wait_until(lambda: not peer.sandbox.running, every_s=0.02)
    return differences


def _error_of(call: Callable[[], Any]) -> str:
    try:
        call()
    except httpx.HTTPError as error:
        return repr(error)
    return "none"


def server_kill_midrun(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """Gone at once: neither the killer nor the running job is answered."""
    peer = start_peer(api_server_stop=True)
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(_error_of, lambda: peer.post("/sdapi/v1/txt2img", _JOB))
        wait_until(lambda: gate.holds, every_s=0.002)
        error = _error_of(lambda: peer.post("/sdapi/v1/server-kill"))
        differences.same(recording["client_error"], error, "killer")
        told = recording["running_txt2img"]["client_error"]
        differences.same(told, running.result(10), "running")
    wait_until(lambda: not peer.sandbox.running, every_s=0.02)
    assert "refused" in _error_of(lambda: peer.get("/internal/ping")).lower()
    return differences


def thread_starvation(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """More waiting jobs than workers: not even a ping is answered until a job ends."""
    peer = start_peer()
    differences = Differences(peer.folder)
    gate = Gate(peer.sandbox)
    count = recording.get("n_requests", 44)
    probes = {
        "ping": ("GET", "/internal/ping"),
        "interrupt": ("POST", "/sdapi/v1/interrupt"),
        "pending": ("GET", "/internal/pending-tasks"),
        "queue": ("GET", "/queue/status"),
        "models": ("GET", "/sdapi/v1/sd-models"),
    }
    limits = httpx.Limits(max_connections=None)
    url = peer.sandbox.url
    with (
        httpx.Client(base_url=url, limits=limits, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(count + len(probes)) as pool,
    ):
        body = {**_JOB, "steps": 1}
        jobs = [pool.submit(client.post, "/sdapi/v1/txt2img", json=body) for _ in range(count)]
        wait_until(lambda: len(peer.journal("forge.post")) == 40, every_s=0.01)
        asked = {name: pool.submit(client.request, *probe) for name, probe in probes.items()}
        time.sleep(0.3)
        answered = [name for name, future in asked.items() if future.done()]
        differences.same([], answered, "answered although no worker is free")
        gate.open()
        statuses = {future.result(30).status_code for future in [*asked.values(), *jobs]}
        differences.same([200], sorted(statuses), "in the end")
    return differences


def server_killed_while_starved(recording: dict[str, Any], start_peer: StartPeer) -> Differences:
    """After SIGKILL the running and the waiting get the same error."""
    peer = start_peer()
    differences = Differences(peer.folder)
    Gate(peer.sandbox)
    count = 5
    url = peer.sandbox.url
    with (
        httpx.Client(base_url=url, timeout=30, trust_env=False) as client,
        ThreadPoolExecutor(count) as pool,
    ):
        jobs = [
            pool.submit(_error_of, lambda: client.post("/sdapi/v1/txt2img", json=_JOB))
            for _ in range(count)
        ]
        wait_until(lambda: len(peer.journal("forge.post")) == count, every_s=0.01)
        peer.sandbox.stop()
        errors = {future.result(10) for future in jobs}
    recorded = {
        told["client_error"] for told in recording["results"].values() if "client_error" in told
    }
    differences.same(sorted(recorded), sorted(errors), "errors")
    return differences


ENDINGS: dict[str, Callable[[Any, StartPeer], Differences]] = {
    "server_kill_midrun": server_kill_midrun,
    "server_stop_midrun": server_stop_midrun,
    "thread_starvation_44_slow_then_sigkill": server_killed_while_starved,
    "thread_starvation_45_waiting": thread_starvation,
}
