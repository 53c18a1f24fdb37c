"""Handing a job over: once, whatever the answer."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stablequeue.engines.base import Located, Ticket
from stablequeue.engines.comfyui import ComfyUI, submission
from stablequeue.errors import (
    EngineAuthFailed,
    EngineError,
    EngineUnreachable,
    JobRejected,
    ModelMissing,
    ProtocolError,
    Unsupported,
)
from tests.engines.comfyui.conftest import config
from tests.engines.comfyui.jobs import PICTURE, job, request, resolution
from tests.engines.comfyui.recordings import recorded, rejection_of
from tests.engines.comfyui.scripted import Call, CutShort, Scripted

pytestmark = pytest.mark.usefixtures("fast")


def broken_but_queued(server: Scripted, answer: Response) -> Any:
    """Queue the prompt, and answer something else: a 500 after it, or half an answer."""

    def reply(call: Call) -> Response:
        server.accept(call.json)
        return answer

    return reply


async def test_a_ticket_is_pure_and_says_where_its_files_will_be(
    engine: ComfyUI, server: Scripted
) -> None:
    made = job()
    ticket = engine.ticket(made)
    assert ticket == engine.ticket(made)
    assert UUID(ticket.remote_id) == made.key
    assert ticket.data["folder"].startswith("stablequeue/20")
    assert ticket.data["folder"].endswith(f"/{made.key}")
    assert ticket.data["models"] == ["sub dir/full-random-sd15.safetensors"]
    assert json.loads(json.dumps(ticket.to_json())) == ticket.to_json()
    assert not server.calls


async def test_a_job_is_posted_under_its_own_id_to_an_open_socket(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = await engine.submit(engine.ticket(job()), job())
    (posted,) = server.posted()
    assert posted["prompt_id"] == ticket.remote_id == str(job().key)
    assert posted["client_id"] in server.sockets
    assert ticket.data["client_id"] == posted["client_id"]
    assert await engine.locate(ticket) is Located.QUEUED


async def test_the_first_message_of_a_socket_is_its_flags(
    engine: ComfyUI, server: Scripted
) -> None:
    await engine.submit(engine.ticket(job()), job())
    assert server.said_first == [
        {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    ]


async def test_what_is_embedded_is_the_users_and_a_small_note_of_ours(
    engine: ComfyUI, server: Scripted
) -> None:
    section: dict[str, Any] = {
        "extra_pnginfo": {"workflow": {"nodes": []}},
        "preview_method": "auto",
    }
    made = job(request(sections={"comfyui": section}), index=1)
    await engine.submit(engine.ticket(made), made)
    (posted,) = server.posted()
    assert posted["extra_data"] == {
        "preview_method": "auto",
        "extra_pnginfo": {
            "workflow": {"nodes": []},
            "stablequeue": {"job": made.job_id, "index": 1, "attempt": 1, "seed": 7},
        },
    }


async def test_pictures_are_uploaded_under_their_hash(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    picture, mask = tmp_path / "bïld 1.png", tmp_path / "mask.png"
    Image.new("RGB", (80, 40), "red").save(picture)
    Image.new("L", (8, 8), 255).save(mask)
    made = job(
        request(mode="inpaint", init_image=PICTURE, mask_image=PICTURE),
        inputs={"init_image": picture, "mask_image": mask},
    )
    await engine.submit(engine.ticket(made), made)
    name = f"{hashlib.sha256(picture.read_bytes()).hexdigest()}.png"
    assert server.uploads[name] == picture.read_bytes()
    (other,) = set(server.uploads) - {name}
    images = [
        n["inputs"]["image"]
        for n in server.posted()[0]["prompt"].values()
        if n["class_type"] == "LoadImage"
    ]
    assert images == [name, other]


async def test_the_name_the_server_gave_a_picture_is_used(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    answer = JSONResponse({"name": "pic (1).png", "subfolder": "jobs\\42", "type": "input"})
    server.script("POST /upload/image", answer)
    made = job(
        request(mode="img2img", init_image=PICTURE), inputs={"init_image": tmp_path / "a.png"}
    )
    await engine.submit(engine.ticket(made), made)
    graph = server.posted()[0]["prompt"]
    assert "jobs\\42/pic (1).png" in [n["inputs"].get("image") for n in graph.values()]


async def test_a_picture_too_large_for_the_server_is_refused(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    server.always("POST /upload/image", Response(status_code=413))
    made = job(
        request(mode="img2img", init_image=PICTURE), inputs={"init_image": tmp_path / "a.png"}
    )
    with pytest.raises(JobRejected, match="max-upload-size"):
        await engine.submit(engine.ticket(made), made)


async def test_a_picture_larger_than_the_server_says_it_takes_is_not_even_sent(
    engine: ComfyUI, server: Scripted, tmp_path: Path
) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    server.always("GET /features", JSONResponse({"max_upload_size": 10}))
    made = job(
        request(mode="img2img", init_image=PICTURE), inputs={"init_image": tmp_path / "a.png"}
    )
    with pytest.raises(JobRejected, match="max-upload-size"):
        await engine.submit(engine.ticket(made), made)
    assert server.count("POST /upload/image") == 0


async def test_an_upscaled_picture_must_not_exceed_the_servers_limit(
    engine: ComfyUI, tmp_path: Path
) -> None:
    Image.new("L", (4000, 8)).save(tmp_path / "a.png")
    asked = request(mode="upscale", init_image=PICTURE, upscale={"scale": 8})
    made = job(asked, resolution(), inputs={"init_image": tmp_path / "a.png"})
    with pytest.raises(Unsupported, match="32000"):
        await engine.submit(engine.ticket(made), made)


@pytest.mark.parametrize(
    "answer",
    [
        PlainTextResponse("500 Internal Server Error\n\nServer got itself in trouble", 500),
        Response(status_code=502),
        CutShort(),
        PlainTextResponse("<html>ok</html>"),
        JSONResponse({"number": 1}),
    ],
)
async def test_a_job_that_was_taken_in_spite_of_its_answer_is_followed_not_sent_again(
    engine: ComfyUI, server: Scripted, answer: Response
) -> None:
    server.script("POST /prompt", broken_but_queued(server, answer))
    ticket = await engine.submit(engine.ticket(job()), job())
    assert await engine.locate(ticket) is Located.QUEUED
    assert len(server.posted()) == 1


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (PlainTextResponse("Server got itself in trouble", 500), JobRejected),
        (Response(status_code=502), EngineUnreachable),
        (CutShort(), EngineUnreachable),
        (PlainTextResponse("<html>ok</html>"), ProtocolError),
        (Response(status_code=413), JobRejected),
        (Response(status_code=401), EngineAuthFailed),
        (Response(status_code=404), ProtocolError),
        (PlainTextResponse("what?", 400), JobRejected),
    ],
)
async def test_a_job_that_was_not_taken_is_never_sent_twice(
    engine: ComfyUI, server: Scripted, answer: Response, error: type[EngineError]
) -> None:
    server.always("POST /prompt", answer)
    with pytest.raises(error) as refusal:
        await engine.submit(engine.ticket(job()), job())
    assert type(refusal.value) is error
    assert len(server.posted()) == 1


async def test_a_reply_that_never_comes_is_settled_by_looking(server: Scripted) -> None:
    gone = asyncio.Event()

    async def never(call: Call) -> Response:
        server.accept(call.json)
        await gone.wait()
        return Response()

    server.script("POST /prompt", never)
    async with ComfyUI(config(server, read_timeout_s=0.3)) as engine:
        ticket = await engine.submit(engine.ticket(job()), job())
    gone.set()
    assert ticket.remote_id == str(job().key)
    assert len(server.posted()) == 1


async def test_asking_again_with_the_same_ticket_looks_and_does_not_send(
    engine: ComfyUI, server: Scripted
) -> None:
    ticket = engine.ticket(job())
    first = await engine.submit(ticket, job())
    second = await engine.submit(ticket, job())
    assert first.remote_id == second.remote_id
    assert len(server.posted()) == 1


async def test_a_server_that_is_not_there_did_not_get_the_job() -> None:
    nowhere = Scripted(url="http://127.0.0.1:9")
    async with ComfyUI(config(nowhere, connect_timeout_s=1)) as engine:
        with pytest.raises(EngineUnreachable) as refusal:
            await engine.submit(engine.ticket(job()), job())
    assert refusal.value.retryable


async def test_a_server_that_died_with_the_answer_is_left_in_doubt_to_be_looked_at_later(
    engine: ComfyUI, server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submission, "_ASK_FOR_S", 0.2)
    server.script("POST /prompt", CutShort())
    server.always("GET /queue", Response(status_code=503))
    ticket = await engine.submit(engine.ticket(job()), job())
    assert ticket.remote_id == str(job().key)
    assert len(server.posted()) == 1


async def test_an_old_server_that_chooses_its_own_id_is_followed_by_that(
    engine: ComfyUI, server: Scripted
) -> None:
    def own(call: Call) -> Response:
        return server.accept({**call.json, "prompt_id": "its-own"})

    server.script("POST /prompt", own)
    ticket = await engine.submit(engine.ticket(job()), job())
    assert ticket.remote_id == "its-own"
    assert await engine.locate(ticket) is Located.QUEUED


async def test_a_partial_acceptance_is_taken_back_and_refused(
    engine: ComfyUI, server: Scripted
) -> None:
    recorded_answer = next(e for e in recorded("rejections") if e["status"] == 200)["response"]

    def partly(call: Call) -> Response:
        server.accept(call.json)
        server.run(call.json["prompt_id"])
        return JSONResponse({**recorded_answer, "prompt_id": call.json["prompt_id"]})

    server.script("POST /prompt", partly)
    with pytest.raises(JobRejected):
        await engine.submit(engine.ticket(job()), job())
    assert not server.running
    (interrupt,) = [c.json for c in server.calls if c.path == "/interrupt"]
    assert interrupt == {"prompt_id": str(job().key)}


async def test_a_missing_model_in_the_servers_answer_is_told_apart(
    engine: ComfyUI, server: Scripted
) -> None:
    _, answer = rejection_of("")
    answer = next(e["response"] for e in recorded("rejections") if "nope.safe" in str(e))
    server.always("POST /prompt", JSONResponse(answer, 400))
    with pytest.raises(ModelMissing):
        await engine.submit(engine.ticket(job()), job())


async def test_a_number_json_cannot_say_is_refused_before_sending(
    engine: ComfyUI, server: Scripted
) -> None:
    workflow = {"1": {"class_type": "SaveImage", "inputs": {"x": float("nan")}}}
    made = job(request(mode="workflow", workflow=workflow), resolution())
    with pytest.raises(JobRejected, match="JSON"):
        await engine.submit(engine.ticket(made), made)
    assert not server.posted()


async def test_credentials_and_path_prefix_are_on_every_request_and_the_handshake() -> None:
    from tests.engines.comfyui.scripted import serve  # noqa: PLC0415

    async with serve(Scripted(), prefix="/gpu/one") as server:
        for fields, expected in (
            ({"token": "s3cret"}, "Bearer s3cret"),
            ({"username": "u", "password": "p"}, "Basic dTpw"),
        ):
            async with ComfyUI(config(server, **fields)) as engine:
                made = job(job_id=str(fields))
                ticket = await engine.submit(engine.ticket(made), made)
                assert ticket.data["client_id"] in server.opened
            sent = [*server.calls, *server.handshake_headers]
            headers = [c.headers if isinstance(c, Call) else c for c in sent]
            assert {h.get("authorization") for h in headers} == {expected}
            assert not [h for h in headers if "origin" in h], "ComfyUI answers 403 to an Origin"
            assert "s3cret" not in str(ticket.to_json())
            server.calls.clear()
            server.handshake_headers.clear()


async def test_a_refused_handshake_is_not_repeated_and_polling_does(
    engine: ComfyUI, server: Scripted
) -> None:
    server.refuse_sockets = True
    ticket: Ticket = await engine.submit(engine.ticket(job()), job())
    server.run(ticket.remote_id)
    server.finish(ticket.remote_id)
    assert [p.phase.value async for p in engine.observe(ticket)] == ["done"]
    assert len(server.handshake_headers) == 1
