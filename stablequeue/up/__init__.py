"""`stablequeue up`: the whole product on one machine, until Ctrl-C.

Prefect's server, the file route, a worker for every saved server, the sandbox when no server is
saved, and the caretaker. Saved servers are watched, so one added while it runs gets its pool, its
deployment and its worker.
"""

import asyncio
import json
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from contextlib import AsyncExitStack, contextmanager, suppress
from logging.handlers import RotatingFileHandler
from typing import Any

from filelock import FileLock, Timeout

from stablequeue.catalogue import open_catalogue
from stablequeue.errors import PrefectUnreachable, Refused
from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.secrets import private_folder
from stablequeue.sending import sending_lock
from stablequeue.server_settings import forget_address, running_url
from stablequeue.settings import Settings
from stablequeue.up.caretaker import Caretaker
from stablequeue.up.children import Children
from stablequeue.up.discover import discover
from stablequeue.up.files import FilesServer, listen
from stablequeue.up.following import Following
from stablequeue.up.processes import Child
from stablequeue.worker import WORKER_TYPE
from stablequeue.worker.pools import PoolList

logger = logging.getLogger("stablequeue.up")

Say = Callable[[str], None]

_SERVER_WITHIN_S = 120.0
_POLL_S = 0.05
_LARGEST_LOG = 5_000_000


def run(settings: Settings, *, say: Say = print, paused: bool = False) -> int:
    """Run everything until SIGINT or SIGTERM; return the exit code.

    Args:
        settings: Of this installation.
        say: Prints a line for people.
        paused: Pause every server before a worker takes its first job.

    Raises:
        Refused: It already runs for this home, a port is taken, or Prefect's server does not start.
    """
    for folder in (settings.home, settings.run_folder, settings.locks, settings.home / "logs"):
        private_folder(folder)
    lock = FileLock(settings.run_folder / "up.lock", timeout=0)
    try:
        with lock, _logging(settings):
            facts = settings.run_folder / "up.json"
            facts.unlink(missing_ok=True)
            try:
                return asyncio.run(_Up(settings, say, paused=paused).main())
            finally:
                facts.unlink(missing_ok=True)
    except Timeout:
        message = f"StableQueue already runs for {settings.home}"
        raise Refused(message) from None


