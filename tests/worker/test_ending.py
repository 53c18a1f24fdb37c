"""A worker started by Prefect's own command ends soon after it is told to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from stablequeue.worker.gpu_server import GpuServerWorker
from tests.support.prefect import PrefectServer
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.timeout(240),
    pytest.mark.skipif(os.name != "posix", reason="signals"),
]

START_S = 120.0
END_S = 30.0

NOBODY_TAKES_EVENTS = """
import asyncio, runpy, sys
from prefect.events.worker import EventsWorker

async def stuck(self, item):
    print("an event waits", flush=True)
    await asyncio.Event().wait()

EventsWorker._handle = stuck
sys.argv[0] = "prefect"
runpy.run_module("prefect", run_name="__main__")
"""
"""Prefect's command, while its server is too busy to take the worker's events."""


@pytest.fixture
def worker(prefect_server: PrefectServer, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    pool = f"gpu-{uuid4().hex[:12]}"
    body = {
        "name": pool,
        "type": "gpu-server",
        "base_job_template": GpuServerWorker.get_default_base_job_template(),
    }
    with prefect_server.api() as api:
        api.call("POST", "work_pools/", body)
    log = tmp_path / "worker.log"
    command = [sys.executable, "-c", NOBODY_TAKES_EVENTS, "worker", "start", "--pool", pool]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env={**prefect_server.environment(), "STABLEQUEUE_HOME": str(tmp_path / "home")},
            cwd=tmp_path,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )
    try:
        wait_until(
            lambda: b"an event waits" in log.read_bytes() and b" started!" in log.read_bytes(),
            timeout_s=START_S,
            why=f"it starts; {log.read_text()}",
        )
        yield process
    finally:
        process.kill()
        process.wait()


def test_it_ends_though_prefect_does_not_take_its_last_events(
    worker: subprocess.Popen[bytes],
) -> None:
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(END_S) == 0
