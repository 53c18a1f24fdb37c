"""A warm process: runs one flow run after another, with Prefect imported and its client open.

It is what `python -m prefect.engine` does, without ending after it. It ends when the host is gone
(at once, as a power cut would end it), when the host says so, when its code is no longer what is on
disk, and after a run that did not end by itself.

`python -m stablequeue.worker.runner` is one that was not forked from the template: on Windows and
macOS, and for runs that bring an environment or a project of their own.
"""

import asyncio
import contextlib
import contextvars
import importlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast

from prefect._internal.control_listener import configure_from_env
from prefect._internal.metrics import RunMetrics  # pyright: ignore[reportUnknownVariableType]
from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext
from prefect.engine import (
    _drive_run_flow_result,  # pyright: ignore[reportPrivateUsage]
    handle_engine_signals,
)
from prefect.exceptions import TerminationSignal
from prefect.flow_engine import load_flow, run_flow
from prefect.logging.loggers import flow_run_logger

from stablequeue.errors import QueueError
from stablequeue.processes import collect_seldom
from stablequeue.project import enter
from stablequeue.settings import Settings, load
from stablequeue.warm import Warm, given
from stablequeue.worker.channel import HostConnection, Message, address_from_environment
from stablequeue.worker.freshness import CodeSeen
from stablequeue.worker.lean import runs_ours, spare, suspend
from stablequeue.worker.presence import present
from stablequeue.worker.project_flows import AnyFlow, flow_at
from stablequeue.worker.stopping import run_stoppable, tell_flows

NAME_VARIABLE = "STABLEQUEUE_RUNNER_NAME"
_LOST_HOST = 71


class _Held:
    """A card the host granted."""

    def __init__(self, gate: "HostGate", run: str) -> None:
        self._gate, self._run, self._said = gate, run, set[str]()

    def nearly_done(self) -> None:
        self._say("tail")

    def free(self) -> None:
        self._say("tail")
        self._say("release")

    def _say(self, what: str) -> None:
        if what not in self._said:
            self._said.add(what)
            self._gate.say({"card": what, "run": self._run})


class HostGate:
    """Asks the host for the card."""

    def __init__(self, connection: HostConnection, run: str) -> None:
        self.say = connection.send
        self._run = run
        self._granted: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @asynccontextmanager
    async def hold(
        self, *, card: str, server: str, depth: int, about: Mapping[str, Any]
    ) -> AsyncGenerator[_Held]:
        """Wait until the host grants the card; give it back at the end."""
        self._loop, self._granted = asyncio.get_running_loop(), asyncio.Event()
        held = _Held(self, self._run)
        ask = {"card": "ask", "run": self._run, "key": card, "server": server, "depth": depth}
        self.say({**ask, "about": dict(about)})
        try:
            await self._granted.wait()
            yield held
        finally:
            held.free()

    def granted(self) -> None:
        """Pass on the host's answer; called by the thread that reads."""
        if self._loop is not None and self._granted is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._granted.set)


