"""What goes wrong, decided by a seed: which part dies or stalls, and after how many ended jobs.

Tied to what has ended and not to the clock, so that it meets work under way on any machine.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.chaos.place import Place
from tests.support.waiting import wait_until

_HTTP = ("close", "cut", "delay", "hang")
"""Faults of single requests to an engine."""

KINDS = (
    "runner",
    "engine",
    "worker",
    "template",
    "prefect",
    "sockets",
    "requests",
    "stall",
    "frozen prefect",
)
"""Everything that can go wrong, each at least once when there are enough jobs."""

_BACK_WITHIN_S = 60.0
_FROZEN_S = (0.5, 3.0)


@dataclass(frozen=True, kw_only=True)
class Blow:
    """One thing that goes wrong.

    Attributes:
        after: How many jobs have ended by then.
        kind: One of `KINDS`.
        server: Which engine, where one is meant.
        seconds: How long it lasts.
        choice: Decides among several processes or faults; 0 to 1.
    """

    after: int
    kind: str
    server: str
    seconds: float
    choice: float


@dataclass(frozen=True, kw_only=True)
class Death:
    """An engine died, and with it all it had in memory; `at` is on the monotonic clock."""

    server: str
    at: float


def plan(
    seed: int, servers: Sequence[str], *, jobs: int, kinds: Sequence[str], blows: int
) -> list[Blow]:
    """Return what goes wrong for a seed, in order."""
    dice = random.Random(seed)
    chosen = [*kinds, *(dice.choice(kinds) for _ in range(blows - len(kinds)))]
    dice.shuffle(chosen)
    last = jobs * 9 // 10  # the end of the backlog is left in peace: it must be reached at all
    moments = sorted(dice.sample(range(1, last), len(chosen)))
    return [
        Blow(
            after=after,
            kind=kind,
            server=dice.choice(list(servers)),
            seconds=dice.uniform(0.2, 4.0),
            choice=dice.random(),
        )
        for after, kind in zip(moments, chosen, strict=True)
    ]


@dataclass(kw_only=True)
class Trouble:
    """Lets what was planned happen, and remembers what did."""

    place: Place
    blows: list[Blow]
    deaths: list[Death] = field(default_factory=list[Death])
    happened: list[str] = field(default_factory=list[str])
    _pending: list[threading.Timer] = field(default_factory=list[threading.Timer])

    def until_ended(self, job_ids: Sequence[str], *, timeout_s: float) -> None:
        """Deal the blows in their turn until all these jobs have ended and all is up again."""
        left = list(self.blows)

        def all_ended() -> bool:
            ended = self.place.ended(job_ids)
            if left and ended >= left[0].after:
                self._deal(left.pop(0))
            return ended == len(job_ids) and not left

        try:
            wait_until(all_ended, timeout_s=timeout_s, every_s=0.1, why="every job has ended")
        finally:
            for timer in self._pending:
                timer.join()
            for sandbox in self.place.sandboxes.values():
                sandbox.faults.clear()

    def _deal(self, blow: Blow) -> None:
        place, sandbox = self.place, self.place.sandboxes[blow.server]
        said = ""
        match blow.kind:
            case "runner":
                runners = place.processes("runner")
                chosen = sorted(runners)[int(blow.choice * len(runners)) :][:1]
                said = f"{place.kill(chosen)} of {len(runners)}"
            case "worker" | "template":
                said = str(place.kill(place.processes(blow.kind)))
            case "prefect":
                said = str(place.kill(place.processes("prefect")))
            case "frozen prefect":
                place.freeze(place.processes("prefect"))
                self._later(blow.seconds, place.thaw)
                said = f"for {blow.seconds:.1f} s"
            case "engine":
                if sandbox.running:
                    sandbox.stop()
                    self.deaths.append(Death(server=blow.server, at=time.monotonic()))
                    self._later(blow.seconds, sandbox.start)
                said = f"{blow.server} for {blow.seconds:.1f} s"
            case "sockets":
                sandbox.cut_connections()
                said = blow.server
            case "stall":
                sandbox.faults.add("stall", "step *", seconds=blow.seconds)
                said = f"{blow.server} for {blow.seconds:.1f} s"
            case _:
                kind = _HTTP[int(blow.choice * len(_HTTP))]
                where = "" if blow.seconds < 2 else "after *"
                fault = sandbox.faults.add(kind, where, times=3, seconds=blow.seconds)
                said = f"{blow.server} {fault.kind} {where}"
        at = f"{datetime.now(UTC):%H:%M:%S}"
        self.happened.append(f"{at} after {blow.after}: {blow.kind} {said}")

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, act)
        self._pending.append(timer)
        timer.start()


def settled(place: Place) -> None:
    """Wait until every part is there again."""

    def all_there() -> bool:
        with suppress(OSError):
            return place.client.session.api.healthy() and bool(place.processes("worker"))
        return False

    wait_until(all_there, timeout_s=_BACK_WITHIN_S, every_s=0.2, why="every part is there again")
