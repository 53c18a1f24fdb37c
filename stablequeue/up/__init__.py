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
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stablequeue.catalogue import open_catalogue
from stablequeue.errors import PrefectUnreachable, QueueError, Refused
from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.project import project_dir
from stablequeue.secrets import private_folder
from stablequeue.server_blocks import save_server, saved_servers
from stablequeue.server_settings import clean_environment, client_environment
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings
from stablequeue.up.caretaker import Caretaker
from stablequeue.up.discover import discover
from stablequeue.up.files import FilesServer, listen
from stablequeue.up.processes import Child, run_once

logger = logging.getLogger("stablequeue.up")

Say = Callable[[str], None]

SANDBOX_ALIASES = {"sandbox": "comfyui", "sandbox-forge": "forge"}
"""Servers saved when there is none: one built-in server, spoken to in two protocols."""

_WATCH_EVERY_S = 3.0
_SERVER_WITHIN_S = 120.0
_SETUP_WITHIN_S = 120.0
_POLL_S = 0.1


def run(settings: Settings, *, say: Say = print) -> int:
    """Run everything until SIGINT or SIGTERM; return the exit code.

    Raises:
        Refused: It already runs for this home, or a port is taken.
    """
    for folder in (settings.home, settings.run_folder, settings.locks):
        private_folder(folder)
    lock = FileLock(settings.run_folder / "up.lock", timeout=0)
    try:
        with lock:
            (settings.run_folder / "up.json").unlink(missing_ok=True)
            return asyncio.run(_Up(settings, say).main())
    except Timeout:
        message = f"StableQueue already runs for {settings.home}"
        raise Refused(message) from None