@contextmanager
def _logging(settings: Settings) -> Generator[None]:
    """Keep everything in a file; warnings also go to the terminal."""
    ours = logging.getLogger("stablequeue")
    handler = RotatingFileHandler(
        settings.home / "logs" / "up.log",
        maxBytes=_LARGEST_LOG,
        backupCount=1,
        encoding="utf-8",
        delay=True,
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    before, handlers = ours.level, ours.handlers
    terminals = handlers or [logging.StreamHandler()]
    for terminal in terminals:  # the command line has set one up, with a level on the logger
        terminal.setLevel(before or logging.WARNING)
    ours.handlers = [*terminals, handler]
    ours.setLevel(settings.log_level)
    try:
        yield
    finally:
        ours.handlers = handlers
        ours.setLevel(before)
        handler.close()


class _Up:
    """Starts everything in an order that lets the slow parts overlap.

    Prefect's server takes longest. Meanwhile the worker imports what it needs and waits for its
    list of pools, and what makes the deployments waits for the server; at a first start, when
    there certainly is something to make, it imports Prefect meanwhile too.
    """

    def __init__(self, settings: Settings, say: Say, *, paused: bool = False) -> None:
        self._settings = settings
        self._paused = paused
        self._say = say
        self._children = Children(settings)
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None

    async def main(self) -> int:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGINT, signal.SIGTERM):
            with suppress(NotImplementedError):  # Windows: KeyboardInterrupt ends asyncio.run
                loop.add_signal_handler(name, self._stop.set)
        async with AsyncExitStack() as stack:
            try:
                await self._until_stopped(self._start(stack))
                if not self._stop.is_set():
                    await self._stop.wait()
            finally:
                self._say("Stopping ...")
        if self._failure is not None:
            raise self._failure
        self._say("Stopped.")
        return 0

    async def _until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()
        finally:
            task.cancel()
            stopped.cancel()
            await asyncio.gather(task, stopped, return_exceptions=True)

    async def _start(self, stack: AsyncExitStack) -> None:
        settings = self._settings
        files = self._listen_for_files()
        stack.callback(files.close)
        finding = asyncio.create_task(discover())
        stack.callback(finding.cancel)
        first = not (settings.home / "prefect" / "prefect.db").exists()
        server = await self._start_prefect(stack)
        catalogue = open_catalogue(settings.catalogue)
        stack.callback(catalogue.close)
        migrating = asyncio.create_task(asyncio.to_thread(catalogue.migrate))
        if not settings.prefect_port:  # nobody knows the address before the server has one
            await self._until_started(server)
        pools = PoolList(settings.run_folder / "pools.json")
        pools.file.unlink(missing_ok=True)
        worker = self._children.worker(pools)
        stack.push_async_callback(worker.stop)
        await worker.start()
        api = stack.enter_context(open_prefect(settings))
        following = Following(self._children, api, pools, self._say)
        stack.push_async_callback(following.stop)
        making = asyncio.create_task(following.set_up(self._first_arguments(first=first)))
        stack.push_async_callback(_cancel, making)
        await self._until_started(server)
        await self._until_answers(api)
        await self._background(stack, FilesServer(settings).serve(sockets=[files]), "files")
        report = await migrating
        if report.changed and report.backup:
            self._say(f"The catalogue was brought up to date; a copy of it: {report.backup}")
        await making
        if self._paused:
            await asyncio.to_thread(pause_all, api)
        await following.begin()
        caretaker = Caretaker(catalogue, api, sending_lock(settings.run_folder))
        await self._background(stack, caretaker.run(), "caretaker")
        await self._background(stack, following.watch(), "watching the servers")
        address = f"http://127.0.0.1:{files.getsockname()[1]}"
        _tell(settings, {"files": address, "pid": os.getpid(), "ready": True})
        self._greet(api, following)
        self._offer(following, [(found.url, found.command) for found in await finding])

    def _first_arguments(self, *, first: bool) -> list[str]:
        arguments = ["--wait", str(_SERVER_WITHIN_S), "--sandbox-url", self._sandbox_url()]
        return [*arguments, "--ahead"] if first else arguments

    def _sandbox_url(self) -> str:
        port = self._settings.sandbox_port
        if not port:
            with listen("127.0.0.1", 0) as probe:
                port = probe.getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def _listen_for_files(self) -> socket.socket:
        port = self._settings.files_port
        try:
            return listen("127.0.0.1", port)
        except OSError as error:
            message = (
                f"port {port}, for thumbnails, is taken ({error.strerror}); choose another with"
                " STABLEQUEUE_FILES_PORT, 0 for any free one"
            )
            raise Refused(message) from error

    async def _background(
        self, stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str
    ) -> None:
        """Run `work` until the end; if it ends before, everything stops with its reason."""
        task = asyncio.create_task(work, name=name)

        def over(ended: asyncio.Task[None]) -> None:
            if not ended.cancelled() and not self._stop.is_set():
                self._failure = ended.exception()
                self._stop.set()

        task.add_done_callback(over)
        stack.push_async_callback(_cancel, task)

    async def _start_prefect(self, stack: AsyncExitStack) -> Child | None:
        """Start our own Prefect server; None: somebody else's is used."""
        if self._settings.prefect_api_url:
            return None
        forget_address(self._settings)  # of one that was killed
        server = self._children.prefect()
        stack.push_async_callback(server.stop)
        await server.spawn()
        self._say("Starting Prefect's server ...")
        return server

    async def _until_started(self, server: Child | None) -> None:
        """Return when our server, and nobody else on its port, takes requests.

        Raises:
            PrefectUnreachable: It ended instead, or takes too long.
        """
        deadline = asyncio.get_running_loop().time() + _SERVER_WITHIN_S
        while server is not None:
            if url := running_url(self._settings):
                port = url.removesuffix("/api").rpartition(":")[2]
                server.environment = {**server.environment, "STABLEQUEUE_PREFECT_PORT": port}
                server.keep()
                return
            late = asyncio.get_running_loop().time() > deadline
            if late or not server.running:
                why = "it takes too long" if late else server.last_words()
                message = f"Prefect's server does not start: {why} (its log: {server.log})"
                raise PrefectUnreachable(message)
            await asyncio.sleep(_POLL_S)

    async def _until_answers(self, api: PrefectApi) -> None:
        deadline = asyncio.get_running_loop().time() + _SERVER_WITHIN_S
        while True:
            try:
                await asyncio.to_thread(api.healthy)
            except PrefectUnreachable:
                if asyncio.get_running_loop().time() > deadline:
                    raise
                await asyncio.sleep(_POLL_S)
            else:
                return

    def _greet(self, api: PrefectApi, following: Following) -> None:
        if all(server.sandbox for server in following.servers.values()):
            self._say("Only the built-in sandbox is saved. It paints test cards, no GPU needed.")
        self._say(f"Ready. Prefect's pages: {api.url.removesuffix('/api')} (stablequeue ui)")
        servers = ", ".join(sorted(following.servers))
        self._say(f"Servers: {servers}. Pictures: {_where(self._settings)}")
        if self._paused:
            self._say("Every server is paused. Start their jobs with: stablequeue resume --all")
        self._say('Try: stablequeue submit "a lighthouse at night" --wait')

    def _offer(self, following: Following, found: list[tuple[str, str]]) -> None:
        saved = {server.base_url for server in following.servers.values()}
        for url, command in found:
            if url not in saved:
                self._say(f"Found a server at {url}. Add it with: {command}")


def pause_all(api: PrefectApi) -> None:
    """Pause every pool of ours."""
    for pool in api.pools(kind=WORKER_TYPE):
        api.pause_pool(pool.name)


async def _cancel(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _where(settings: Settings) -> str:
    return f"s3://{settings.s3.bucket}" if settings.s3.bucket else str(settings.pictures_folder)


def _tell(settings: Settings, facts: dict[str, object]) -> None:
    """Write what other processes need to know of this one."""
    path = settings.run_folder / "up.json"
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.replace(path)
