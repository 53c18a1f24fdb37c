"""ComfyUI's WebSockets: who is connected, and who is told what.

The real server's weaknesses are kept, because clients must live with them: one loop sends all
messages and waits for each, so one reader who stops silences everybody ([32]); a second socket
with the same id takes over, and when the first one closes, the second goes silent ([21]).
"""

import asyncio
import io
import json
import struct
import uuid
from typing import Any, cast

from PIL import Image, ImageOps
from starlette.websockets import WebSocket, WebSocketDisconnect

from stablequeue.sandbox.comfyui.nodes.table import Preview

_PREVIEW, _PREVIEW_WITH_METADATA = 1, 4
_FORMATS = {"JPEG": 1, "PNG": 2}
_LARGEST_MESSAGE = 4 * 1024 * 1024
_TOO_BIG = 1009

Message = str | bytes
JSON = dict[str, Any]


class Hub:
    """The open sockets of one server."""

    def __init__(self, features: JSON) -> None:
        self._features = features
        self._sockets: dict[str, WebSocket] = {}
        self._flags: dict[str, JSON] = {}
        self._messages: asyncio.Queue[tuple[Message, str | None]] = asyncio.Queue()
        self.status: JSON = {}
        self.client_id: Any = None
        self.last_node: str | None = None

    def send(self, event: str, data: JSON, sid: Any = None) -> None:
        """Have a message sent to one socket, or to all (None). Never waits."""
        self._messages.put_nowait((json.dumps({"type": event, "data": data}), _known(sid)))

    def send_preview(self, preview: Preview, metadata: JSON) -> None:
        """Have a picture sent with its metadata, to the client of the running prompt."""
        told = metadata | {"image_type": "image/png" if preview.format == "PNG" else "image/jpeg"}
        head = json.dumps(told).encode()
        body = struct.pack(">I", len(head)) + head + _encoded(preview)
        self._put_binary(_PREVIEW_WITH_METADATA, body)

    def send_plain_preview(self, preview: Preview) -> None:
        """Have a picture sent without any word whose it is."""
        body = struct.pack(">I", _FORMATS[preview.format]) + _encoded(preview)
        self._put_binary(_PREVIEW, body)

    def _put_binary(self, event: int, body: bytes) -> None:
        self._messages.put_nowait((struct.pack(">I", event) + body, _known(self.client_id)))

    def tells_metadata(self) -> bool:
        """Say whether the running prompt's client asked for previews with metadata."""
        flags = self._flags.get(str(self.client_id), {})
        return flags.get("supports_preview_metadata") is True

    async def publish(self) -> None:
        """Send what is to be sent, one after the other, for ever."""
        while True:
            message, sid = await self._messages.get()
            if sid is None:
                for socket in list(self._sockets.values()):
                    await _deliver(socket, message)
            elif sid in self._sockets:
                await _deliver(self._sockets[sid], message)

    async def serve(self, socket: WebSocket) -> None:
        """Serve one socket from its handshake to its end."""
        await socket.accept()
        sid = socket.query_params.get("clientId", "") or uuid.uuid4().hex
        self._sockets[sid] = socket
        self._flags[sid] = {}
        try:
            await _deliver(
                socket, json.dumps({"type": "status", "data": {"status": self.status, "sid": sid}})
            )
            if self.client_id == sid and self.last_node is not None:
                told = {"type": "executing", "data": {"node": self.last_node}}
                await _deliver(socket, json.dumps(told))
            await self._listen(socket, sid)
        finally:
            # by id, not by socket: this is what leaves a successor in the dark
            self._sockets.pop(sid, None)
            self._flags.pop(sid, None)

    async def _listen(self, socket: WebSocket, sid: str) -> None:
        first = True
        while True:
            message = await socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            text = message.get("text")
            if len(text or message.get("bytes") or "") > _LARGEST_MESSAGE:
                await socket.close(_TOO_BIG)
                return
            if text is None:
                continue
            told = _parsed(text)
            if told is None:
                continue
            if first and told.get("type") == "feature_flags":
                flags = told.get("data", {})
                self._flags[sid] = cast("JSON", flags) if isinstance(flags, dict) else {}
                answer = {"type": "feature_flags", "data": self._features}
                await _deliver(socket, json.dumps(answer))
            first = False


def _known(sid: Any) -> str | None:
    """Return an id as it is looked up; ids that are no text belong to nobody."""
    if sid is None:
        return None
    return sid if isinstance(sid, str) else f"{uuid.uuid4()}"


def _parsed(text: str) -> JSON | None:
    try:
        told: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return cast("JSON", told) if isinstance(told, dict) else None


async def _deliver(socket: WebSocket, message: Message) -> None:
    try:
        if isinstance(message, str):
            await socket.send_text(message)
        else:
            await socket.send_bytes(message)
    except (WebSocketDisconnect, RuntimeError):
        return  # it has gone; its own task notices


def _encoded(preview: Preview) -> bytes:
    picture = preview.picture
    if preview.longest:
        box = (preview.longest, preview.longest)
        picture = ImageOps.contain(picture, box, Image.Resampling.BILINEAR)
    buffer = io.BytesIO()
    if preview.format == "PNG":
        picture.save(buffer, "PNG", compress_level=1)
    else:
        picture.convert("RGB").save(buffer, "JPEG", quality=95)
    return buffer.getvalue()
