"""What the processes of runs say, and what the host does about it.

They ask for the card and give it back, tell how far they are, how long things took, what went
wrong, and which remote job of a cancelled run they could not see stop (`stablequeue.warm`).
"""

import time
from collections.abc import Callable, Mapping
from typing import Any

from stablequeue.model_names import model_key
from stablequeue.worker.cancelling import Cancelling
from stablequeue.worker.cards import Ask, Cards
from stablequeue.worker.channel import Message
from stablequeue.worker.health import Health
from stablequeue.worker.knowledge import ServerState, Taken
from stablequeue.worker.warm_process import Runner

_SPEAKS_AGAINST = {"engine_unreachable", "engine_stalled", "engine_busy"}


class Hearing:
    """Acts on the messages of runs.

    Args:
        servers: Every saved server, by alias.
        owner: The alias of the server that has a run, by run id; empty: none has.
        cards: Grants them.
        cancelling: Sees that what was cancelled stops.
        health: Puts servers into quarantine.
        wake: Has the waiting runs looked at.
        runner_of: Finds the process of a run.
    """

    def __init__(
        self,
        servers: Mapping[str, ServerState],
        owner: Mapping[str, str],
        *,
        cards: Cards,
        cancelling: Cancelling,
        health: Health,
        wake: Callable[[], None],
        runner_of: Callable[[str], Runner | None],
    ) -> None:
        self._servers, self._owner = servers, owner
        self._cards, self._cancelling, self._health = cards, cancelling, health
        self._wake = wake
        self._runner_of = runner_of

    def hear(self, run_id: str, message: Message) -> None:
        """Act on one message of a run."""
        server = self._servers.get(self._owner.get(run_id, ""))
        taken = server.taken.get(run_id) if server is not None else None
        match message.get("card"):
            case "ask":
                self._ask_card(run_id, message)
            case "tail":
                self._cards.nearly_done(run_id)
            case "release":
                if taken is not None:
                    taken.released = True
                self._cards.release(run_id, settled=not message.get("unsettled"))
                self._wake()
            case _:
                self._learn(run_id, server, taken, message)

    def _learn(
        self, run_id: str, server: ServerState | None, taken: Taken | None, message: Message
    ) -> None:
        if server is None:
            alias = str(message.get("server") or "")
            server = self._servers.get(alias)
            if server is None:
                return
        if "progress" in message and taken is not None:
            taken.progress = float(message["progress"])
            if taken.progress > 0:
                self._wake()
        if "made_s" in message:
            server.faults = 0
            checkpoint = model_key(str(message.get("checkpoint") or ""))
            server.measured(checkpoint, float(message["made_s"]))
        if "prepared_s" in message:
            server.prepare_s = 0.7 * server.prepare_s + 0.3 * float(message["prepared_s"])
        if "unsettled" in message:
            self._cancelling.stop(run_id, str(message["unsettled"]), server.config)
        if (fault := str(message.get("fault") or "")) in _SPEAKS_AGAINST:
            self._health.quarantine(server, str(message.get("why") or fault))

    def _ask_card(self, run_id: str, message: Message) -> None:
        runner = self._runner_of(run_id)
        if runner is None:
            return
        about: Mapping[str, Any] = message.get("about") or {}

        def grant() -> None:
            server = self._servers.get(str(message["server"]))
            if server is not None and (taken := server.taken.get(run_id)) is not None:
                taken.granted_at = time.monotonic()
            runner.say({"card": "granted"})

        ask = Ask(
            run=run_id,
            job=str(about.get("job") or ""),
            server=str(message["server"]),
            depth=int(message.get("depth") or 1),
            grant=grant,
        )
        self._cards.ask(str(message["key"]), ask)
