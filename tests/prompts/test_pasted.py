"""Requests from files and pasted texts: whatever it is, a request or one clear refusal."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from stablequeue.errors import BadRequest, NotFound, QueueError, UnreadableFile
from stablequeue.prompts.pasted import LARGEST_TEXT, request_from_file, request_from_text
from stablequeue.request import GenerationRequest, Mode
from stablequeue.storage import reencode
from tests.support.drawing import Drawing

RECORDINGS = Path(__file__).parents[1] / "recordings" / "infotext"
INFOTEXT = (RECORDINGS / "parameters_a1111.txt").read_text(encoding="utf-8")
GRAPH: dict[str, Any] = json.loads((RECORDINGS / "comfy_prompt.json").read_text(encoding="utf-8"))


def png(path: Path, **texts: str) -> Path:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name, text)
    Image.new("RGB", (24, 16), (9, 90, 9)).save(path, "PNG", pnginfo=info)
    return path


def test_a_picture_and_its_infotext_make_the_same_request(tmp_path: Path) -> None:
    picture = png(tmp_path / "a.png", parameters=INFOTEXT)
    text = tmp_path / "a.txt"
    text.write_text(INFOTEXT, encoding="utf-8")
    wanted = request_from_text(INFOTEXT)
    assert wanted[0].seed == 123456789
    assert request_from_file(picture) == wanted
    assert request_from_file(text) == wanted


@pytest.mark.parametrize("form", ["webp", "jpeg"])
def test_a_picture_encoded_anew_makes_the_same_request(tmp_path: Path, form: Any) -> None:
    for texts in ({"parameters": INFOTEXT}, {"prompt": json.dumps(GRAPH)}):
        picture = png(tmp_path / "a.png", **texts)
        reencode(picture, tmp_path / "b", format=form)
        assert request_from_file(tmp_path / "b") == request_from_file(picture)


def test_a_comfyui_picture_makes_a_workflow(tmp_path: Path) -> None:
    picture = png(tmp_path / "a.png", prompt=json.dumps(GRAPH), workflow='{"nodes": []}')
    request, notes = request_from_file(picture)
    assert request.mode is Mode.WORKFLOW
    assert request.workflow == GRAPH
    assert notes == []


def test_a_graph_goes_before_an_infotext_beside_it(tmp_path: Path) -> None:
    picture = png(tmp_path / "a.png", prompt=json.dumps(GRAPH), parameters=INFOTEXT)
    request, notes = request_from_file(picture)
    assert request.mode is Mode.WORKFLOW
    assert notes == ["a.png also has an infotext; its ComfyUI workflow is used"]


def test_our_own_pictures_make_the_request_they_were_made_by(tmp_path: Path) -> None:
    first = GenerationRequest(
        prompt="a cat", checkpoint="m", seed=40, count=3, server="gpu-a", tags=["x"], steps=7
    )
    own = {"job": "j", "index": 2, "seed": 42, "request": first.dumped()}
    picture = png(tmp_path / "a.png", prompt=json.dumps(GRAPH), stablequeue=json.dumps(own))
    request, notes = request_from_file(picture)
    assert request == GenerationRequest(prompt="a cat", checkpoint="m", seed=42, steps=7)
    assert notes == []


def test_a_picture_cannot_ask_for_files_or_servers(tmp_path: Path) -> None:
    own = {
        "request": {
            "mode": "img2img",
            "prompt": "a cat",
            "init_image": "/etc/passwd",
            "server": "gpu-a",
            "tier": "interactive",
            "source": "me",
        }
    }
    request, notes = request_from_file(png(tmp_path / "a.png", stablequeue=json.dumps(own)))
    assert request == GenerationRequest(prompt="a cat")
    assert notes == ["it was made from another picture, which it does not carry"]


@pytest.mark.parametrize(
    "own",
    [
        {"request": {"mode": ["img2img"]}},
        {"request": {"no_such_field": 1}},
        {"request": {"schema_version": 99}},
        {"request": {"prompt": "a", "steps": 3}, "seed": -9},
    ],
)
def test_a_forged_request_is_refused(tmp_path: Path, own: dict[str, Any]) -> None:
    with pytest.raises(BadRequest):
        request_from_file(png(tmp_path / "a.png", stablequeue=json.dumps(own)))


def test_an_enlarged_picture_is_refused_with_advice(tmp_path: Path) -> None:
    own = {"request": {"mode": "upscale", "init_image": "x"}}
    with pytest.raises(UnreadableFile, match="enlarging"):
        request_from_file(png(tmp_path / "a.png", stablequeue=json.dumps(own)))


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_graph_may_be_pasted_as_text(wrapped: bool) -> None:
    text = json.dumps({"prompt": GRAPH, "client_id": "x"} if wrapped else GRAPH)
    assert request_from_text(text)[0].workflow == GRAPH


def test_a_request_may_be_pasted_as_json() -> None:
    request, notes = request_from_text('{"prompt": "a cat", "steps": 5, "server": "gpu-a"}')
    assert request == GenerationRequest(prompt="a cat", steps=5, server="gpu-a")
    assert notes == []
    with pytest.raises(BadRequest, match="stepz"):
        request_from_text('{"prompt": "a cat", "stepz": 5}')


def test_a_workflow_as_the_editor_saves_it_is_run_as_it_is(tmp_path: Path) -> None:
    drawing = Drawing()
    entry = {"name": "vae.safetensors", "url": "https://x.example/v", "directory": "vae"}
    drawing.node("VAELoader", "vae.safetensors", properties={"models": [entry]})
    drawing.node("LoadImage", "photo.png", "image")
    drawing.node("LoadImage", "muted.png", "image", mode=2)
    workflow = drawing.workflow()
    text = json.dumps(workflow)
    wanted = request_from_text(text)
    assert (wanted[0].mode, wanted[0].workflow) == (Mode.WORKFLOW, workflow)
    assert wanted[0].sections.comfyui is None, "it is in the request once"
    assert wanted[1] == [
        "the workflow loads 'photo.png', which must be on the server",
        "the workflow says where to fetch vae.safetensors",
    ]
    assert request_from_file(png(tmp_path / "a.png", workflow=text)) == wanted


def test_a_damaged_workflow_of_the_editors_is_refused_saying_what_is_wrong(tmp_path: Path) -> None:
    for text, words in (
        ('{"nodes": [], "links": []}', "no nodes"),
        ('{"nodes": [{"id": 7}], "links": []}', "node 7 has no type"),
    ):
        with pytest.raises(BadRequest, match=words):
            request_from_text(text)
        with pytest.raises(BadRequest, match=words):
            request_from_file(png(tmp_path / "a.png", workflow=text))


def test_words_alone_are_a_prompt() -> None:
    assert request_from_text("a cat\non a roof")[0] == GenerationRequest(prompt="a cat\non a roof")


@pytest.mark.parametrize("text", ["", " \n\t"])
def test_no_text_is_refused(text: str) -> None:
    with pytest.raises(UnreadableFile):
        request_from_text(text)


def test_a_picture_that_says_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"a\.png says nothing"):
        request_from_file(png(tmp_path / "a.png"))


def test_other_files_are_refused(tmp_path: Path) -> None:
    video = tmp_path / "a.mp4"
    video.write_bytes(b"\0\0\0\x18ftypisom\0\0\0\0")
    with pytest.raises(UnreadableFile, match="video/mp4"):
        request_from_file(video)
    with pytest.raises(NotFound):
        request_from_file(tmp_path / "none.png")
    large = tmp_path / "large.txt"
    large.write_bytes(b"a" * (LARGEST_TEXT + 1))
    with pytest.raises(UnreadableFile, match="larger than"):
        request_from_file(large)
    odd = tmp_path / "odd.txt"
    odd.write_bytes(b"a" * 600_000 + b"\xff\xff")
    with pytest.raises(BadRequest, match="UTF-8"):
        request_from_file(odd)


@pytest.mark.parametrize("depth", [100, 900, 100_000])
def test_a_graph_nested_deeply_is_a_request_or_a_refusal(tmp_path: Path, depth: int) -> None:
    deep = '{"1": {"class_type": "X", "inputs": {"a": ' + "[" * depth + "]" * depth + "}}}"
    picture = png(tmp_path / "a.png", prompt=deep)
    for use in (lambda: request_from_file(picture), lambda: request_from_text(deep)):
        try:
            request, _ = use()
        except QueueError:
            assert depth > 100
        else:
            assert len(json.dumps(request.dumped())) > depth


def damaged(whole: bytes, rng: random.Random) -> bytes:
    data = bytearray(whole)
    for _ in range(rng.randint(1, 5)):
        place = rng.randrange(len(data))
        match rng.randrange(3):
            case 0:
                data[place] = rng.randrange(256)
            case 1:
                del data[place : place + rng.randint(1, 40)]
            case _:
                data[place:place] = rng.randbytes(rng.randint(1, 12))
    return bytes(data[: rng.randint(1, len(data))] if rng.random() < 0.2 else data)


def test_five_hundred_damaged_files_give_a_request_or_one_error(tmp_path: Path) -> None:
    rng = random.Random(20261121)
    for form in ("webp", "jpeg"):
        reencode(png(tmp_path / "a.png", parameters=INFOTEXT), tmp_path / form, format=form)
    sources = [
        png(tmp_path / "infotext.png", parameters=INFOTEXT).read_bytes(),
        png(tmp_path / "graph.png", prompt=json.dumps(GRAPH)).read_bytes(),
        (tmp_path / "webp").read_bytes(),
        (tmp_path / "jpeg").read_bytes(),
        json.dumps(GRAPH).encode(),
        INFOTEXT.encode(),
    ]
    path = tmp_path / "damaged"
    refusals: list[str] = []
    for number in range(500):
        path.write_bytes(damaged(sources[number % len(sources)], rng))
        try:
            request_from_file(path)
        except QueueError as error:
            refusals.append(str(error))
    assert 50 < len(refusals) < 450
    assert not any("\n" in refusal for refusal in refusals)


def test_a_cut_off_picture_still_tells_what_stands_before_the_cut(tmp_path: Path) -> None:
    whole = png(tmp_path / "a.png", parameters=INFOTEXT).read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(whole[: whole.index(b"IDAT")])
    assert request_from_file(cut) == request_from_text(INFOTEXT)
