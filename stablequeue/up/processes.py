"""Child processes of `stablequeue up`: started with their own log, restarted, stopped politely."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger("stablequeue.up")

_FIRST_DELAY_S = 0.5
_LONGEST_DELAY_S = 30.0
_STEADY_AFTER_S = 60.0
_LARGEST_LOG = 20_000_000
_LAST_WORDS = 2000


@dataclass(kw_only=True, eq=False)
class Child:
    """One process we keep running.

    Attributes:
        name: For people and for the log file's name.
        arguments: After the Python interpreter.
        environment: Whole, not only what differs.
        log: File its output goes to, appended; a large one is put aside when the process starts.
        stop_within_s: How long it may take to end after SIGTERM before it is killed.
        folder: Its working directory.
        deaths: How often it ended by itself.
    """

    name: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    log: Path
    stop_within_s: float = 10.0
    folder: Path | None = None
    process: "asyncio.subprocess.Process | None" = field(default=None, init=False)
    deaths: int = field(default=0, init=False)
    _stopping: bool = field(default=False, init=False)
    _keeper: "asyncio.Task[None] | None" = field(default=None, init=False)

    async def start(self) -> None:
        """Start it, and start it again whenever it ends by itself."""
        await self.spawn()
        self.keep()

    def keep(self) -> None:
        """From now on, start it again whenever it ends by itself."""
        self._stopping = False
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    @property
    def running(self) -> bool:
        """Whether the process lives now."""
        return self.process is not None and self.process.returncode is None

    async def spawn(self) -> None:
        """Start the process once, without watching over it."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as output:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *self.arguments,
                env=dict(self.environment),
                cwd=self.folder,
                stdin=subprocess.PIPE,  # never written to: it closes when we die
                stdout=output,
                stderr=subprocess.STDOUT,
                # Ctrl-C in the terminal is ours: we tell each child when its turn has come.
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def last_words(self) -> str:
        """Return the last line of its log: why it ended, if it says."""
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - _LAST_WORDS))
            lines = log.read().decode("utf-8", "replace").split("\n")
        said = [line.strip() for line in lines if line.strip()]
        return said[-1].removeprefix("stablequeue: ") if said else "it says nothing"

    def _why(self, code: int) -> str:
        return f"signal {-code}" if code < 0 else f"exit code {code}: {self.last_words()}"

    async def _keep(self) -> None:
        delay = _FIRST_DELAY_S
        while True:
            begun = time.monotonic()
            code = await self.process.wait() if self.process else 0
            if self._stopping:
                return
            self.deaths += 1
            if time.monotonic() - begun > _STEADY_AFTER_S:
                delay = _FIRST_DELAY_S
            logger.warning(
                "%s ended by itself (%s); it is started again in %.1f s. Its log: %s",
                *(self.name, self._why(code), delay, self.log),
            )
            await asyncio.sleep(delay)
            delay = min(delay * 2, _LONGEST_DELAY_S)
            try:
                await self.spawn()
            except OSError as error:  # no memory or no processes left: later, perhaps
                logger.warning("%s cannot be started: %s", self.name, error)
                self.process = None

    async def stop(self) -> None:
        """End it: SIGTERM, then SIGKILL when it takes too long."""
        self._stopping = True
        process = self.process
        if process is not None and process.returncode is None:
            self._terminate(process)
            try:
                async with asyncio.timeout(self.stop_within_s):
                    await process.wait()
            except TimeoutError:
                logger.warning("%s did not end in %.0f s; killed", self.name, self.stop_within_s)
                process.kill()
                await process.wait()
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
            self._keeper = None

    @staticmethod
    def _terminate(process: "asyncio.subprocess.Process") -> None:
        if os.name == "posix":
            process.send_signal(signal.SIGTERM)
        else:
            process.send_signal(getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM))


async def run_once(child: Child, *, within_s: float) -> int:
    """Run a process that ends by itself; return its exit code (killed: negative).

    Raises:
        TimeoutError: It took too long, and was killed.
    """
    await child.spawn()
    process = child.process
    if process is None:
        return 1
    try:
        async with asyncio.timeout(within_s):
            return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
