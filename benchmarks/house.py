"""A whole installation for measurements: `stablequeue up` in a folder and on ports of its own."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from socket import socket
from typing import Any

from stablequeue.client import Client
from stablequeue.settings import Settings, load

READY_WITHIN_S = 180.0
CHECKPOINT = "sandbox-sd15.safetensors"
_TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100


def free_port() -> int:
    """Return a port of loopback nobody uses now."""
    with socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def until(condition: Callable[[], Any], *, within_s: float, every_s: float = 0.02) -> float:
    """Return after how many seconds `condition` was true."""
    begun = time.perf_counter()
    while not condition():
        if time.perf_counter() - begun > within_s:
            message = f"not within {within_s:g} s: {condition}"
            raise TimeoutError(message)
        time.sleep(every_s)
    return time.perf_counter() - begun


class House:
    """One installation, started and stopped as often as wanted.

    Args:
        home: Its folder, empty at first.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        ports = {name: str(free_port()) for name in ("PREFECT_PORT", "FILES_PORT", "SANDBOX_PORT")}
        self.variables = {"STABLEQUEUE_HOME": str(home)} | {
            f"STABLEQUEUE_{name}": port for name, port in ports.items()
        }
        # Prefect reads no settings of the person who measures.
        self.environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "STABLEQUEUE_"))
        } | self.variables
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        """Its settings."""
        own = {
            name.removeprefix("STABLEQUEUE_").lower(): value
            for name, value in self.variables.items()
        }
        return load(own)

    def client(self) -> Client:
        """Return a client of it."""
        return Client(self.settings)

    @contextmanager
    def running(self) -> Generator[float]:
        """Run it for the length of the block; the value is after how many seconds it was ready."""
        with (self.home.parent / "up.txt").open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "stablequeue.up"],
                env=self.environment,
                stdout=output,
                stderr=output,
            )
        try:
            yield until(self._ready, within_s=READY_WITHIN_S)
        finally:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(60)

    def _ready(self) -> bool:
        process = self.process
        if process is None or process.poll() is not None:
            message = f"stablequeue up ended; see {self.home.parent / 'up.txt'}"
            raise RuntimeError(message)
        try:
            facts = json.loads((self.home / "run" / "up.json").read_text())
        except (OSError, ValueError):
            return False
        return bool(facts["ready"]) and facts["pid"] == process.pid

    def command(self, *arguments: str) -> float:
        """Run `stablequeue ...` and return its seconds."""
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "stablequeue.cli", *arguments],
            env=self.environment,
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return time.perf_counter() - begun

    def memory_mb(self) -> dict[str, float]:
        """Return the proportional set size of its processes, in MiB; empty without /proc."""
        return memory_by_module(self._roots())

    def cpu(self) -> dict[str, float]:
        """Return the CPU seconds of its processes, and of those they have waited for, by module."""
        return cpu_by_module(self._roots())

    def cpu_s(self) -> float:
        """Return the CPU seconds of everything."""
        return sum(self.cpu().values())

    def database_kib(self) -> float:
        """Return how much of Prefect's database is in use, in KiB."""
        return used_kib(self.home / "prefect" / "prefect.db")

    def _roots(self) -> dict[str, int]:
        return {"": self.process.pid} if self.process is not None else {}


def memory_by_module(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the proportional set size of some processes and their children, in MiB.

    Args:
        roots: Process ids by a name, for those whose command says no module of ours.
    """
    found: dict[str, float] = {}
    for pid, name in _processes(roots):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            (pss,) = [int(line.split()[1]) for line in lines if line.startswith("Pss:")]
            found[name] = found.get(name, 0.0) + pss / 1024
    return found


def cpu_by_module(roots: Mapping[str, int]) -> dict[str, float]:
    """Return the CPU seconds of some processes, their children and those that were waited for."""
    found: dict[str, float] = {}
    for pid, name in _processes(roots):
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            found[name] = found.get(name, 0.0) + sum(map(int, fields[11:15])) / _TICKS
    return found


def _processes(roots: Mapping[str, int]) -> list[tuple[int, str]]:
    if not Path("/proc/self/task").exists():
        return []
    found = [(pid, name) for name, pid in roots.items()]
    named: list[tuple[int, str]] = []
    for pid, inherited in found:  # grows while it is walked
        try:
            command = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            children = [task.read_text() for task in Path(f"/proc/{pid}/task").glob("*/children")]
        except OSError:
            continue
        modules = [word for word in command if word.startswith("stablequeue.")]
        name = modules[-1].removeprefix("stablequeue.") if modules else inherited or command[0]
        named.append((pid, name))
        found += [(int(word), inherited) for line in children for word in line.split()]
    return named


def used_kib(file: Path) -> float:
    """Return how much of an SQLite database is in use, in KiB."""
    with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:

        def ask(name: str) -> int:
            value: int = database.execute(f"PRAGMA {name}").fetchone()[0]
            return value

        return (ask("page_count") - ask("freelist_count")) * ask("page_size") / 1024
