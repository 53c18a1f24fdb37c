"""What our processes know of themselves and of each other."""

import gc
import os
import socket
import threading
import time

LAST_WORDS_S = 3.0
"""How long a worker's process may take to end once nothing of it is left to do.

As it ends, Prefect hands over its last events and log lines, and waits more than a minute for a
server that is gone, or as long as a busy one takes.
"""


def provably_dead(infrastructure_pid: str) -> bool:
    """Say whether the process behind a run's `infrastructure_pid` no longer exists.

    Args:
        infrastructure_pid: As Prefect's process workers write it, HOST:PID; empty for none.

    Returns:
        True only for a process of this host that is gone. False says nothing: it lives, was on
        another host, or there is no harmless way to ask.
    """
    host, _, pid = infrastructure_pid.rpartition(":")
    return host == socket.gethostname() and pid.isdecimal() and gone(int(pid))


def gone(pid: int) -> bool:
    """Say whether no process of this machine has this number; False where one cannot ask."""
    if os.name != "posix":
        return False  # asking on Windows, signal 0, would end the process
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def end_within(seconds: float, code: int) -> None:
    """End this process so many seconds from now at the latest, whatever it still waits for."""

    def end() -> None:
        time.sleep(seconds)
        os._exit(code)

    threading.Thread(target=end, daemon=True, name="end").start()


def collect_seldom() -> None:
    """Look for garbage seldom in this process; call it before importing Prefect.

    Importing Prefect makes a million objects that stay. At its usual pace Python's collector walks
    over them again and again, a seventh of the time an import takes.
    """
    gc.set_threshold(50_000, 20, 20)


def keep_what_is_there() -> None:
    """Never look at what this process has now for garbage; call it once everything is imported.

    A full collection walks over the million objects of Prefect's modules, half a second in which a
    server answers nobody.
    """
    gc.freeze()
