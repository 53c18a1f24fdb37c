"""Following prompts to their end: the socket wakes, `/queue` and `/history` decide.

A prompt moves from running to history under one lock of the server, so looking at `/queue` first
and `/history` second cannot miss it; the other way round can. What is in neither, twice, is gone:
deleted, cleared, or lost with a restart, which empties both.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from stablequeue.engines.base import Located, Phase, Progress
from stablequeue.engines.comfyui.answers import Ended, QueueItem, mapping, text
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.progress import Tracker
from stablequeue.engines.comfyui.socket import ComfySocket
from stablequeue.errors import EngineAuthFailed, EngineError, ProtocolError
from stablequeue.servers import ServerConfig

FOLDER = "stablequeue"  # everything we save on a server is below it
POLL_S = 2.0
POLL_WITHOUT_PUSH_S = 0.5
SILENCE_S = 30.0
TWICE_S = 0.5  # between the two looks that make a prompt count as gone
PATIENCE_S = 60.0  # how long a server may be away while a result is awaited
_AFTER_HINT_S = (0.02, 0.05, 0.1, 0.2, 0.5)  # history is written a moment after the success
_MOST_NONSENSE = 3
_MOST_DOUBLINGS = 4


@dataclass(frozen=True, slots=True)
class Look:
    """Where a prompt is. Neither ended nor an item: not there."""

    ended: Ended | None = None
    item: QueueItem | None = None
    running: bool = False
    position: int = 0
    foreign: bool = False  # somebody else's prompt runs now

    @property
    def located(self) -> Located:
        """The same in the words of all engines."""
        if self.ended is not None:
            return Located.DONE
        if self.item is not None:
            return Located.RUNNING if self.running else Located.QUEUED
        return Located.GONE


@dataclass(slots=True)
class _Shared:
    """The last look at one prompt: who observes and who collects share it."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    at: float = -1e9
    look: Look = field(default_factory=Look)
    silences: int = 0


@dataclass(slots=True)
class _Away:
    """How long a server has given no usable answer."""

    since: float = 0.0
    nonsense: int = 0

    def note(self, error: EngineError) -> None:
        """Take in one failure; raise it if it is no passing one."""
        now = time.monotonic()
        self.since = self.since or now
        self.nonsense += isinstance(error, ProtocolError)
        if (
            isinstance(error, EngineAuthFailed)
            or self.nonsense >= _MOST_NONSENSE
            or now - self.since > PATIENCE_S
        ):
            raise error


