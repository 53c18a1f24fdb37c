"""Every node class runs with what it says about itself."""

import io
from collections.abc import Generator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from stablequeue.sandbox import serve_sandbox
from stablequeue.sandbox.comfyui import multipart
from stablequeue.sandbox.comfyui.nodes import NODES
from tests.sandbox.comfyui import Client, how_it_ended
from tests.sandbox.graphs import Graph

JSON = dict[str, Any]
_SOURCES: dict[str, list[Any]] = {
    "MODEL": ["model", 0], "CLIP": ["model", 1], "VAE": ["model", 2],
    "CONDITIONING": ["text", 0], "LATENT": ["latent", 0], "IMAGE": ["image", 0],
    "MASK": ["mask", 0], "UPSCALE_MODEL": ["upscaler", 0], "NOISE": ["noise", 0],
    "GUIDER": ["guider", 0], "SAMPLER": ["sampler", 0], "SIGMAS": ["sigmas", 0],
    "*": ["text", 0],
}  # fmt: skip
_PROVIDERS = {
    "model": "CheckpointLoaderSimple",
    "text": "CLIPTextEncode",
    "latent": "EmptyLatentImage",
    "image": "EmptyImage",
    "mask": "SolidMask",
    "upscaler": "UpscaleModelLoader",
    "noise": "RandomNoise",
    "guider": "BasicGuider",
    "sampler": "KSamplerSelect",
    "sigmas": "BasicScheduler",
}


@pytest.fixture(scope="module")
def client() -> Generator[Client]:
    with serve_sandbox("comfyui") as served, Client(served) as opened:
        yield opened


@pytest.fixture(scope="module")
def described(client: Client) -> JSON:
    return client.get("/object_info").json()


def _inputs(info: JSON, **chosen: Any) -> JSON:
    """Return inputs from the defaults a class tells, small where there is a size."""
    inputs: JSON = {}
    for group in ("required", "optional"):
        for name, spec in info["input"].get(group, {}).items():
            kind = spec[0]
            limits: JSON = spec[1] if len(spec) > 1 else {}
            if isinstance(kind, list):
                inputs[name] = kind[0]
            elif kind in _SOURCES:
                inputs[name] = _SOURCES[kind]
            elif name in {"width", "height"}:
                inputs[name] = 64
            elif name == "steps":
                inputs[name] = 2
            else:
                empty: JSON = {"STRING": "words", "INT": 1, "FLOAT": 1.0, "BOOLEAN": True}
                inputs[name] = limits.get("default", empty[kind])
    return inputs | chosen


def _graph(described: JSON, name: str, **chosen: Any) -> Graph:
    graph: Graph = {
        node_id: {"class_type": kind, "inputs": _inputs(described[kind])}
        for node_id, kind in _PROVIDERS.items()
    }
    info: JSON = described[name]
    graph["it"] = {"class_type": name, "inputs": _inputs(info, **chosen)}
    for index, kind in enumerate(info["output"]):
        link = ["it", index]
        sink, inputs = {
            "IMAGE": ("PreviewImage", {"images": link}),
            "LATENT": ("SaveLatent", {"samples": link, "filename_prefix": "latent"}),
        }.get(kind, ("PreviewAny", {"source": link}))
        graph[f"out{index}"] = {"class_type": sink, "inputs": inputs}
    return graph


@pytest.mark.parametrize("name", sorted(NODES))
def test_a_node_runs_with_its_own_defaults(client: Client, described: JSON, name: str) -> None:
    entry = client.run(_graph(described, name))
    assert how_it_ended(entry) == "execution_success", entry["status"]["messages"][-1]
    if name != "SaveImageWebsocket":
        assert entry["outputs"]


def _made(client: Client, described: JSON, name: str, **chosen: Any) -> Image.Image:
    entry = client.run(_graph(described, name, **chosen))
    assert how_it_ended(entry) == "execution_success", entry["status"]["messages"][-1]
    picture = Image.open(io.BytesIO(client.file(entry, "out0").content))
    picture.load()
    return picture


@pytest.mark.parametrize(
    ("name", "chosen", "size"),
    [
        ("ImageScale", {"width": 0, "height": 32}, (32, 32)),
        ("ImageScale", {"width": 0, "height": 0}, (64, 64)),
        ("ImageScale", {"width": 40, "height": 20, "crop": "center"}, (40, 20)),
        ("ImageScaleBy", {"scale_by": 1.5}, (96, 96)),
        ("ImageScaleToTotalPixels", {"megapixels": 0.01}, (102, 102)),
        ("ImageCrop", {"x": 60, "y": 10, "width": 30, "height": 30}, (4, 30)),
        ("ImagePadForOutpaint", {"left": 8, "top": 16}, (72, 80)),
        ("ImageUpscaleWithModel", {}, (256, 256)),
    ],
)
def test_sizes_come_out_as_asked(
    client: Client, described: JSON, name: str, chosen: JSON, size: tuple[int, int]
) -> None:
    assert _made(client, described, name, **chosen).size == size


def test_sizes_are_rounded_down_to_eights(client: Client, described: JSON) -> None:
    graph = _graph(described, "VAEDecode")
    graph["latent"]["inputs"] |= {"width": 71, "height": 65}
    entry = client.run(graph)
    picture = Image.open(io.BytesIO(client.file(entry, "out0").content))
    assert picture.size == (64, 64)


# httpx itself writes control characters, quotes and percent signs in another way
letters = st.characters(codec="utf-8", min_codepoint=0x20, exclude_characters='%"\x7f')
fields_of_uploads = st.lists(
    st.tuples(st.text(letters, min_size=1), st.none() | st.text(letters), st.binary()),
    max_size=4,
    unique_by=lambda field: field[0],
)


@settings(max_examples=60)
@given(fields=fields_of_uploads)
def test_uploads_are_read_as_httpx_writes_them(fields: list[tuple[str, str | None, bytes]]) -> None:
    files = [(name, (filename, content)) for name, filename, content in fields]
    request = httpx.Request("POST", "http://x/", files=files or [("x", (None, b""))])
    body = request.read()
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    if any(boundary in content for _, _, content in fields):
        return
    parsed = multipart.parse(request.headers["content-type"], body)
    for name, filename, content in fields:
        assert parsed[name].content == content
        assert (parsed[name].filename or None) == (filename or None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=x", b"nothing of it"),
        ("multipart/form-data; boundary=x", b"--x\r\nno end of the headers"),
    ],
)
def test_a_broken_upload_is_refused(kind: str, body: bytes) -> None:
    with pytest.raises(ValueError, match=r"boundary|headers"):
        multipart.parse(kind, body)
