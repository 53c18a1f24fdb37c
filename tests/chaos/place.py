"""A whole installation of its own, with sandbox servers, whose every part can be killed.

Unlike the house of `tests.flows`, Prefect's server is part of it, and `stablequeue up` watches over
everything, as it does for people.
"""

import json
import os
import signal
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.house import House
from stablequeue.catalogue import Catalogue, JobState, open_catalogue
from stablequeue.client import Client
from stablequeue.sandbox.card import GraphicsCard
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.server_blocks import save_server
from stablequeue.servers import ServerConfig
from tests.support.waiting import wait_until

READY_WITHIN_S = 120.0
AT_ONCE = 4
"""Runs of one server at once, so that some are prepared and stored while one generates."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One server of a place.

    Attributes:
        alias: Of the saved server.
        kind: `comfyui` or `forge`.
        card: Servers that name the same one share it.
        step_s: What a sampling step takes.
        load_s: What putting a checkpoint on the card takes.
        memory_mb: Of the card; the first server of a card decides.
    """

    alias: str
    kind: str
    card: str
    step_s: float = 0.03
    load_s: float = 0.0
    memory_mb: int = 24_576


@dataclass(kw_only=True)
class Place:
    """What is there, and by which names."""

    house: House
    client: Client
    catalogue: Catalogue
    sandboxes: dict[str, Sandbox]
    cards: dict[str, GraphicsCard]
    log: Path
    _stopped: list[int] = field(default_factory=list[int])

    def processes(self, part: str) -> list[int]:
        """Return the processes of one part now.

        Args:
            part: `prefect`, `worker`, `template` (of which runs are forked) or `runner`.
        """
        up = self.house.process
        if up is None:
            return []
        mark = {"prefect": "stablequeue.server", "worker": "stablequeue.worker"}
        if part in mark:
            return [pid for pid in _children(up.pid) if mark[part] in _words(pid)]
        workers = set(self.processes("worker"))
        forked = [
            int(folder.name)
            for folder in Path("/proc").glob("[0-9]*")
            if "stablequeue.worker.template" in _words(int(folder.name))
            and self._mark() in _environment(int(folder.name))
        ]
        # One forked by a template that died has another parent now.
        return [pid for pid in forked if (_parent(pid) in workers) == (part == "template")]

    def _mark(self) -> str:
        return f"STABLEQUEUE_HOME={self.house.home}"

    def kill(self, pids: Iterable[int]) -> int:
        """End processes at once; return how many were there."""
        ended = 0
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ended += 1
        return ended

    def freeze(self, pids: Iterable[int]) -> None:
        """Stop processes where they are, until `thaw`."""
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._stopped.append(pid)

    def thaw(self) -> None:
        """Let everything go on that was frozen."""
        for pid in self._stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        self._stopped.clear()

    def submit(self, requests: Sequence[Mapping[str, Any]]) -> list[str]:
        """Queue jobs; return their ids."""
        return [done.job_id for done in self.client.submit_many(requests)]

    def ended(self, job_ids: Sequence[str]) -> int:
        """Return how many of these jobs the catalogue knows the end of, Prefect there or not.

        One that counts as crashed may go on: its run waits again once Prefect answers.
        """
        outcomes = self.catalogue.outcomes(job_ids).values()
        return sum(outcome.state is not JobState.CRASHED for outcome in outcomes)


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(word) for word in task.read_text().split()]
    return found


def _words(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return []


def _environment(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/environ").read_text().split("\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@contextmanager
def open_place(folder: Path, wanted: Sequence[Wanted]) -> Generator[Place]:
    """Start everything, wait until all servers are served, and end it afterwards."""
    with ExitStack() as stack:
        cards: dict[str, GraphicsCard] = {}
        sandboxes: dict[str, Sandbox] = {}
        for one in wanted:
            card = cards.setdefault(one.card, GraphicsCard(memory_mb=one.memory_mb))
            sandboxes[one.alias] = sandbox = stack.enter_context(
                serve_sandbox(one.kind, name=one.alias, card=card, step_seconds=one.step_s)
            )
            sandbox.config.models.files = [
                _loading(file, one.load_s) for file in sandbox.config.models.files
            ]
        (folder / "home").mkdir(parents=True)
        house = House(folder / "home")
        stack.enter_context(house.running())
        client = stack.enter_context(house.client())
        for one in wanted:
            card_name = f"chaos/{one.card}"
            config = {"alias": one.alias, "type": one.kind, "url": sandboxes[one.alias].url}
            config |= {"card": card_name}
            save_server(client.session.api, ServerConfig.model_validate(config))
        place = Place(
            house=house,
            client=client,
            catalogue=open_catalogue(house.settings.catalogue),
            sandboxes=sandboxes,
            cards=cards,
            log=house.home / "logs" / "worker.log",
        )
        stack.callback(place.catalogue.close)
        stack.callback(place.thaw)
        wait_until(
            lambda: set(sandboxes) <= set(_served(house.home)),
            timeout_s=READY_WITHIN_S,
            why="the servers are served",
        )
        for alias in sandboxes:
            client.session.api.limit_pool(alias, AT_ONCE)
        yield place


def _loading(file: Any, load_s: float) -> Any:
    from dataclasses import replace  # noqa: PLC0415

    return replace(file, load_seconds=load_s) if file.kind == "checkpoints" else file


def _served(home: Path) -> list[str]:
    try:
        return list(json.loads((home / "run" / "pools.json").read_text()))
    except (OSError, ValueError):
        return []
