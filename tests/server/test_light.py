"""What Prefect's server is spared when it starts."""

import gc
import sys

import pytest

from stablequeue import server
from stablequeue.processes import collect_seldom

WORKER = "stablequeue.worker.gpu_server"


def test_the_servers_process_does_not_load_our_worker_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, WORKER, server)  # remembered, and put back afterwards
    server._leave_workers_out()  # pyright: ignore[reportPrivateUsage]
    assert sys.modules[WORKER] is server  # what is loaded stays
    del sys.modules[WORKER]
    server._leave_workers_out()  # pyright: ignore[reportPrivateUsage]
    assert not hasattr(sys.modules[WORKER], "GpuServerWorker")


def test_garbage_is_looked_for_seldom_but_looked_for() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)  # Python's own; the tests look seldom themselves
        collect_seldom()
        assert gc.isenabled()
        assert gc.get_threshold()[0] > 700
    finally:
        gc.set_threshold(*before)
