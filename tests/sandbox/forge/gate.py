"""Lets a test decide when the sandbox takes its next step."""

import asyncio
from collections.abc import Sequence

from stablequeue.sandbox import Fault, FaultKind, Sandbox

_POLL_S = 0.001


class Gate:
    """Holds each sampling step of a sandbox, and decoding after it, back until released.

    With `hold_loading` also the loading of a model, until the first release.
    """

    def __init__(self, sandbox: Sandbox, *, hold_loading: bool = False) -> None:
        self._state = sandbox.state
        self._permits = 0
        self._open = False
        self._waiting = 0
        self._loading = hold_loading
        if hold_loading:
            sandbox.faults.add(FaultKind.STALL, "load", times=-1)
        self._strike = self._state.strike
        vars(self._state).update(step=self._step, strike=self._decode)

    async def _step(self, number: int, protocol: str) -> Sequence[Fault]:
        await self._hold()
        return await self._strike(f"step {number}", protocol)

    async def _decode(self, place: str, protocol: str) -> Sequence[Fault]:
        if place == "decode":
            await self._hold()
        return await self._strike(place, protocol)

    async def _hold(self) -> None:
        self._waiting += 1
        while not self._open and self._permits == 0:  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(_POLL_S)
        self._permits = max(0, self._permits - 1)
        self._waiting -= 1

    @property
    def holds(self) -> bool:
        """Whether a job stands before its next step, or before loading."""
        return self._loading or (self._waiting > 0 and self._permits == 0)

    def release(self) -> None:
        """Let one step, or the loading, happen."""
        if self._loading:
            self._loading = False
            self._state.faults.clear(FaultKind.STALL)
        else:
            self._permits += 1

    def open(self) -> None:
        """Hold nothing back any more."""
        self._loading = False
        self._state.faults.clear(FaultKind.STALL)
        self._open = True
