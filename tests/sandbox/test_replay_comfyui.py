"""Every recorded exchange of a real ComfyUI 0.3.64, sent to the sandbox."""

import asyncio
import base64
import contextlib
import json
import os
import re
from collections.abc import AsyncGenerator, Generator
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets
from PIL import Image

from stablequeue.sandbox import GraphicsCard, Sandbox, SandboxConfig, serve_sandbox
from tests.sandbox.comparing import JSON
from tests.sandbox.replaying import RECORDINGS, Player, load, picture, recorded_models

pytestmark = pytest.mark.skipif(
    os.name == "nt", reason="recorded on Linux: colons and backslashes in file names"
)

PLAYED: dict[str, JSON] = {
    "00-get-endpoints": {},
    "01-example-workflow-run": {},
    "10-txt2img-basic": {"step_seconds": 0.05},
    "11-cached-rerun": {},
    "12-previews": {"previews": "latent2rgb"},
    "14-ordering-front-number": {"step_seconds": 0.15},
    "15-prompt-ids": {"step_seconds": 0.1},
    "17-queue-delete-clear": {"step_seconds": 0.15},
    "18-interrupt": {"step_seconds": 0.05},
    "19-errors-validation": {},
    "20-errors-runtime": {},
    "21-ws-drop-reconnect": {"step_seconds": 0.05},
    "22-server-killed": {"step_seconds": 0.05},
    "23-upload": {"previews": "latent2rgb", "max_upload_bytes": 1_048_576},
    "24-view": {},
    "25-history-ops": {"step_seconds": 0.1},
    "26-output-kinds": {"previews": "latent2rgb"},
    "31-reverse-proxy-auth": {},
    "33-second-instance-temp": {},
}
"""Played as they are, with the set-up of the sandbox."""

PLAYED_BY_HAND = {
    "32-stuck-client": "test_one_stuck_reader_silences_everybody",
    "34-ws-misc": "test_an_idle_socket_hears_nothing_but_answers",
}
"""Notes rather than exchanges: each has a test of its own that does what they tell."""

_NO_ENCODER = "needs a video encoder; the sandbox lacks the node class and says so (400)"
_PROXY = "answered by the proxy in front of the recorded server"
LEFT_OUT: dict[str, dict[str, str]] = {
    "00-get-endpoints": {'"/extensions"': "scripts of the editor's pages, which are not here"},
    "26-output-kinds": {
        "57309731-0ada-48ed-9a98-69ed09681cf1": _NO_ENCODER,
        "10467e56-af8b-447a-8a48-259239b00f71": _NO_ENCODER,
        ".webm": _NO_ENCODER,
        ".mp4": _NO_ENCODER,
    },
    "31-reverse-proxy-auth": {'"/system_stats"': _PROXY, "ws without credentials": _PROXY},
}
"""Per recording, what is left out (a text in the event) and why."""

_REFUSED: JSON = {
    "kind": "http",
    "method": "POST",
    "path": "/prompt",
    "request_body": {"prompt": {}},
    "status": 400,
    "response": "...",
}


def test_every_recording_is_played() -> None:
    recordings = {file.stem for file in RECORDINGS.glob("*.json")}
    assert recordings == set(PLAYED) | set(PLAYED_BY_HAND)
    assert set(LEFT_OUT) <= set(PLAYED)
    assert all(test in globals() for test in PLAYED_BY_HAND.values())


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_is_left_out_is_in_the_recording(name: str) -> None:
    told = json.dumps(load(name), ensure_ascii=False)
    assert [text for text in LEFT_OUT[name] if text not in told] == []


@contextlib.contextmanager
def _sandbox(home: Path, **options: Any) -> Generator[Sandbox]:
    card, models = GraphicsCard(name="cpu"), recorded_models()
    with serve_sandbox("comfyui", home=home, models=models, card=card, **options) as sandbox:
        yield sandbox


