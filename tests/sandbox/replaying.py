"""Plays a recording of a real ComfyUI against a sandbox and says where they differ.

A recording is a list of events in time. Requests are sent in their order; before each one the
messages that had come before it in the recording must have come here too (`_MILESTONES`). Notes
that describe an act of the recorder (`ws[A] connected ...`, `SIGKILL sent ...`) are done again.
Compared are status, content type and body of every answer, and for each socket and prompt the
whole sequence of messages.
"""

import asyncio
import io
import json
import re
import urllib.parse
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import httpx
import websockets

from stablequeue.sandbox import ModelFile, ModelShelf, Sandbox
from stablequeue.sandbox.painter import Card, paint
from tests.sandbox.comparing import (
    JSON,
    Comparison,
    Difference,
    by_prompt,
    heard_message,
    is_object,
    recorded_message,
    shortened,
)

RECORDINGS = Path(__file__).parents[1] / "recordings" / "comfyui_replay"
_WAIT_S = 15.0
_POLL_S = 0.02
_IDLE = {"exec_info": {"queue_remaining": 0}}
_MILESTONES = {
    "executing", "execution_start", "execution_cached", "executed", "execution_success",
    "execution_error", "execution_interrupted", "feature_flags", "progress",
}  # fmt: skip


def load(name: str) -> list[JSON]:
    """Return the events of a recording."""
    events: list[JSON] = json.loads((RECORDINGS / f"{name}.json").read_text("utf-8"))["events"]
    return events


def recorded_models() -> ModelShelf:
    """Return the model files the recorded server had."""
    tiny = {"modelspec.title": "random tiny", "format": "pt"}
    lora = {
        "ss_network_dim": "4",
        "ss_base_model_version": "sd_1.5",
        "ss_output_name": "tiny-random-lora",
    }
    return ModelShelf(
        [
            ModelFile(kind="checkpoints", name="tiny-random-sd15.safetensors", metadata=tiny),
            ModelFile(kind="checkpoints", name="sub dir/full-random-sd15.safetensors"),
            ModelFile(kind="loras", name="style/tiny-random-lora.safetensors", metadata=lora),
            ModelFile(kind="embeddings", name="tiny-emb.safetensors"),
        ]
    )


