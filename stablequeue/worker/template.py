"""A process with everything imported, forked for each warm process: `python -m ...template`.

A fork takes 10 ms and shares its memory with the template, where a new Python takes 2.5 s of CPU
and 75 MB. Only the thread that forks lives on in the child, so this process starts none, opens no
client and no event loop. On Linux only: elsewhere forking after imports is not safe, and each warm
process imports for itself.
"""

import gc
import importlib
import os
import selectors
import signal
import sys
import threading
import traceback
from typing import NoReturn

from stablequeue.processes import collect_seldom
from stablequeue.worker.channel import (
    HostConnection,
    Message,
    address_from_environment,
    decode,
)
from stablequeue.worker.freshness import CodeSeen

PRELOADED = (
    "prefect._internal.control_listener",
    "prefect._internal.metrics",
    "prefect.artifacts",
    "prefect.client.orchestration",
    "prefect.concurrency.sync",
    "prefect.engine",
    "prefect.events.clients",
    "prefect.events.worker",
    "prefect.flow_engine",
    "prefect.logging.clients",
    "prefect.logging.handlers",
    "prefect.runtime",
    "prefect.task_engine",
    "anyio._backends._asyncio",
    "websockets.asyncio.client",
    "PIL.Image",
    "PIL.PngImagePlugin",
    "PIL.WebPImagePlugin",
    "sqlalchemy.dialects.sqlite.pysqlite",
    "stablequeue.catalogue",
    "stablequeue.engines.comfyui",
    "stablequeue.engines.forge",
    "stablequeue.flowrun",
    "stablequeue.storage",
    "stablequeue.worker.runner",
)


class Template:
    """Forks on demand and tells how each child ended."""

    def __init__(self, *, port: int, token: str) -> None:
        self._port, self._token = port, token
        self._children: dict[int, str] = {}
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._code = CodeSeen()
        self._host = HostConnection("template", "template", port=port, token=token)

    def serve(self) -> None:
        """Fork until the host is gone; then end, and the children with it by themselves."""
        signal.signal(signal.SIGCHLD, _nothing)
        signal.set_wakeup_fd(self._wake)
        self._host.send({"ready": os.getpid()})
        received = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._host.socket, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select():
                    if key.fileobj == self._woken:
                        self._reap()
                        continue
                    chunk = self._host.socket.recv(65536)
                    if not chunk:
                        return
                    received += chunk
                    *lines, received = received.split(b"\n")
                    for line in lines:
                        self._answer(decode(line))

    def _answer(self, message: Message) -> None:
        name = str(message.get("fork") or "")
        if not name:
            return
        if self._code.changed():
            # This process holds the old code for good; the host starts another template.
            self._host.send({"stale": name})
            return
        pid = os.fork()
        if pid == 0:
            self._become_runner(name)
        self._children[pid] = name
        self._host.send({"forked": name, "pid": pid})

    def _become_runner(self, name: str) -> NoReturn:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self._woken)
            os.close(self._wake)
            self._host.close()
            os.setsid()
            from stablequeue.worker.runner import serve  # noqa: PLC0415  imported already

            code = serve(name, port=self._port, token=self._token)
        except Exception:
            traceback.print_exc()  # the exit below would swallow it
            raise
        finally:
            # What ends with the interpreter (logs and events on their way) must end here too, but
            # not what the template's own interpreter would do at its end.
            _drain()
            os._exit(code)

    def _reap(self) -> None:
        try:
            os.read(self._woken, 4096)
        except BlockingIOError:
            return
        while self._children:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = os.waitstatus_to_exitcode(status)
            name = self._children.pop(pid, "")
            self._host.send({"exited": name, "pid": pid, "code": code})


def _nothing(number: int, frame: object) -> None:
    """Have a handler, so that the signal wakes the selector."""


def _drain() -> None:
    import atexit  # noqa: PLC0415

    try:
        threading._shutdown()  # type: ignore[attr-defined]  # noqa: SLF001
        atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # noqa: SLF001
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def main() -> int:
    """Import everything, then serve the host."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal is for the host
    collect_seldom()
    port, token = address_from_environment()
    for name in PRELOADED:
        importlib.import_module(name)
    from stablequeue.worker.project_flows import load_all  # noqa: PLC0415  imports Prefect

    load_all()
    if threading.active_count() != 1:
        names = ", ".join(thread.name for thread in threading.enumerate())
        print(f"stablequeue: threads in the template: {names}", file=sys.stderr)  # noqa: T201
        return 1
    gc.collect()
    gc.freeze()
    try:
        Template(port=port, token=token).serve()
    except ConnectionError:
        return 0
    return 0


__all__ = ["main"]

if __name__ == "__main__":
    # Under its own name, so that a forked child finds the same classes as everybody else.
    sys.exit(importlib.import_module("stablequeue.worker.template").main())