@pytest.mark.parametrize("name", PLAYED)
async def test_the_sandbox_answers_as_recorded(name: str, tmp_path: Path) -> None:
    with _sandbox(tmp_path, **PLAYED[name]) as sandbox:
        _furnish(name, sandbox)
        races = [f"race{number}" for number in range(6)]
        await Player(sandbox, _repaired(name), on_note=_on_note, races=races).play()


def _furnish(name: str, sandbox: Sandbox) -> None:
    """Put on disk what was on the recorded server's."""
    base = sandbox.config.home / "comfyui"
    if name == "20-errors-runtime":
        (base / "input" / "broken.png").write_bytes(b"no picture")
        for kind in ("checkpoints", "loras"):
            sandbox.config.models.add(kind, "broken.safetensors", broken=True)
    if name == "23-upload":
        (base / "main.py").touch()
        (base / "input" / "..%2Fx.png").touch()  # of an earlier attempt of the recorder


def _repaired(name: str) -> list[JSON]:
    """Return a recording's events, with what the recorder got wrong put right."""
    events = _kept(name)
    if name == "01-example-workflow-run":
        # the body was kept by reference, and its seed raised before it was written down
        first = next(e for e in events if e.get("path") == "/prompt")
        first["request_body"]["prompt"]["3"]["inputs"]["seed"] = 1
    if name == "15-prompt-ids":
        # whether the second run is over when its id is asked for is chance
        asked = [e for e in events if e.get("path") == "/history/dup"]
        asked[1]["loose"] = True
    if name == "18-interrupt":
        return _with_repeated_run_named_apart(events)
    if name == "21-ws-drop-reconnect":
        late = next(i for i, e in enumerate(events) if "ws[late]" in e.get("text", ""))
        events.insert(late, {"kind": "note", "text": "5: wait until it is over"})
    if name == "23-upload":
        posts = [e for e in events if "main.py" in str(e.get("request_body"))]
        posts[0]["request_body"]["prompt"]["1"]["inputs"]["image"] = "nope.png"  # by reference
    if name == "26-output-kinds":
        failing = next(e for e in events if "../../bad" in str(e.get("request_body")))
        prompt = failing["request_body"]["prompt"]
        prompt["9"] = prompt.pop("9")  # the recorded server happened to take the other one first
    return events


def _kept(name: str) -> list[JSON]:
    """Return the events that are played; a prompt left out takes its number all the same."""
    kept: list[JSON] = []
    inside = False  # between a prompt left out and its end, status messages are its own
    for event in load(name):
        told = json.dumps(event)
        if not any(text in told for text in LEFT_OUT.get(name, {})):
            if not inside or event["kind"] != "ws":
                kept.append(event)
        elif event.get("path") == "/prompt":
            kept.append(_REFUSED)
            inside = True
        elif '"node": null' in told:
            inside = False
    return kept


def _with_repeated_run_named_apart(events: list[JSON]) -> list[JSON]:
    """Treat the second run of i1 as left to chance: a broken interrupt may hit it or not."""
    notes = [e.get("text", "") for e in events]
    start = next(i for i, note in enumerate(notes) if note.startswith("resubmit"))
    asked = next(i for i, e in enumerate(events) if i > start and e.get("method") == "GET")
    return [
        json.loads(json.dumps(e).replace('"i1"', '"race5"')) if i > start and i != asked else e
        for i, e in enumerate(events)
    ]


async def _on_note(player: Player, event: JSON) -> None:
    """Do what the recorder did beside its requests."""
    sandbox, note = player.sandbox, str(event["text"])
    if note.startswith("output file removed"):
        (sandbox.config.home / "comfyui/output/cache/b_00001_.png").unlink()
    elif note.startswith("SIG"):
        await asyncio.to_thread(sandbox.stop)
    elif note == "process gone; starting again":
        await asyncio.to_thread(sandbox.start)
    elif re.match(r"\d-|--- SIG|\d: ", note):
        await player.until_idle()
        if not re.match(r"[12567]: ", note):  # the other parts begin with sockets of their own
            await player.close_sockets()
    elif found := re.match(r"(A\d) (.*)closed by client", note):
        await player.sockets[found[1]].close()
    elif note.startswith("second process up"):
        other = SandboxConfig(home=sandbox.config.home)
        with Sandbox(other):
            pass
    elif "first" in event:
        url = f"{player.ws_url}/ws?clientId=p1"
        async with websockets.connect(url, additional_headers=_credentials(note)) as socket:
            assert json.loads(await socket.recv()) == event["first"]
    elif "handshake_status" in event:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await websockets.connect(f"{player.ws_url}/ws", origin="http://evil.example")  # type: ignore[arg-type]
        assert refused.value.response.status_code == event["handshake_status"]


