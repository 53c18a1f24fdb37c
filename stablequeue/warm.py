"""What a warm worker gives a run along, so that the run need not ask for it again.

A run in a process of its own (Prefect's process worker, `flow.serve()`, a test) has none of it
and asks Prefect itself.
"""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol


class CardGate(Protocol):
    """Lets the runs of one card generate one server at a time."""

    def hold(
        self, *, card: str, server: str, depth: int, about: Mapping[str, Any]
    ) -> "AbstractAsyncContextManager[CardHeld]":
        """Wait for the card and hold it inside; answers to cancelling at once.

        Args:
            card: Key of the card (`ServerConfig.card_key`).
            server: Alias of the server that is to generate.
            depth: How many remote jobs of ours that server takes at once.
            about: For the record: job id, checkpoint.
        """
        ...


class CardHeld(Protocol):
    """A card held by a run."""

    def nearly_done(self) -> None:
        """Say that this run sends nothing more: the next one of the same server may come."""
        ...

    def free(self) -> None:
        """Say that the server works on nothing of ours any more; may be said twice."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Warm:
    """What the host of this run knows already.

    Attributes:
        server: Alias the host chose for a run of `any`; empty: not chosen, or fixed anyway.
        pool: Name of the work pool of the run's deployment.
        servers: Data of every saved server block, secrets included, by alias.
        gate: Grants the card.
        tell: Tells the host something (faults, measurements); never waits.
    """

    server: str = ""
    pool: str = ""
    servers: Mapping[str, Mapping[str, Any]] = field(
        default_factory=dict[str, Mapping[str, Any]], repr=False
    )
    gate: CardGate | None = None
    tell: Callable[[Mapping[str, Any]], None] = lambda _message: None


given: ContextVar[Warm | None] = ContextVar("given", default=None)
"""What this run was given; None outside a warm process."""
