"""Whatever a server answers, the engine answers with an error of ours, and in time."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.responses import JSONResponse, Response

from stablequeue.engines.base import Ticket
from stablequeue.engines.comfyui import ComfyUI, following, freeing, submission
from stablequeue.errors import QueueError
from tests.engines.comfyui.conftest import config
from tests.engines.comfyui.jobs import job, request
from tests.engines.comfyui.recordings import recorded
from tests.engines.comfyui.scripted import Scripted, serve

WORKFLOW = recorded("txt2img")["request"]["prompt"]
ID = str(job().key)
PATHS = [
    "GET /system_stats",
    "GET /features",
    "GET /prompt",
    "GET /api/jobs",
    "GET /embeddings",
    "GET /queue",
    f"GET /history/{ID}",
    "GET /view",
    "GET /object_info/CheckpointLoaderSimple",
    "GET /object_info/KSampler",
    "POST /prompt",
    "POST /queue",
    "POST /interrupt",
    "POST /free",
]
KEYS = [
    *("queue_running", "queue_pending", "prompt_id", "number", "node_errors", "error", "system"),
    *(
        "devices",
        "exec_info",
        "queue_remaining",
        "prompt",
        "outputs",
        "status",
        "messages",
        "input",
    ),
    *("required", "ckpt_name", "sampler_name", "filename", "images", "KSampler", ID),
]
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(ID),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner),
    max_leaves=12,
)
answers = st.tuples(
    st.sampled_from(PATHS),
    st.sampled_from([200, 200, 200, 200, 204, 302, 400, 401, 404, 413, 429, 500, 503]),
    st.binary(max_size=40) | values.map(lambda value: value),
)


def response(status: int, body: Any) -> Response:
    if isinstance(body, bytes):
        return Response(body, status)
    try:
        return JSONResponse(body, status)
    except ValueError:  # infinities: ComfyUI's own JSON can say them, Starlette's cannot
        return Response(b"[NaN, Infinity, -1e999]", status)


async def everything(engine: ComfyUI, spool: Path) -> None:
    """Call every method once; only our own errors are survived."""
    ticket = engine.ticket(job())
    stored = Ticket.from_json(ticket.to_json())

    async def observe() -> None:
        async for _ in engine.observe(stored):
            pass

    calls: list[Callable[[], Awaitable[Any]]] = [
        engine.probe,
        engine.inventory,
        lambda: engine.resolve(request(checkpoint="tiny")),
        lambda: engine.resolve(request(mode="workflow", workflow=WORKFLOW)),
        lambda: engine.submit(ticket, job()),
        lambda: engine.locate(ticket),
        lambda: engine.collect(stored, spool),
        lambda: engine.cancel(ticket),
        engine.free_memory,
    ]
    for call in calls:
        try:
            await asyncio.wait_for(call(), 10)
        except QueueError as error:
            assert "\n" not in str(error)  # noqa: PT017 - any may fail, none may crash
    observing = asyncio.create_task(observe())
    await asyncio.sleep(0)
    observing.cancel()
    await asyncio.gather(observing, return_exceptions=True)


async def damaged(damage: list[tuple[str, int, Any]]) -> None:
    async with serve(Scripted()) as server:
        for path, status, body in damage:
            server.always(path, response(status, body))
        # What is accepted ends at once, so that waiting for its end is no hang.
        accept = server.accept

        def and_finish(body: Any) -> Response:
            answer = accept(body)
            server.finish(body["prompt_id"])
            return answer

        server.accept = and_finish
        with tempfile.TemporaryDirectory() as folder:
            async with ComfyUI(config(server)) as engine:
                await everything(engine, Path(folder))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeing, "PATIENCE_S", 0.01)
    for name, value in (
        ("POLL_S", 0.01),
        ("POLL_WITHOUT_PUSH_S", 0.01),
        ("TWICE_S", 0.001),
        ("PATIENCE_S", 0.1),
    ):
        monkeypatch.setattr(following, name, value)
    monkeypatch.setattr(submission, "_ASK_FOR_S", 0.05)


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("impatient")
@settings(
    max_examples=70,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(answers, min_size=1, max_size=3))
def test_damaged_answers_give_an_error_of_ours_and_no_hang(
    damage: list[tuple[str, int, Any]],
) -> None:
    asyncio.run(damaged(damage))


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    "path",
    [
        "GET /system_stats",
        "GET /queue",
        f"GET /history/{ID}",
        "GET /object_info/KSampler",
        "POST /prompt",
    ],
)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"queue_running": [[]], "queue_pending": [[1, 2, 3]]}',
        b"1" + b"0" * 5000,
        b'{"system": {"comfyui_version": "'
        + b"9" * 5000
        + b'"}, "devices": [{"vram_total": 1e400}]}',
        b"null",
    ],
    ids=["empty", "deep", "no text", "odd queue", "long number", "long version", "null"],
)
def test_what_is_known_to_break_readers_breaks_nothing(path: str, body: bytes) -> None:
    asyncio.run(damaged([(path, 200, body)]))


async def test_a_server_that_sends_one_byte_at_a_time_does_not_hold_us() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        try:
            while True:
                writer.write(b" ")
                await writer.drain()
                await asyncio.sleep(0.02)
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    fields = {"connect_timeout_s": 0.1, "read_timeout_s": 0.1}
    async with server, ComfyUI(config(Scripted(url=url), **fields)) as engine:
        with pytest.raises(QueueError, match="no whole answer"):
            await asyncio.wait_for(engine.probe(), 5)