def _credentials(note: str) -> dict[str, str]:
    return {"Authorization": "Bearer tok" if "bearer" in note else "Basic dTpw"}


@contextlib.asynccontextmanager
async def _raw_socket(
    sandbox: Sandbox, client_id: str
) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a WebSocket by hand and read nothing but the handshake."""
    reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port, limit=2**16)
    key = base64.b64encode(os.urandom(16)).decode()
    writer.write(
        f"GET /ws?clientId={client_id} HTTP/1.1\r\nHost: 127.0.0.1:{sandbox.port}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n".encode()
    )
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def test_one_stuck_reader_silences_everybody(tmp_path: Path) -> None:
    """Recording 32."""
    events = load("32-stuck-client")
    posts = [e["request_body"] for e in events if e.get("path") == "/prompt"]
    with _sandbox(tmp_path) as sandbox:
        noise = Image.effect_noise((1024, 1024), 90).convert("RGB")
        noise.save(tmp_path / "comfyui" / "input" / "noise.png")
        heard: list[str] = []

        async def listen(socket: Any) -> None:
            async for message in socket:
                heard.append(json.loads(message)["type"])  # noqa: PERF401 - read while it grows

        async def filed(prompt_id: str) -> None:
            async with asyncio.timeout(30):
                while not (await http.get(f"/history/{prompt_id}")).json():  # noqa: ASYNC110
                    await asyncio.sleep(0.02)

        url = sandbox.url.replace("http", "ws") + "/ws?clientId=good"
        async with (
            httpx.AsyncClient(base_url=sandbox.url) as http,
            websockets.connect(url) as good,
        ):
            task = asyncio.create_task(listen(good))
            async with _raw_socket(sandbox, "stuck") as (reader, _):
                await reader.readuntil(b"\r\n\r\n")
                await http.post("/prompt", json=posts[0])
                await filed("s1")
                del heard[:]
                await http.post("/prompt", json=posts[1])
                await filed("s2")
                assert "execution_start" not in heard
            async with asyncio.timeout(10):
                while "execution_success" not in heard or heard[-1] != "executing":  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            task.cancel()
        told = events[-1]["text"]
        recorded = re.findall(r"'(\w+)'", told)
        start = recorded.index("execution_start")
        assert heard[heard.index("execution_start") :] == recorded[start:]


async def test_an_idle_socket_hears_nothing_but_answers(tmp_path: Path) -> None:
    """Recording 34, with less than its 41 s of silence."""
    events = load("34-ws-misc")
    recorded = events[0]["head"].lower()
    with _sandbox(tmp_path) as sandbox:
        async with _raw_socket(sandbox, "idle") as (reader, writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            for line in recorded.split("\r\n")[:3]:
                assert line.split(" ")[:2] == _line(head, line).split(" ")[:2]
            assert "sec-websocket-extensions: permessage-deflate" in head
            first = await reader.readexactly(2)
            assert first[0] == 0xC1, "a compressed text"
            await reader.readexactly(first[1])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(reader.read(1), 1.0)
            writer.write(b"\x89\x80\x00\x00\x00\x00")
            assert await reader.readexactly(2) == bytes.fromhex(events[-1]["hex"])


def _line(head: str, like: str) -> str:
    name = like.partition(" ")[0]
    return next(line for line in head.split("\r\n") if line.startswith(name))


def test_pictures_of_uploads_differ_by_their_recorded_size() -> None:
    assert picture(152) == picture(152) != picture(153)