class _Up:
    def __init__(self, settings: Settings, say: Say) -> None:
        self._settings = settings
        self._say = say
        self._stop = asyncio.Event()
        self._workers: dict[str, Child] = {}
        self._known: dict[str, ServerConfig] = {}
        self._sandbox: Child | None = None
        self._failure: BaseException | None = None
        self._facts: dict[str, object] = {}

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
        files = listen("127.0.0.1", settings.files_port)
        stack.callback(files.close)
        catalogue = open_catalogue(settings.catalogue)
        stack.callback(catalogue.close)
        migrating = asyncio.create_task(asyncio.to_thread(catalogue.migrate))
        if not settings.prefect_api_url:
            await self._start_prefect(stack)
        report = await migrating
        if report.changed and report.backup:
            self._say(f"The catalogue was brought up to date; a copy of it: {report.backup}")
        api = stack.enter_context(open_prefect(settings))
        await self._wait_for(api)
        await self._background(stack, FilesServer(settings).serve(sockets=[files]), "files")
        port: int = files.getsockname()[1]
        self._facts = {"files": f"http://127.0.0.1:{port}", "pid": os.getpid()}
        stack.push_async_callback(self._stop_workers)
        await self._set_up()
        await self._first_servers(api)
        await self._follow_servers(api)
        await self._background(stack, Caretaker(catalogue, api).run(), "caretaker")
        await self._background(stack, self._watch(api), "watching the servers")
        _tell(settings, {**self._facts, "ready": True})
        self._greet(api)

    async def _background(
        self, stack: AsyncExitStack, work: Coroutine[Any, Any, None], name: str
    ) -> None:
        """Run `work` until the end; if it ends before, everything stops with its reason."""
        task = asyncio.create_task(work, name=name)

        def over(ended: asyncio.Task[None]) -> None:
            if not ended.cancelled() and not self._stop.is_set():
                self._failure = ended.exception()
                self._stop.set()

        async def end() -> None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

        task.add_done_callback(over)
        stack.push_async_callback(end)

    async def _start_prefect(self, stack: AsyncExitStack) -> None:
        server = self._child("prefect", ["-m", "stablequeue.server"], clean_environment())
        await server.start()
        stack.push_async_callback(server.stop)
        self._say("Starting Prefect's server ...")

    async def _wait_for(self, api: PrefectApi) -> None:
        deadline = asyncio.get_running_loop().time() + _SERVER_WITHIN_S
        while True:
            try:
                await asyncio.to_thread(api.healthy)
            except PrefectUnreachable as error:
                if asyncio.get_running_loop().time() > deadline:
                    message = f"{error}. Its log: {self._log('prefect')}"
                    raise PrefectUnreachable(message) from error
                await asyncio.sleep(_POLL_S)
            else:
                return

    async def _set_up(self) -> None:
        """Register block types; make pools, queues and deployments of the saved servers."""
        child = self._child("deployments", ["-m", "deployments"], self._client_environment())
        child.folder = project_dir()
        code = await run_once(child, within_s=_SETUP_WITHIN_S)
        if code:
            message = f"pools and deployments could not be made; see {child.log}"
            raise Refused(message)

    async def _first_servers(self, api: PrefectApi) -> None:
        """Save the sandbox when no server is saved; start it when it is one of them."""
        servers = await asyncio.to_thread(saved_servers, api)
        url = f"http://127.0.0.1:{self._settings.sandbox_port}"
        if not servers:
            for alias, kind in SANDBOX_ALIASES.items():
                config = ServerConfig.model_validate(
                    {"alias": alias, "type": kind, "url": url, "sandbox": True, "card": "sandbox/0"}
                )
                await asyncio.to_thread(save_server, api, config)
            self._say("No server is saved: the built-in sandbox paints test cards, no GPU needed.")
        for found in await discover():
            if not any(str(server.url).rstrip("/") == found.url for server in servers):
                self._say(f"Found {found.type} at {found.url}. Add it with: {found.command}")

    async def _follow_servers(self, api: PrefectApi) -> None:
        """Bring workers and sandbox in line with the servers saved now."""
        servers = {server.alias: server for server in await asyncio.to_thread(saved_servers, api)}
        if servers == self._known and self._workers:
            return
        if servers != self._known:
            await self._set_up()
        if any(server.sandbox for server in servers.values()):
            await self._start_sandbox()
        new = [alias for alias in servers if alias not in self._workers]
        if ANY not in self._workers:
            new.append(ANY)
        if new:
            await self._start_worker(sorted(new))
        for alias in [name for name in self._workers if name != ANY and name not in servers]:
            logger.info("%s is no longer saved; its worker ends with the others", alias)
            self._workers.pop(alias)
        for alias in new:
            if alias != ANY and self._known:
                self._say(f"Server {alias} is ready.")
        self._known = servers

    async def _start_sandbox(self) -> None:
        if self._sandbox is not None:
            return
        home = self._settings.home / "sandbox"
        self._sandbox = self._child(
            "sandbox",
            [
                *("-m", "stablequeue.sandbox", "--protocol", "both"),
                *("--port", str(self._settings.sandbox_port), "--home", str(home)),
            ],
            clean_environment(),
        )
        await self._sandbox.start()

    async def _start_worker(self, pools: list[str]) -> None:
        name = "worker" if ANY in pools else f"worker-{pools[0]}"
        worker = self._child(
            name, ["-m", "stablequeue.worker", *pools], self._client_environment(), stop_within_s=20
        )
        worker.folder = project_dir()
        await worker.start()
        self._workers.update(dict.fromkeys(pools, worker))

    async def _stop_workers(self) -> None:
        children = [*dict.fromkeys(self._workers.values()), *filter(None, [self._sandbox])]
        await asyncio.gather(*(child.stop() for child in children))

    async def _watch(self, api: PrefectApi) -> None:
        while True:
            await asyncio.sleep(_WATCH_EVERY_S)
            try:
                await self._follow_servers(api)
            except QueueError as error:
                logger.warning("looking at the saved servers: %s", error)

    def _greet(self, api: PrefectApi) -> None:
        self._say(f"Ready. Prefect's pages: {api.url.removesuffix('/api')} (stablequeue ui)")
        self._say(f"Servers: {', '.join(sorted(self._known))}. Pictures: {_where(self._settings)}")
        self._say('Try: stablequeue submit "a lighthouse at night" --wait')

    def _child(
        self,
        name: str,
        arguments: list[str],
        environment: dict[str, str],
        *,
        stop_within_s: float = 10.0,
    ) -> Child:
        ours = {"STABLEQUEUE_HOME": str(self._settings.home), "PYTHONUNBUFFERED": "1"}
        return Child(
            name=name,
            arguments=arguments,
            environment={**environment, **ours},
            log=self._log(name),
            stop_within_s=stop_within_s,
        )

    def _client_environment(self) -> dict[str, str]:
        return {**clean_environment(), **client_environment(self._settings)}

    def _log(self, name: str) -> Path:
        return self._settings.home / "logs" / f"{name}.log"


def _where(settings: Settings) -> str:
    return f"s3://{settings.s3.bucket}" if settings.s3.bucket else str(settings.pictures_folder)


def _tell(settings: Settings, facts: dict[str, object]) -> None:
    """Write what other processes need to know of this one."""
    path = settings.run_folder / "up.json"
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(facts), encoding="utf-8")
    draft.replace(path)