class Follower:
    """Follows any number of prompts of one session."""

    def __init__(self, server: ServerConfig, client: ComfyClient, socket: ComfySocket) -> None:
        self._server = server
        self._client = client
        self._socket = socket
        self._shared: dict[str, _Shared] = {}
        self._unsent: set[str] = set()

    @contextmanager
    def sending(self, prompt_id: str) -> Generator[None]:
        """While a job is handed over, observers do not take its absence for its end."""
        self._unsent.add(prompt_id)
        try:
            yield
        finally:
            self._unsent.discard(prompt_id)

    async def look(self, prompt_id: str, *, max_age_s: float = 0.0) -> Look:
        """Say where a prompt is; a look not older than `max_age_s` is used again.

        One that did not find it is not: it may have been sent since.
        """
        shared = self._shared.setdefault(prompt_id, _Shared())
        asked = time.monotonic()
        async with shared.lock:
            usable = asked - shared.at < max_age_s and shared.look.located is not Located.GONE
            if shared.look.ended is None and not usable:
                shared.look = await self._look(prompt_id)
                shared.at = time.monotonic()
                await self._mind_silence(shared)
            return shared.look

    async def locate(self, prompt_id: str) -> Located:
        """Say where a prompt is; it is gone only if two looks do not find it."""
        look = await self.look(prompt_id)
        if look.located is Located.GONE:
            await asyncio.sleep(TWICE_S)
            look = await self.look(prompt_id)
        return look.located

    async def wait_end(self, prompt_id: str, client_id: str) -> Ended | None:
        """Await the end, however long; None if the server no longer has the prompt.

        Raises:
            EngineUnreachable: It was away for a minute. Asking again goes on where this left.
        """
        tracker = self._socket.listen(prompt_id, client_id)
        self._socket.start()
        missing = hinted = 0
        away = _Away()
        while True:
            pause = POLL_WITHOUT_PUSH_S
            try:
                look = await self.look(prompt_id)
            except EngineError as error:
                away.note(error)
            else:
                away = _Away()
                if look.ended is not None:
                    tracker.end()
                    return look.ended
                missing = missing + 1 if look.item is None else 0
                if missing > 1:
                    tracker.end()
                    return None
                pause = TWICE_S if missing else self._pause(tracker)
            if hinted:
                pause = min(pause, _AFTER_HINT_S[min(hinted, len(_AFTER_HINT_S)) - 1])
            if await _woken(tracker.hint, pause):
                hinted = 1
            elif hinted:
                hinted += 1

    async def observe(self, prompt_id: str, client_id: str) -> AsyncGenerator[Progress]:
        """Yield what is known whenever it changed, until the prompt ended or is gone.

        A lost connection, refused credentials and nonsense are waited out: whoever collects tells.
        """
        tracker = self._socket.listen(prompt_id, client_id)
        self._socket.start()
        shown: Progress | None = None
        missing = 0
        look = Look()
        while True:
            try:
                look = await self.look(prompt_id, max_age_s=self._pause(tracker))
            except EngineError:
                look = Look()
            else:
                gone = look.located is Located.GONE and prompt_id not in self._unsent
                missing = missing + 1 if gone else 0
                if look.ended is not None:
                    yield Progress(phase=Phase.DONE, fraction=1.0)
                    return
                if missing > 1:
                    return
                now = self._progress(tracker, look)
                if now is not None and now != shown:
                    shown = replace(now, preview=None)
                    yield now
            await _woken(tracker.changed, self._pause(tracker))

    def forget(self, prompt_id: str) -> None:
        """Stop following a prompt."""
        self._shared.pop(prompt_id, None)
        self._socket.forget(prompt_id)

    def wake(self) -> None:
        """Make everybody look now, because the server seems to have been restarted."""
        for shared in self._shared.values():
            shared.at = -1e9
        self._socket.wake()

    async def _look(self, prompt_id: str) -> Look:
        queue = await self._client.queue()
        item = queue.find(prompt_id)
        if item is None:
            return Look(ended=await self._client.history(prompt_id))
        return Look(
            item=item,
            running=queue.runs(prompt_id),
            position=0 if queue.runs(prompt_id) else queue.before(prompt_id),
            foreign=any(not is_ours(other) for other in queue.running),
        )

    async def _mind_silence(self, shared: _Shared) -> None:
        """Replace a connection that says nothing although our prompt runs.

        It may be a zombie, or the server is held up by another client, or it has nothing to say
        because a step takes long; so each time the patience doubles.
        """
        if not (shared.look.running and self._socket.connected):
            return
        if self._socket.silent_for() > SILENCE_S * 2 ** min(shared.silences, _MOST_DOUBLINGS):
            shared.silences += 1
            await self._socket.renew()

    def _pause(self, tracker: Tracker) -> float:
        return POLL_S if self._socket.delivers(tracker) else POLL_WITHOUT_PUSH_S

    def _progress(self, tracker: Tracker, look: Look) -> Progress | None:
        if look.item is None:
            return None
        if not tracker.knows_graph:
            tracker.expect(look.item.graph, look.item.outputs)
        if look.running or tracker.heard:  # it may have started since the queue was looked at
            tracker.started()
            now = tracker.snapshot()
            if self._socket.delivers(tracker) or now.preview is not None:
                return now
            # Nothing will be told of its steps, so that nothing is told must not be a stall.
            return replace(now, phase=Phase.WAITING, message="Running; no progress is told")
        phase = Phase.WAITING if look.foreign else Phase.QUEUED
        return Progress(phase=phase, position=look.position)


def is_ours(item: QueueItem) -> bool:
    """Whether a prompt was sent by StableQueue (any installation): it saves below our folder."""
    for node in item.graph.values():
        prefix = text(mapping(mapping(node).get("inputs")).get("filename_prefix"))
        if prefix.startswith(f"{FOLDER}/"):
            return True
    return False


async def _woken(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for the event and clear it; whether it came within the time."""
    try:
        async with asyncio.timeout(timeout_s):
            await event.wait()
    except TimeoutError:
        return False
    event.clear()
    return True