class Player:
    """Plays one recording.

    Attributes:
        on_note: Awaited with each note that is no act of a socket.
        races: Prompt ids whose end is left to chance in the recording.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        events: list[JSON],
        *,
        on_note: "Callable[[Player, JSON], Awaitable[None]]",
        races: Iterable[str] = (),
    ) -> None:
        self.sandbox, self.events = sandbox, events
        self.on_note, self.races = on_note, set(races)
        self.http = httpx.AsyncClient(base_url=sandbox.url, timeout=30)
        self.sockets: dict[str, websockets.ClientConnection] = {}
        self._heard: dict[str, list[JSON]] = defaultdict(list)
        self._readers: list[asyncio.Task[None]] = []
        self._comparison = Comparison()
        self._news = asyncio.Event()
        self._note = ""
        self._answered: dict[str, httpx.Headers] = {}
        self._posted = {e["response"]["prompt_id"] for e in events if _queues(e)}

    async def play(self) -> None:
        """Play everything, then compare what the sockets heard.

        Raises:
            Difference: The sandbox does something else than the recorded server.
        """
        try:
            await self._prepare()
            expected: list[JSON] = []
            for event in self.events:
                if event["kind"] == "ws":
                    expected.append(event)
                    continue
                await self._until_heard(expected)
                if event["kind"] == "note":
                    await self._act(event)
                else:
                    await self._exchange(event)
            await self._until_heard(expected)
            await self.until_idle()
            await asyncio.sleep(0.05)  # messages that are too many get a moment to come
            self._compare_sockets(expected)
        finally:
            for reader in self._readers:
                reader.cancel()
            await self.close_sockets()
            await self.http.aclose()

    async def _prepare(self) -> None:
        """Bring cache and counter to where the recording starts, by ordinary requests."""
        first = next(filter(_queues, self.events), None)
        if first is None:
            return
        told = [e["msg"] for e in self.events if e["kind"] == "ws" and "msg" in e]
        lists = (m["data"]["nodes"] for m in told if m["type"] == "execution_cached")
        cached: list[str] = next(lists, list[str]())
        if cached:
            await self._warm_up(first["request_body"]["prompt"], cached)
        before = [e for e in self.events[: self.events.index(first)] if _takes_number(e)]
        for _ in range(first["response"]["number"] - len(before) - (1 if cached else 0)):
            refused = await self.http.post("/prompt", json={})
            assert refused.status_code == 400

    async def _warm_up(self, prompt: JSON, cached: list[str]) -> None:
        """Run a prompt that leaves exactly the nodes `cached` in the cache."""
        other: JSON = json.loads(json.dumps(prompt))
        for node_id, node in other.items():
            for name in ("seed", "width", "filename_prefix", "color"):
                if node_id in cached or name not in node["inputs"]:
                    continue
                value = node["inputs"][name]
                node["inputs"][name] = f"warm/{value}" if isinstance(value, str) else value + 1
        await self.http.post("/prompt", json={"prompt": other})
        await self.until_idle()
        await asyncio.sleep(0.05)  # its last message must not reach the first socket

    # acts of the recorder

    async def _act(self, event: JSON) -> None:
        text: str = event["text"]
        if found := re.match(r"ws\[(.+)\] connected (\S+)$", text):
            await self.connect(found[1], found[2])
        elif found := re.match(r"ws\[(.+)\] sent$", text):
            await self.sockets[found[1]].send(json.dumps(event["sent"]))
        elif text.startswith('sent {"type":"hello"}'):
            name = list(self.sockets)[-1]
            await self.sockets[name].send('{"type":"hello"}')
            await self.sockets[name].send(json.dumps(event["sent"]))
        else:
            self._note = text
            await self.on_note(self, event)

    @property
    def ws_url(self) -> str:
        """The base URL for sockets."""
        return self.sandbox.url.replace("http", "ws", 1)

    async def connect(self, name: str, path: str) -> None:
        """Open a socket under the name the recording gives it, and hear its first message."""
        socket = await websockets.connect(self.ws_url + path, max_size=None)
        self.sockets[name] = socket
        self._readers.append(asyncio.create_task(self._listen(name, socket)))
        async with asyncio.timeout(_WAIT_S):
            while not self._heard[name]:
                self._news.clear()
                await self._news.wait()

    async def until_idle(self) -> None:
        """Wait until nothing runs or waits on the server."""
        async with asyncio.timeout(_WAIT_S):
            while (await self.http.get("/prompt")).json() != _IDLE:  # noqa: ASYNC110 - a server
                await asyncio.sleep(_POLL_S)

    async def close_sockets(self) -> None:
        """Close every socket."""
        for socket in self.sockets.values():
            await socket.close()

    async def _listen(self, name: str, socket: websockets.ClientConnection) -> None:
        try:
            async for message in socket:
                self._heard[name].append(heard_message(message))
                self._news.set()
        except websockets.ConnectionClosed:
            pass
        self._heard[name].append({"closed": socket.close_code})
        self._news.set()

    # requests

    async def _exchange(self, event: JSON) -> None:
        where = f"{event['method']} {event['path']}"
        if "exception" in event:
            try:
                await self.http.request(event["method"], event["path"])
            except httpx.ConnectError:
                return
            raise Difference(f"{where} is answered, the recorded server was gone")
        response = await self.http.request(
            event["method"], self._path(event), headers=self._headers(event), **self._content(event)
        )
        if event["path"].startswith("/history/") and event["response"]:
            response = await self._until_filed(response)
        self._answered[event["path"]] = response.headers
        if response.status_code != event["status"]:
            status = f"{response.status_code} instead of {event['status']}"
            raise Difference(f"{where}: {status}: {response.text[:300]}")
        self._compare_headers(where, event, response)
        if event["method"] != "HEAD":
            self._compare_body(where, event, response)

    async def _until_filed(self, response: httpx.Response) -> httpx.Response:
        """Ask again until there is an entry, as the recorder did."""
        async with asyncio.timeout(_WAIT_S):
            while response.json() == {}:
                await asyncio.sleep(_POLL_S)
                response = await self.http.send(response.request)
        return response

    def _path(self, event: JSON) -> str:
        """Return the path with this run's file names and ids."""
        path, _, query = event["path"].partition("?")
        parts = [self._comparison.own(part) for part in path.split("/")]
        pairs = urllib.parse.parse_qsl(query, keep_blank_values=True)
        swapped = [(key, self._renamed(value)) for key, value in pairs]
        return "/".join(parts) + (f"?{urllib.parse.urlencode(swapped)}" if query else "")

    def _renamed(self, value: str) -> str:
        bare, bracket, kind = value.partition(" [")
        return self._comparison.own(bare) + bracket + kind

    def _headers(self, event: JSON) -> dict[str, str]:
        """Return the recorded headers, those that quote an earlier answer quoting ours."""
        told: JSON = dict(event.get("request_headers", {}))
        earlier = self._answered.get(event["path"], httpx.Headers())
        for name, source in (("If-None-Match", "etag"), ("If-Modified-Since", "last-modified")):
            if name in told:
                told[name] = earlier[source]
        own = f"127.0.0.1:{self.sandbox.port}"
        return {name: value.replace("127.0.0.1:8188", own) for name, value in told.items()}

    def _content(self, event: JSON) -> JSON:
        """Return the recorded body as httpx takes it."""
        body = event.get("request_body")
        if body is None:
            return {}
        if isinstance(body, str):
            return {"content": body.encode()}
        if is_object(body) and set(body) == {"multipart"}:
            return {"files": _files(body["multipart"], quoted="percent-encoded" in self._note)}
        if is_object(body) and "client_id" in body:
            body = body | {"client_id": self._own_sid(body["client_id"])}
        return {"content": json.dumps(body).encode()}

    def _own_sid(self, recorded: str) -> str:
        """Return the id the server gave to the socket that had `recorded` there."""
        for event in self.events:
            sid = event.get("msg", {}).get("data", {}).get("sid")
            if sid == recorded and self._heard[event["conn"]]:
                return self._heard[event["conn"]][0]["data"]["sid"]
        return recorded

    def _compare_headers(self, where: str, event: JSON, response: httpx.Response) -> None:
        told: dict[str, str] = event.get("headers", {})
        for name, value in told.items():
            mine = response.headers.get(name)
            if where == "GET /" and name != "Content-Type":
                continue  # a file there, a text here
            if name in {"Etag", "Content-Range", "Content-Disposition"}:
                equal = mine is not None
            elif value == "text/html":
                equal = mine is not None and mine.startswith(value)
            else:
                equal = mine == value
            if not equal:
                raise Difference(f"{where}: header {name} is {mine!r} instead of {value!r}")

    def _compare_body(self, where: str, event: JSON, response: httpx.Response) -> None:
        told: Any = event["response"]
        path: str = event["path"]
        if told == "..." or where == "GET /":
            return
        if isinstance(told, str):
            limit = str(self.sandbox.config.max_upload_bytes)
            if response.text != told.replace("104857600", limit):
                raise Difference(f"{where}: {response.text!r} instead of {told!r}")
        elif is_object(told) and "head_hex" in told:
            start = 8 if ".latent" in path else 0  # a length stands before its header
            mine, theirs = response.content[start : start + 4].hex(), told["head_hex"][2 * start :]
            if not mine or not theirs.startswith(mine):
                raise Difference(f"{where}: begins with {mine} instead of {theirs}")
        elif path.rsplit("/", 1)[-1] in self.races or event.get("loose"):
            keys = [list(entry) for entry in told.values()]
            if [list(entry) for entry in response.json().values()] != keys:
                raise Difference(f"{where}: {response.text[:200]}")
        elif path.startswith("/history?") and not self._posted.issuperset(told):
            return  # it lists what earlier recordings left on that server
        else:
            self._comparison.values(where, told, shortened(told, response.json()))

    # sockets

    async def _until_heard(self, expected: list[JSON]) -> None:
        """Wait until every milestone of `expected` has come."""
        try:
            async with asyncio.timeout(_WAIT_S):
                while self._missing(expected):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            last = {name: [str(m)[:160] for m in told[-6:]] for name, told in self._heard.items()}
            missing = self._missing(expected)[:3]
            raise Difference(f"never heard {missing}; last heard {last}") from None

    def _missing(self, expected: list[JSON]) -> list[tuple[Any, ...]]:
        wanted = [k for e in expected if (k := self._key(e["conn"], recorded_message(e)))]
        for name, messages in self._heard.items():
            for message in messages:
                if (key := self._key(name, message)) in wanted:
                    wanted.remove(key)
        return wanted

    def _key(self, conn: str, message: JSON) -> tuple[Any, ...] | None:
        if "closed" in message:
            return (conn, "closed")
        if message.get("type") not in _MILESTONES:
            return None
        data: JSON = message["data"]
        prompt_id, node = data.get("prompt_id"), data.get("node")
        if prompt_id in self.races and (message["type"] != "executing" or node):
            return None
        own = prompt_id and self._comparison.own(prompt_id)
        return (conn, message["type"], own, node)

    def _compare_sockets(self, expected: list[JSON]) -> None:
        told: dict[str, list[JSON]] = defaultdict(list)
        for event in expected:
            told[event["conn"]].append(recorded_message(event))
        for conn, messages in told.items():
            mine = by_prompt(self._heard[conn])
            for prompt_id, sequence in by_prompt(messages).items():
                if prompt_id in self.races:
                    continue
                own_id = prompt_id if prompt_id is None else self._comparison.own(prompt_id)
                where = f"ws[{conn}] {prompt_id!r}"
                self._comparison.sequences(where, sequence, mine.get(own_id, []))


