"""Children of `up`, with small programs standing in for them."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stablequeue.up.processes import Child, run_once
from tests.support.waiting import wait_until

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals")

SLEEP = "import time; print('here', flush=True); time.sleep(60)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
    " print('here', flush=True); time.sleep(60)"
)
TOLD = "import sys; print('stablequeue: port 1 is taken', flush=True); sys.exit(3)"


def child(folder: Path, program: str, **more: float) -> Child:
    return Child(
        name="stand-in",
        arguments=["-c", program],
        environment=dict(os.environ),
        log=folder / "logs" / "stand-in.log",
        **more,  # pyright: ignore[reportArgumentType]
    )


async def until(condition: Callable[[], object], why: str) -> None:
    await asyncio.to_thread(wait_until, condition, why=why)


def said(one: Child, times: int = 1) -> Callable[[], bool]:
    return lambda: one.log.exists() and one.log.read_text().count("here") >= times


def test_a_child_that_is_killed_is_started_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        one = child(tmp_path, SLEEP)
        await one.start()
        try:
            await until(said(one), "it starts")
            assert one.process
            os.kill(one.process.pid, signal.SIGKILL)
            await until(said(one, 2), "it starts again")
            assert one.running
            assert one.deaths == 1
        finally:
            await one.stop()
        assert not one.running

    with caplog.at_level(logging.WARNING, "stablequeue"):
        asyncio.run(check())
    assert "stand-in ended by itself (signal 9)" in caplog.text


def test_one_that_ends_with_a_reason_has_it_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def check() -> None:
        one = child(tmp_path, TOLD)
        await one.start()
        await until(lambda: one.deaths, "it ends")
        assert one.last_words() == "port 1 is taken"
        await one.stop()  # while it waits to start it again
        deaths = one.deaths
        await asyncio.sleep(0)
        assert one.deaths == deaths
        assert not one.running

    with caplog.at_level(logging.WARNING, "stablequeue"):
        asyncio.run(check())
    assert "exit code 3: port 1 is taken" in caplog.text


def test_one_that_does_not_listen_is_killed_in_time(tmp_path: Path) -> None:
    async def check() -> None:
        one = child(tmp_path, STUBBORN, stop_within_s=0.3)
        await one.start()
        await until(said(one), "it starts")
        begun = time.monotonic()
        await one.stop()
        assert time.monotonic() - begun < 5
        assert one.process
        assert one.process.returncode == -signal.SIGKILL

    asyncio.run(check())


def test_a_child_that_cannot_be_started_again_is_tried_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check() -> None:
        one = child(tmp_path, SLEEP)
        await one.start()
        await until(said(one), "it starts")
        spawn, failures = one.spawn, [OSError(11, "no process left")]

        async def sometimes() -> None:
            if failures:
                raise failures.pop()
            await spawn()

        monkeypatch.setattr(one, "spawn", sometimes)
        assert one.process
        one.process.kill()
        await until(said(one, 2), "it starts at the second try")
        await one.stop()

    with caplog.at_level(logging.WARNING, "stablequeue"):
        asyncio.run(check())
    assert "stand-in cannot be started: [Errno 11] no process left" in caplog.text


def test_running_once_gives_the_exit_code_and_kills_what_takes_too_long(tmp_path: Path) -> None:
    async def check() -> None:
        assert await run_once(child(tmp_path, TOLD), within_s=20) == 3
        slow = child(tmp_path, SLEEP)
        with pytest.raises(TimeoutError):
            await run_once(slow, within_s=0.2)
        assert slow.process
        assert slow.process.returncode == -signal.SIGKILL

    asyncio.run(check())


def test_a_large_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stablequeue.up.processes._LARGEST_LOG", 10)
    one = child(tmp_path, "print('new')")
    one.log.parent.mkdir()
    one.log.write_text("a long story\n")
    assert asyncio.run(run_once(one, within_s=20)) == 0
    assert one.log.read_text() == "new\n"
    assert (one.log.parent / "stand-in.old.log").read_text() == "a long story\n"


MODULE = """
import pathlib, signal, sys, time
def stop(number, frame):
    pathlib.Path(sys.argv[1]).write_text("ended")
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("here", flush=True)
while True:
    time.sleep(60)
"""


def test_a_tethered_process_ends_in_its_own_way_when_its_parent_is_killed(tmp_path: Path) -> None:
    (tmp_path / "standin.py").write_text(MODULE)
    note = tmp_path / "note"
    parent = (
        "import subprocess, sys, time\n"
        "child = subprocess.Popen([sys.executable, '-m', 'stablequeue.tethered', 'standin',"
        f" {str(note)!r}], stdin=subprocess.PIPE)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    with subprocess.Popen(
        [sys.executable, "-c", parent], env=environment, stdout=subprocess.PIPE
    ) as started:
        assert started.stdout
        assert started.stdout.readline() == b"here\n"
        started.kill()
        wait_until(note.exists, why="the child ends")
    assert note.read_text() == "ended"