class Runner:
    """The main thread runs flow runs, another one listens to the host."""

    def __init__(self, connection: HostConnection, settings: Settings) -> None:
        self._host = connection
        self._settings = settings
        self._orders: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._gate: HostGate | None = None
        self._running = ""
        self._code = CodeSeen()

    def serve(self) -> int:
        """Run what the host orders until it orders no more."""
        threading.Thread(target=self._listen, daemon=True, name="host").start()
        with asyncio.Runner() as loop:
            client = AsyncClientContext()
            base = contextvars.copy_context()
            loop.run(_entered(client), context=base)
            self._host.send({"ready": os.getpid()})
            try:
                while (order := self._orders.get()) is not None:
                    if self._code.changed():
                        self._host.send({"stale": order["run"]["id"]})
                        return 0
                    code = self._run(order, loop, base)
                    self._running, self._gate = "", None
                    self._code.note()
                    last = code != 0 or bool(order.get("last"))
                    ended = {"end": order["run"]["id"], "code": code, "last": last}
                    if last:
                        self._host.send(ended)
                        return max(code, 0)
                    self._host.send(ended)
            finally:
                loop.run(client.__aexit__(None, None, None), context=base)
        return 0

    def _listen(self) -> None:
        self._host.read_all(self._hear)
        if self._running:
            os._exit(_LOST_HOST)
        self._orders.put(None)

    def _hear(self, message: Message) -> None:
        if "run" in message:
            self._running = str(message["run"]["id"])
            self._orders.put(message)
        elif "stop" in message:
            self._orders.put(None)
        elif "suspended" in message:
            suspend(str(message["suspended"]))
        elif message.get("card") == "granted" and self._gate is not None:
            self._gate.granted()

    def _run(self, order: Message, loop: asyncio.Runner, base: contextvars.Context) -> int:
        flow_run = FlowRun.model_validate(order["run"])
        self._gate = HostGate(self._host, str(flow_run.id))
        warm = self._given(order, str(flow_run.id))
        with _environment(order["env"]):
            configure_from_env()
            try:
                with present(self._settings, str(flow_run.id)):
                    self._drive(flow_run, order, loop, base.copy(), warm)
                    return 0
            except SystemExit as end:
                return end.code if isinstance(end.code, int) else int(end.code is not None)
            except TerminationSignal as end:
                return -int(end.signal)
            except (QueueError, KeyboardInterrupt) as error:
                print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
                return 1

    def _given(self, order: Message, run: str) -> Warm:
        about: Message = order.get("given") or {}

        def tell(message: Mapping[str, Any]) -> None:
            self._host.send({**message, "told": run})

        return Warm(
            server=about.get("server") or "",
            pool=about.get("pool") or "",
            servers=about.get("servers") or {},
            gate=self._gate,
            tell=tell,
        )

    def _drive(
        self,
        flow_run: FlowRun,
        order: Message,
        loop: asyncio.Runner,
        context: contextvars.Context,
        warm: Warm,
    ) -> None:
        """Do what `prefect.engine` does as `__main__`, in this process's own event loop."""

        def begin() -> Any:
            given.set(warm)
            runs_ours.set(bool(order.get("entrypoint")) and flow.persist_result is False)
            return run_flow(flow, flow_run=flow_run, error_logger=cast("logging.Logger", log))

        async def whole() -> None:
            await begin()

        with handle_engine_signals(flow_run.id):
            log = flow_run_logger(flow_run)
            flow = self._load(flow_run, order, log)
            with RunMetrics(flow_run, flow):
                if flow.isasync and not flow.isgenerator:
                    run_stoppable(loop, whole(), context)
                else:
                    context.run(lambda: _drive_run_flow_result(flow, begin()))

    def _load(self, flow_run: FlowRun, order: Message, log: Any) -> AnyFlow:
        entrypoint = str(order.get("entrypoint") or "")
        try:
            if not entrypoint:  # a project of somebody else's, in a process of its own
                folder = str(order["folder"])
                os.chdir(folder)
                sys.path.insert(0, folder)
                return load_flow(flow_run)
            enter()
            return flow_at(entrypoint)
        except Exception:
            log.exception("Unexpected exception encountered when trying to load flow")
            raise


async def _entered(client: AsyncClientContext) -> None:
    await client.__aenter__()


@contextlib.contextmanager
def _environment(values: Mapping[str, str]) -> Generator[None]:
    """Set the variables of one run; afterwards take back whatever it changed."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        if dict(os.environ) != before:
            os.environ.clear()
            os.environ.update(before)


def serve(name: str, *, port: int, token: str) -> int:
    """Be the warm process `name` of the host that listens on `port`; return the exit code."""
    spare()
    tell_flows()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the host
    settings = load()
    logging.getLogger("stablequeue").setLevel(settings.log_level)
    try:
        connection = HostConnection(name, "runner", port=port, token=token)
    except OSError:
        return _LOST_HOST
    return Runner(connection, settings).serve()


def main() -> int:
    """Be a warm process that imported everything itself."""
    collect_seldom()
    port, token = address_from_environment()
    return serve(os.environ.pop(NAME_VARIABLE), port=port, token=token)


if __name__ == "__main__":
    # Under its own name, so that its classes are those that everybody else imports.
    sys.exit(importlib.import_module("stablequeue.worker.runner").main())