def _queues(event: JSON) -> bool:
    """Say whether an event is a prompt that was queued."""
    return _takes_number(event) and event["status"] == 200


def _takes_number(event: JSON) -> bool:
    return (
        event["kind"] == "http"
        and event["method"] == "POST"
        and event["path"].endswith("/prompt")
        and isinstance(event.get("request_body"), dict)
    )


def _files(fields: dict[str, str], *, quoted: bool) -> list[tuple[str, Any]]:
    """Rebuild an upload; the recording tells a file's size, which stands for its content."""
    files: list[tuple[str, Any]] = []
    for name, value in fields.items():
        found = re.fullmatch(r"<(\d+) bytes, filename='(.*)', (\S+)>", value)
        if not found:
            files.append((name, (None, value.encode())))
            continue
        filename = found[2].replace("\\\\", "\\")
        filename = urllib.parse.quote(filename) if quoted else filename
        size, kind = int(found[1]), found[3]
        content = picture(size) if kind == "image/png" else b"hello"[:size]
        files.append((name, (filename, content, kind)))
    return files


def picture(variant: int) -> bytes:
    """Return a small PNG with transparency, another one for each number; nothing for 0."""
    if not variant:
        return b""
    if variant > 1_000_000:  # the one that is too large; limits here are a hundredth
        return bytes(variant // 100)
    buffer = io.BytesIO()
    card = paint(Card(prompt=str(variant), width=32, height=32)).convert("RGBA")
    card.putalpha(128)
    card.save(buffer, "PNG")
    return buffer.getvalue()
