"""What is kept of a model that has just come: its record, its sidecars, its preview."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from stablequeue.models.arriving import fetch_preview, record, write_sidecars
from stablequeue.models.folders import Root
from stablequeue.models.identities import identify
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from stablequeue.models.sources import Access, Offer
from stablequeue.models.sources.network import Reach
from tests.fakes.model_files import safetensors
from tests.fakes.serving import serve

ACCESS = Access(source="civitai", reach=Reach(("127.0.0.1",), loopback=True))


def offer(**version: Any) -> Offer:
    told = {"id": 600, "modelId": 500, "trainedWords": ["tok"], "baseModel": "SDXL 1.0", **version}
    return Offer(
        source="civitai", ident="x", url="x", name="a.safetensors", facts={"version": told}
    )


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "loras" / "a.safetensors"
    path.parent.mkdir()
    path.write_bytes(safetensors(3000))
    return path


def png() -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 4)).save(data, "PNG")
    return data.getvalue()


@pytest.fixture(scope="module")
def pictures() -> Iterator[str]:
    async def picture(request: Request) -> Response:
        match request.path_params["name"]:
            case "good.jpeg":
                return Response(png(), media_type="image/jpeg")  # says one thing, is another
            case "page.jpeg":
                return Response("<html>", media_type="text/html")
            case "away.jpeg":
                return RedirectResponse("http://evil.example/x.jpeg")
            case _:
                return Response(status_code=404)

    with serve(Starlette(routes=[Route("/{name}", picture)])) as url:
        yield url


def test_what_the_source_tells_stands_beside_and_a_persons_text_stays(model: Path) -> None:
    mine = model.with_suffix(".json")
    mine.write_text(json.dumps({"activation text": "mine", "notes": "my notes"}))
    write_sidecars(model, offer(), "ab" * 32)
    kept = json.loads(mine.read_text())
    assert (kept["activation text"], kept["notes"]) == ("mine", "my notes")
    assert kept["sha256"] == "AB" * 32
    assert json.loads(model.with_suffix(".civitai.info").read_text())["id"] == 600


def test_a_sidecar_nobody_can_read_is_left_as_it_is_and_fails_nothing(model: Path) -> None:
    broken = model.with_suffix(".json")
    broken.write_text("{not json")
    write_sidecars(model, offer(), "")
    assert broken.read_text() == "{not json"


async def test_a_preview_is_really_what_its_name_says(model: Path, pictures: str) -> None:
    videos = [{"url": f"{pictures}/x.mp4", "type": "video"}]
    found = offer(images=[*videos, {"url": f"{pictures}/good.jpeg", "type": "image"}])
    await fetch_preview(model, found, ACCESS)
    assert model.with_suffix(".preview.png").read_bytes() == png()
    assert not model.with_suffix(".preview.jpeg").exists()


@pytest.mark.parametrize("name", ["page.jpeg", "away.jpeg", "none.jpeg"])
async def test_a_preview_that_is_no_picture_is_none(model: Path, pictures: str, name: str) -> None:
    await fetch_preview(model, offer(images=[{"url": f"{pictures}/{name}"}]), ACCESS)
    assert [one.name for one in model.parent.iterdir()] == [model.name]


@pytest.mark.parametrize("url", ["https://evil.example/x.png", "not a url", "file:///etc/passwd"])
async def test_a_preview_elsewhere_is_not_gone_for(model: Path, url: str) -> None:
    await fetch_preview(model, offer(images=[{"url": url}, 5, "x"]), ACCESS)
    assert [one.name for one in model.parent.iterdir()] == [model.name]


async def test_a_picture_that_somebody_chose_stays(model: Path, pictures: str) -> None:
    chosen = model.with_suffix(".png")
    chosen.write_bytes(png())
    await fetch_preview(model, offer(images=[{"url": f"{pictures}/good.jpeg"}]), ACCESS)
    assert not model.with_suffix(".preview.png").exists()


def test_the_library_knows_it_by_all_its_hashes_and_hashes_nothing_else(
    model: Path, tmp_path: Path
) -> None:
    other = model.with_name("other.safetensors")
    other.write_bytes(safetensors(4000, seed=2))
    library = Library(tmp_path)
    record(library, [Root(model.parent, ModelType.LORA, "")], model)
    files = {one.path: one for one in library.files()}
    library.close()
    assert files[model].sha256 == identify(model).sha256
    assert files[model].blake3
    assert files[other].sha256 == ""
