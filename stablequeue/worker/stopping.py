"""How SIGTERM reaches the flow in a warm process.

Prefect's handler raises `TerminationSignal` wherever the main thread happens to be. Inside an event
loop that is often a callback or a task that is not the flow's, and asyncio keeps the exception
there: the flow never learns that it was cancelled, and what it began on a server goes on. So, while
a flow runs in our loop, the signal cancels the flow's own task instead, once; what the flow then
does (sending interrupts) is not disturbed by a second one. The worker kills who does not end.
"""

import asyncio
import contextvars
from collections.abc import Coroutine
from typing import Any, cast

from prefect.exceptions import TerminationSignal
from prefect.utilities import engine

_HANDLER = "_prefect_sigterm_handler"


class _Stop:
    """The stop of one flow."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._flow: asyncio.Task[Any] | None = None
        self.signal = 0

    def begun(self) -> None:
        """Note the flow's own task, from inside it."""
        self._flow = asyncio.current_task()
        if self.signal:
            self._cancel()

    def ask(self, number: int) -> None:
        """Have the flow stop; called by the signal's handler."""
        if not self.signal:
            self.signal = number
            self._loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._flow is not None:
            self._flow.cancel()


_current: _Stop | None = None


def tell_flows() -> None:
    """Handle SIGTERM our way in this process from now on; may be called again."""
    if hasattr(engine, _HANDLER):  # Prefect compares the handler with this name's value
        setattr(engine, _HANDLER, _on_sigterm)


def _on_sigterm(number: int, *_: object) -> None:
    if _current is None:
        raise TerminationSignal(signal=cast("Any", number))
    _current.ask(number)


def run_stoppable(
    loop: asyncio.Runner, flow: Coroutine[Any, Any, None], context: contextvars.Context
) -> None:
    """Run a flow to its end in this process's own loop, and end what it left behind there.

    Raises:
        TerminationSignal: It was stopped by one.
    """
    global _current  # noqa: PLW0603 - a signal's handler finds nothing else
    stop = _current = _Stop(loop.get_loop())

    async def whole() -> None:
        stop.begun()
        await flow

    try:
        loop.run(whole(), context=context)
    except asyncio.CancelledError as error:
        if not stop.signal:
            raise
        raise TerminationSignal(signal=cast("Any", stop.signal)) from error
    finally:
        _end_leftovers(loop)
        _current = None


def _end_leftovers(loop: asyncio.Runner) -> None:
    """End what a flow left behind in the loop, as `asyncio.run` would."""
    left = asyncio.all_tasks(loop.get_loop())
    if not left:
        return

    async def end() -> None:
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    loop.run(end())
