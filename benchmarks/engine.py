"""The server that is measured with: a sandbox with fixed step times that tells when it worked."""

import itertools
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.house import free_port, until

STEP_S = 0.05
"""What a step takes: 20 are a job of 1 s, 6 one of 0.3 s."""


@dataclass(frozen=True)
class Worked:
    """One generation, on the clock `time.monotonic` of this machine."""

    label: str
    started: float
    ended: float


class Engine:
    """One sandbox, speaking both protocols, in a process of its own.

    Args:
        folder: For its files and its log.
        step_s: What one sampling step takes.
    """

    def __init__(self, folder: Path, step_s: float = STEP_S) -> None:
        self._folder = folder
        self._step_s = step_s
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._http = httpx.Client(base_url=self.url, timeout=30)

    @contextmanager
    def running(self) -> Generator[None]:
        """Run it for the length of the block."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "sandbox.txt").open("ab") as output:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "stablequeue.sandbox", "--control"),
                    *("--port", str(self.port), "--home", str(self._folder / "files")),
                    *("--step-seconds", str(self._step_s)),
                ],
                stdout=output,
                stderr=output,
            )
        try:
            until(self._answers, within_s=60)
            yield
        finally:
            process.terminate()
            process.wait(30)

    def _answers(self) -> bool:
        try:
            return self._http.get("/stablequeue/card").is_success
        except httpx.HTTPError:
            return False

    def count(self) -> int:
        """Return how many generations there have been."""
        return len(self._ask(0))

    def worked(self, start: int = 0) -> list[Worked]:
        """Return the generations that have ended, from number `start` on, in order of start."""
        return [
            Worked(str(one["label"]), one["started"], one["ended"])
            for one in self._ask(start)
            if one["ended"] is not None
        ]

    def first(self, start: int, *, within_s: float) -> float:
        """Wait for generation number `start`; return when it began, on this machine's clock."""
        until(lambda: len(self._ask(start)), within_s=within_s, every_s=0.1)
        begun: float = self._ask(start)[0]["started"]
        return begun

    def wait_for(self, count: int, *, start: int, within_s: float) -> list[Worked]:
        """Wait until `count` generations from number `start` on have ended, and return them."""
        until(lambda: len(self.worked(start)) >= count, within_s=within_s, every_s=0.5)
        return self.worked(start)

    def _ask(self, start: int) -> list[dict[str, Any]]:
        answer = self._http.get("/stablequeue/card", params={"from": start})
        found: list[dict[str, Any]] = answer.json()["generations"]
        return found


def busy_share(worked: Sequence[Worked]) -> float:
    """Return which part of the time from the first start to the last end was worked."""
    if not worked:
        return 0.0
    spans = sorted((one.started, one.ended) for one in worked)
    busy, end = 0.0, spans[0][0]
    for started, ended in spans:
        busy += max(0.0, ended - max(started, end))
        end = max(end, ended)
    return busy / (end - spans[0][0])


def gaps(worked: Sequence[Worked]) -> list[float]:
    """Return the seconds between the end of each generation and the start of the next."""
    spans = sorted((one.started, one.ended) for one in worked)
    return [max(0.0, after[0] - before[1]) for before, after in itertools.pairwise(spans)]


def now() -> float:
    """Return the time on the clock the sandbox reports on."""
    return time.monotonic()
