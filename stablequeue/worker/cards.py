"""Who may generate on which card now.

A card belongs to one server at a time. Several runs of that server may hold it together as far as
the server keeps a job waiting for the card (ComfyUI), the later ones once the earlier have sent
everything. Who dies holding it leaves its remote job behind, and nobody else generates until that
is known to have ended.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from stablequeue.errors import QueueError

logger = logging.getLogger("stablequeue.worker")

_AGAIN_S = 1.0

Settle = Callable[[str, str, str], Awaitable[None]]
"""Awaited before (card, server, job) is granted: until nothing else of ours runs on that card."""

FreeMemory = Callable[[str], Awaitable[None]]
"""Asks the server of this alias to give the card's memory back."""


@dataclass(eq=False)
class Ask:
    """A run that wants, or has, a card."""

    run: str
    job: str
    server: str
    depth: int
    grant: Callable[[], None]
    asked_at: float = field(default_factory=time.monotonic)
    granted_at: float = 0.0
    nearly_done: bool = False


@dataclass(eq=False)
class _Card:
    last_server: str = ""
    holders: dict[str, Ask] = field(default_factory=dict[str, Ask])
    waiting: list[Ask] = field(default_factory=list[Ask])
    unsettled: bool = True  # until the catalogue was looked at once
    preparing: "asyncio.Task[None] | None" = None


class Cards:
    """Grants cards to runs, in the order they asked.

    Args:
        settle: See `Settle`.
        free_memory: See `FreeMemory`.
        handed_over: Told (from server, to server, seconds it took).
        others: Names the other servers of (card, server).
    """

    def __init__(
        self,
        settle: Settle,
        free_memory: FreeMemory,
        handed_over: Callable[[str, str, float], None] = lambda _old, _new, _seconds: None,
        others: Callable[[str, str], Sequence[str]] = lambda _card, _server: (),
    ) -> None:
        self._settle = settle
        self._free_memory = free_memory
        self._handed_over = handed_over
        self._others = others
        self._cards: dict[str, _Card] = {}
        self._of_run: dict[str, str] = {}

    def ask(self, key: str, ask: Ask) -> None:
        """Let a run wait for a card."""
        self.release(ask.run)  # an earlier try of the same run
        card = self._cards.setdefault(key, _Card())
        self._of_run[ask.run] = key
        card.waiting.append(ask)
        self._next(key, card)

    def nearly_done(self, run: str) -> None:
        """A holder sends nothing more: the next run of the same server may come."""
        key = self._of_run.get(run)
        if key is None:
            return
        card = self._cards[key]
        if (holder := card.holders.get(run)) is not None:
            holder.nearly_done = True
            self._next(key, card)

    def release(self, run: str, *, settled: bool = True) -> None:
        """A run gives the card back, or waits for it no more.

        Args:
            run: Flow run id.
            settled: False: its remote job may still be there.
        """
        key = self._of_run.pop(run, None)
        if key is None:
            return
        card = self._cards[key]
        card.waiting = [ask for ask in card.waiting if ask.run != run]
        held = card.holders.pop(run, None)
        card.unsettled = card.unsettled or (held is not None and not settled)
        self._next(key, card)

    def unsettled(self, key: str) -> None:
        """Something of ours may run on this card that nobody holds."""
        self._cards.setdefault(key, _Card()).unsettled = True

    def held_since(self, run: str) -> float:
        """Return since when (monotonic seconds) a run holds its card; 0: it does not."""
        key = self._of_run.get(run)
        held = self._cards[key].holders.get(run) if key else None
        return held.granted_at if held else 0.0

    def _next(self, key: str, card: _Card) -> None:
        while card.waiting and card.preparing is None:
            ask = card.waiting[0]
            if not _may_join(card, ask):
                return
            changes = card.last_server != ask.server
            if card.unsettled or changes:
                card.preparing = asyncio.create_task(self._prepare(key, card, ask))
                return
            self._grant(card, ask)

    def _grant(self, card: _Card, ask: Ask) -> None:
        card.waiting.remove(ask)
        card.holders[ask.run] = ask
        card.last_server = ask.server
        ask.granted_at = time.monotonic()
        ask.grant()

    async def _prepare(self, key: str, card: _Card, ask: Ask) -> None:
        """Settle what is left there and have memory freed; then go on with whoever is next."""
        begun = time.monotonic()
        before = card.last_server
        try:
            while card.unsettled:
                await self._settle_what_is_left(key, card, ask)
            if before and before != ask.server:
                await self._free_memory(before)
                self._handed_over(before, ask.server, time.monotonic() - begun)
            elif not before:  # whatever used the card before this process did
                for other in self._others(key, ask.server):
                    await self._free_memory(other)
            card.last_server = ask.server
        finally:
            card.preparing = None
        self._next(key, card)

    async def _settle_what_is_left(self, key: str, card: _Card, ask: Ask) -> None:
        card.unsettled = False  # what is left while we look is looked at again
        try:
            await self._settle(key, ask.server, ask.job)
        except QueueError as error:
            card.unsettled = True
            logger.warning("what is left on the card %s is not known: %s", key, error)
            await asyncio.sleep(_AGAIN_S)


def _may_join(card: _Card, ask: Ask) -> bool:
    if not card.holders:
        return True
    holders = card.holders.values()
    return (
        all(holder.server == ask.server and holder.nearly_done for holder in holders)
        and len(card.holders) < ask.depth
    )
