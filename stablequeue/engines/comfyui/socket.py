"""The WebSocket: a hint, never the truth.

One connection a session, read in a task of its own that no other work can block. What it cannot be
relied on for, each seen on a real server: messages of a gap are not sent again; a second socket of
the same client id becomes a zombie, silent for ever, when the first one closes (scenario 21); one
client that does not read holds back the messages of all (scenario 32). So everybody who listens
polls as well, and a silent socket is given up for a new one with another id.

Source: ComfyUI `server.py` and `protocol.py` (a125cd84, 2025-10-12).
"""

import asyncio
import base64
import json
import struct
import uuid
from dataclasses import dataclass

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus, WebSocketException

from stablequeue.engines.comfyui.answers import (
    NonsenseError,
    mapping,
    parse_json,
    text,
)
from stablequeue.engines.comfyui.progress import Tracker
from stablequeue.servers import ServerConfig
from stablequeue.wire import log_in, log_out

PING_S = 20.0  # the server sends no pings of its own; proxies close what is silent
_GAP_S = 10.0  # a gap this short is no lack of messages
_STABLE_S = 5.0  # a connection that lasted this long was no failure
_NORMAL_CLOSE = 1000
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_PERMANENT = {401, 403, 404}  # the handshake's status: asking again will not help
_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_IMAGE_FORMATS = {1, 2}  # JPEG, PNG
_LARGEST_PREVIEW = 8 * 2**20
_FLAGS = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})


class _Connect(connect):
    """A handshake that follows no redirect: our credentials are for the saved server only."""

    def process_redirect(self, exc: Exception) -> Exception | str:
        return exc


@dataclass(slots=True)
class _Hearing:
    """What the present connection said last, for previews that do not say whose they are."""

    prompt_id: str = ""


