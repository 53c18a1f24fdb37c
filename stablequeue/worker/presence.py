"""Whether the process of a flow run lives: it holds a lock, and the system frees that when it dies.

A process id alone does not tell: after a reboot another program has it.
"""

import contextlib
import os
import signal
import socket
import time
from collections.abc import Generator
from pathlib import Path
from uuid import UUID

from filelock import FileLock, Timeout

from stablequeue.errors import Refused
from stablequeue.secrets import private_folder
from stablequeue.settings import Settings

_LOOKING_TAKES_S = 5.0
"""`is_present` holds the lock for a moment; a process that begins just then waits for it."""

_CLAIMED_BY = "Taken by the worker "

_OLD_S = 7 * 86_400.0


def process_name(pid: int) -> str:
    """Return what a run's `infrastructure_pid` says: HOST:PID of this host."""
    return f"{socket.gethostname()}:{pid}"


def is_here(process: str) -> bool:
    """Whether `process` (an `infrastructure_pid`) names a process of this host."""
    host, colon, pid = process.rpartition(":")
    return bool(colon) and host == socket.gethostname() and pid.isdecimal()


@contextlib.contextmanager
def present(settings: Settings, run_id: str) -> Generator[None]:
    """Hold the lock of a flow run while it works.

    Raises:
        Refused: Another process works on the same run.
    """
    lock = FileLock(_path(settings, run_id), timeout=_LOOKING_TAKES_S)
    try:
        lock.acquire()
    except Timeout:
        message = f"another process works on run {run_id} already"
        raise Refused(message) from None
    try:
        yield
    finally:
        lock.release()


def is_present(settings: Settings, run_id: str) -> bool:
    """Whether a process of this host works on the run now."""
    path = _path(settings, run_id)
    if not path.exists():
        return False
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def was_present(settings: Settings, run_id: str) -> bool:
    """Whether a process of this host worked on the run, and none does now."""
    return _path(settings, run_id).exists() and not is_present(settings, run_id)


def claim(pid: int) -> str:
    """Return what a run's state says from when a worker takes it until its process begins."""
    return f"{_CLAIMED_BY}{process_name(pid)}"


def claimer(message: str) -> str:
    """Return which process said `claim`, as HOST:PID; empty: none."""
    return message.removeprefix(_CLAIMED_BY) if message.startswith(_CLAIMED_BY) else ""


def kill(pid: int) -> None:
    """End a process at once; it may be gone already."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))


def sweep(settings: Settings) -> None:
    """Remove lock files of runs that ended long ago."""
    for path in _folder(settings).glob("*.lock"):
        with contextlib.suppress(FileNotFoundError):
            old = time.time() - path.stat().st_mtime > _OLD_S
            if old and not is_present(settings, path.stem):
                path.unlink()


def _path(settings: Settings, run_id: str) -> Path:
    return _folder(settings) / f"{UUID(run_id)}.lock"


def _folder(settings: Settings) -> Path:
    return private_folder(private_folder(settings.run_folder) / "runs")
