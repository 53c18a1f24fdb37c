"""Whatever is thrown at ComfyUI's half, it answers as the real one would and goes on."""

import asyncio
import contextlib
import json
import math
from collections.abc import Generator
from typing import Any
from urllib.parse import quote

import pytest
import websockets
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from stablequeue.sandbox import Sandbox, serve_sandbox
from tests.sandbox import graphs
from tests.sandbox.comfyui import Client, how_it_ended
from tests.support.waiting import wait_until

EXPECTED = {200, 206, 304, 400, 403, 404, 405, 413, 416, 500}
PATHS = [
    "/", "/prompt", "/queue", "/interrupt", "/history", "/history/x", "/free", "/view",
    "/upload/image", "/upload/mask", "/system_stats", "/features", "/object_info/KSampler",
    "/models", "/models/checkpoints", "/embeddings", "/view_metadata/loras", "/ws",
    "/experiment/models", "/experiment/models/loras", "/internal/files/output", "/api/jobs",
    "/api/jobs/x", "/api/jobs/x/cancel", "/api/jobs/cancel", "/settings", "/nope",
]  # fmt: skip
many = settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
texts = st.text(max_size=20)
json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
keys = st.sampled_from(
    ["prompt", "prompt_id", "client_id", "extra_data", "number", "front", "delete", "clear",
     "partial_execution_targets", "unload_models", "free_memory", "job_ids", "original_ref"]
)  # fmt: skip
bodies = st.one_of(
    st.binary(max_size=200),
    json_values.map(lambda value: json.dumps(value).encode()),
    st.dictionaries(keys, json_values, max_size=4).map(lambda value: json.dumps(value).encode()),
)
queries = st.dictionaries(
    st.sampled_from(["filename", "subfolder", "type", "preview", "channel", "max_items", "offset",
                     "limit", "status", "sort_order"]),
    texts | st.integers().map(str),
    max_size=4,
)  # fmt: skip


@pytest.fixture(scope="module", params=[False, True], ids=["0.3.64", "newer"])
def sandbox(request: pytest.FixtureRequest) -> Generator[Sandbox]:
    with serve_sandbox("comfyui", newer_comfyui=request.param, previews="auto") as served:
        yield served


@pytest.fixture(scope="module")
def client(sandbox: Sandbox) -> Generator[Client]:
    with Client(sandbox) as opened:
        yield opened


def _nothing_runs(client: Client) -> bool:
    """Interrupt what runs; say whether anything did. An interrupt that comes too early is lost."""
    running = client.running()
    for prompt_id in running:
        client.post("/interrupt", json={"prompt_id": prompt_id})
    return not running


def _still_works(client: Client) -> None:
    """Fail if the server or its worker has died."""
    client.post("/queue", json={"clear": True})
    wait_until(lambda: _nothing_runs(client), every_s=0.01, why="what runs is interrupted")
    assert how_it_ended(client.run(graphs.plain())) == "execution_success"


@many
@given(
    method=st.sampled_from(["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"]),
    path=st.sampled_from(PATHS) | texts.map(lambda text: "/" + quote(text)),
    query=queries,
    body=bodies,
    kind=st.sampled_from(["application/json", "multipart/form-data; boundary=x", "text/plain", ""]),
)
def test_no_request_kills_the_server(  # noqa: PLR0917 - hypothesis passes them by name
    client: Client, method: str, path: str, query: dict[str, str], body: bytes, kind: str
) -> None:
    headers = {"Content-Type": kind} if kind else {}
    response = client.request(method, path, params=query, content=body, headers=headers)
    assert response.status_code in EXPECTED
    assert client.get("/prompt").status_code == 200


def _damaged(graph: graphs.Graph, node: str, name: str, value: Any) -> graphs.Graph:
    damaged: graphs.Graph = json.loads(json.dumps(graph))
    if name == "node":
        damaged[node] = value
    elif name in {"class_type", "inputs"}:
        damaged[node][name] = value
    else:
        damaged[node]["inputs"][name] = value
    return damaged


links = st.tuples(st.sampled_from("3456789"), st.integers(-3, 3)).map(list)


@many
@given(
    node=st.sampled_from("3456789"),
    name=st.sampled_from(
        ["node", "class_type", "inputs", "seed", "steps", "cfg", "width", "batch_size", "text",
         "clip", "samples", "images", "filename_prefix", "ckpt_name", "model", "latent_image"]
    ),
    value=json_values | links | st.sampled_from(["SaveImage", "GrowMask", "LoadImage", "../x"]),
)  # fmt: skip
@example(node="8", name="ckpt_name", value=["nobody", 1])  # an input that node does not have
@example(node="8", name="ckpt_name", value=["4", math.inf])
@example(node="8", name="ckpt_name", value=["4", 10**400])
def test_no_damaged_workflow_kills_the_worker(
    client: Client, node: str, name: str, value: Any
) -> None:
    graph = _damaged(graphs.txt2img(steps=1, size=16), node, name, value)
    body = json.dumps({"prompt": graph}).encode()
    assert client.post("/prompt", content=body).status_code in {200, 400, 500}
    _still_works(client)


def test_what_is_interrupted_too_early_does_not_keep_the_worker(client: Client) -> None:
    client.queue(graphs.txt2img(steps=10_000, size=16))
    _still_works(client)


@many
@given(messages=st.lists(st.binary(max_size=50) | texts | json_values.map(json.dumps), max_size=5))
def test_no_message_kills_a_socket(sandbox: Sandbox, messages: list[str | bytes]) -> None:
    async def talk() -> None:
        url = sandbox.url.replace("http", "ws") + "/ws"
        async with websockets.connect(url) as socket:
            assert json.loads(await socket.recv())["type"] == "status"
            for message in messages:
                await socket.send(message)
            await (await socket.ping())

    asyncio.run(talk())


@many
@given(data=st.binary(min_size=1, max_size=300))
def test_no_bytes_kill_the_server(sandbox: Sandbox, client: Client, data: bytes) -> None:
    async def throw() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", sandbox.port)
        writer.write(data)
        writer.write_eof()
        with contextlib.suppress(ConnectionError):
            await asyncio.wait_for(reader.read(), 10)
        writer.close()

    asyncio.run(throw())
    assert client.get("/prompt").status_code == 200


def test_the_server_works_after_all_that(client: Client) -> None:
    _still_works(client)