class ComfySocket:
    """A session's socket: opened when first needed, reopened while anybody listens."""

    def __init__(self, server: ServerConfig) -> None:
        self._server = server
        self._client_id = str(uuid.uuid4())
        self._trackers: dict[str, Tracker] = {}
        self._connected = asyncio.Event()
        self._refused = asyncio.Event()
        self._failed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._connection: ClientConnection | None = None
        self._last_message = float("-inf")
        self._used_id = False

    @property
    def client_id(self) -> str:
        """The id to give at `POST /prompt`, so that its messages come to this connection."""
        return self._client_id

    @property
    def connected(self) -> bool:
        """Whether a connection is open now."""
        return self._connected.is_set()

    def delivers(self, tracker: Tracker) -> bool:
        """Whether a prompt's messages come here; a connection may be renewed at the moment."""
        now = asyncio.get_running_loop().time()
        alive = self.connected or (not self._refused.is_set() and now - self._last_message < _GAP_S)
        return alive and tracker.client_id == self._client_id

    def silent_for(self) -> float:
        """Seconds since anything came over the present connection."""
        return asyncio.get_running_loop().time() - self._last_message

    async def ready(self, timeout_s: float) -> bool:
        """Open it if it is not open; whether it is open now.

        Waits until the next attempt to connect has ended, at most `timeout_s` seconds.
        """
        self.start()
        self._failed.clear()
        events = (self._connected, self._refused, self._failed)
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        try:
            await asyncio.wait(waits, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return self.connected

    def listen(self, prompt_id: str, client_id: str = "") -> Tracker:
        """Return the tracker of a prompt, which hears everything about it from now on.

        `client_id` is the one the prompt was posted with by an earlier session: as long as nothing
        else uses this socket, it connects under that id and so gets the prompt's messages again.
        """
        if client_id and not self._trackers and self._task is None and not self._used_id:
            self._client_id = client_id
        if prompt_id not in self._trackers:
            self._trackers[prompt_id] = Tracker(prompt_id)
            self._trackers[prompt_id].client_id = client_id
        return self._trackers[prompt_id]

    def forget(self, prompt_id: str) -> None:
        """Stop listening for a prompt."""
        self._trackers.pop(prompt_id, None)

    def posting(self, tracker: Tracker) -> None:
        """Note that a prompt is posted under the present id."""
        tracker.client_id = self._client_id
        self._used_id = True

    def wake(self) -> None:
        """Make everybody who listens look for the end of their prompt."""
        for tracker in self._trackers.values():
            tracker.changed.set()
            tracker.hint.set()

    async def renew(self) -> None:
        """Give the silent connection up and open another.

        It keeps its id, so that prompts posted under it are heard of again, if the old connection
        could be closed on both ends. If not, a connection of the same id could become a zombie
        when the server drops the old one, so it gets another; what was posted is then polled.
        """
        if not await self._stop():
            self._client_id = str(uuid.uuid4())
            self._used_id = False
        self.start()

    async def close(self) -> None:
        """Close the connection and end the reading task."""
        await self._stop()

    def start(self) -> None:
        """Begin to connect, if that has not begun."""
        if (self._task is None or self._task.done()) and not self._refused.is_set():
            self._task = asyncio.create_task(self._run(), name=f"comfyui-ws-{self._server.alias}")

    async def _stop(self) -> bool:
        """Close and end; whether the other side closed as well."""
        connection = self._connection
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        return connection is None or connection.close_code == _NORMAL_CLOSE

    async def _run(self) -> None:
        failures = 0
        clock = asyncio.get_running_loop().time
        while True:
            began = clock()
            try:
                async with self._connect() as self._connection:
                    await self._read(self._connection)
            except InvalidStatus as error:
                status = error.response.status_code
                log_in(self._server, f"ws refused: {status}")
                if status in _PERMANENT:
                    self._refused.set()
                    return
            except (OSError, EOFError, TimeoutError, UnicodeError, WebSocketException) as error:
                log_in(self._server, f"ws lost: {type(error).__name__}")
            finally:
                self._connected.clear()
                self._failed.set()
            if all(tracker.ended for tracker in self._trackers.values()):
                # Nobody's messages hang on this id any more: the next connection gets its own.
                self._client_id = str(uuid.uuid4())
                self._used_id = False
            failures = 0 if clock() - began > _STABLE_S else failures + 1
            await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])

    def _connect(self) -> connect:
        headers: dict[str, str] = {}
        if token := self._server.token.get_secret_value():
            headers["Authorization"] = f"Bearer {token}"
        elif self._server.username:
            pair = f"{self._server.username}:{self._server.password.get_secret_value()}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        scheme, rest = self._server.base_url.split("://", 1)
        url = f"{'wss' if scheme == 'https' else 'ws'}://{rest}/ws?clientId={self._client_id}"
        log_out(self._server, "ws /ws")
        return _Connect(
            url,
            additional_headers=headers,
            proxy=None,  # like HTTP: a saved server is reached directly or not at all
            max_size=None,  # SaveImageWebsocket sends whole pictures in one frame
            ping_interval=PING_S,
            ping_timeout=PING_S,
            open_timeout=self._server.connect_timeout_s,
            close_timeout=2.0,
        )

    async def _read(self, connection: ClientConnection) -> None:
        # Flags count only as the very first message; then previews say whom they belong to.
        await connection.send(_FLAGS)
        self._heard()
        self._connected.set()
        log_in(self._server, "ws open")
        hearing = _Hearing()
        async for message in connection:
            self._heard()
            if isinstance(message, bytes):
                self._take_binary(message, hearing)
            else:
                self._take_text(message, hearing)

    def _heard(self) -> None:
        self._last_message = asyncio.get_running_loop().time()

    def _take_text(self, message: str, hearing: _Hearing) -> None:
        try:
            answer = mapping(parse_json(message))
        except NonsenseError:
            return  # a hint that cannot be read is no hint; polling goes on
        kind, data = text(answer.get("type")), mapping(answer.get("data"))
        prompt_id = text(data.get("prompt_id"))
        if kind == "executing" and "prompt_id" not in data:
            prompt_id = self._only_one_running()  # what a reconnect is told (scenario 21)
        tracker = self._trackers.get(prompt_id)
        if tracker is None:
            return  # a foreign prompt's progress is sent to everybody
        if kind in {"executing", "progress"}:
            hearing.prompt_id = prompt_id
        tracker.apply(kind, data)

    def _only_one_running(self) -> str:
        running = [t.prompt_id for t in self._trackers.values() if not t.ended]
        return running[0] if len(running) == 1 else ""

    def _take_binary(self, frame: bytes, hearing: _Hearing) -> None:
        if len(frame) < 8 or len(frame) > _LARGEST_PREVIEW:  # noqa: PLR2004 - two u32
            return
        event, second = struct.unpack(">II", frame[:8])
        if event == _PREVIEW and second in _IMAGE_FORMATS:
            prompt_id, image = hearing.prompt_id, frame[8:]
        elif event == _PREVIEW_WITH_METADATA and second <= len(frame) - 8:
            try:
                about = mapping(parse_json(frame[8 : 8 + second]))
            except NonsenseError:
                return
            prompt_id, image = text(about.get("prompt_id")), frame[8 + second :]
        else:
            return  # event 3 is text for the web page; others are unknown
        if image and (tracker := self._trackers.get(prompt_id)):
            tracker.show_preview(image)
