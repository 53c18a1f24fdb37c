"""`/sdapi/v1`: generating, upscaling, progress, stopping."""

import asyncio
from typing import Any

from PIL import Image
from starlette.requests import Request
from starlette.responses import Response

from stablequeue.sandbox.faults import FaultKind
from stablequeue.sandbox.forge.answers import Failure, Refusal, answer, no_content, read_model
from stablequeue.sandbox.forge.generation import Generation
from stablequeue.sandbox.forge.names import upscaler_names
from stablequeue.sandbox.forge.payloads import (
    AnyPayload,
    ExtrasBatchPayload,
    ExtrasPayload,
    ExtrasSinglePayload,
    Img2ImgPayload,
    InterrogatePayload,
    PngInfoPayload,
    Txt2ImgPayload,
    echo,
)
from stablequeue.sandbox.forge.pictures import decode, embedded_text, encode, to_base64
from stablequeue.sandbox.forge.pnginfo import parameters_of
from stablequeue.sandbox.forge.scripts import check_scripts
from stablequeue.sandbox.forge.server import PROTOCOL, ForgeServer, out_of_memory

_MOST_UPSCALED = 64_000_000
_LAST_ANSWERS_S = 0.3
_SCAN_S, _SCAN_PIXELS = 0.4, 256 * 256


async def txt2img(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/txt2img`."""
    payload = await read_model(request, Txt2ImgPayload)
    check_scripts(payload)
    return await _generate(server, payload, None)


async def img2img(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/img2img`."""
    payload = await read_model(request, Img2ImgPayload)
    if payload.init_images is None:
        raise Refusal(404, "Init image not found")
    mask = decode(payload.mask) if payload.mask else None
    check_scripts(payload)
    return await _generate(server, payload, mask)


async def _generate(server: ForgeServer, payload: AnyPayload, mask: Image.Image | None) -> Response:
    kind = "txt2img" if isinstance(payload, Txt2ImgPayload) else "img2img"
    task = payload.force_task_id or server.tasks.new_id(kind)
    server.state.note("forge.post", kind=kind, task=task)
    server.tasks.add(task)
    async with server.lock:
        # Decoding happens here, after the wait; a task whose pictures are bad stays pending.
        encoded: list[Any] = []
        if isinstance(payload, Img2ImgPayload):
            encoded = payload.init_images or []
        start = [await asyncio.to_thread(decode, text) for text in encoded]
        server.job.begin(f"scripts_{kind}")
        server.tasks.start(task)
        try:
            result = await Generation(server, payload, task, start, mask).run()
            server.tasks.finish(task)
        except (Failure, Refusal) as error:
            server.state.note("forge.failed", task=task, error=str(error))
            raise
        finally:
            server.job.end()
    images: list[str] = []
    if payload.send_images:
        # The option is read now, not when the job began: somebody may have changed it.
        form = server.options.text("samples_format") or "png"
        for shot in result.shots:
            raw = await asyncio.to_thread(encode, shot.picture, form, shot.infotext)
            images.append(to_base64(raw))
    parameters = echo(payload, forge=server.settings.is_forge)
    return answer({"images": images, "parameters": parameters, "info": result.info})


async def extra_single_image(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/extra-single-image`; takes the job lock."""
    payload = await read_model(request, ExtrasSinglePayload)
    picture = decode(payload.image)
    async with server.lock:
        html, image = await _upscale(server, payload, picture)
    return answer({"html_info": html, "image": image})


async def extra_batch_images(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/extra-batch-images`; takes the job lock."""
    payload = await read_model(request, ExtrasBatchPayload)
    pictures = [decode(file.data) for file in payload.imageList]
    async with server.lock:
        done = [await _upscale(server, payload, picture) for picture in pictures]
    html = done[-1][0] if done else ""
    return answer({"html_info": html, "images": [image for _, image in done]})


async def _upscale(
    server: ForgeServer, payload: ExtrasPayload, picture: Image.Image
) -> tuple[str, str]:
    known = upscaler_names(server.shelf)
    for name in (payload.upscaler_1, payload.upscaler_2):
        if name not in known:
            raise Failure("AssertionError", f"could not find upscaler named {name}")
    infotext, _ = await _read_text(server, picture)
    if payload.upscaler_1 == "None":
        size, told = picture.size, ""
    elif payload.resize_mode == 1:
        size = (payload.upscaling_resize_w, payload.upscaling_resize_h)
        told = f"Postprocess upscale to: {size[0]}x{size[1]}"
    else:
        factor = payload.upscaling_resize
        told = f"Postprocess upscale by: {factor}"
        try:
            size = (int(picture.width * factor), int(picture.height * factor))
        except (OverflowError, ValueError) as error:
            raise Failure(type(error).__name__, str(error)) from error
    if size[0] * size[1] > _MOST_UPSCALED:
        raise out_of_memory(f"Tried to allocate for {size[0]}x{size[1]}.")
    if min(size) < 1:
        raise Failure("ValueError", "height and width must be > 0")
    raw = await asyncio.to_thread(_enlarged, picture, size, infotext)
    line = f"<p>{told}, Postprocess upscaler: {payload.upscaler_1}</p>" if told else "<p></p>"
    return line, to_base64(raw)


def _enlarged(picture: Image.Image, size: tuple[int, int], infotext: str) -> bytes:
    return encode(picture.convert("RGB").resize(size), "png", infotext)


async def _read_text(server: ForgeServer, picture: Image.Image) -> tuple[str, dict[str, Any]]:
    """Read a picture's text; without any, every pixel of an RGB one is looked at, slowly."""
    infotext, items = embedded_text(picture)
    if not infotext and picture.mode == "RGB" and server.settings.stealth_scan:
        pixels = picture.width * picture.height
        await asyncio.sleep(_SCAN_S * (pixels / _SCAN_PIXELS) ** 2)
    return infotext, items


async def png_info(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/png-info`."""
    payload = await read_model(request, PngInfoPayload)
    picture = decode(payload.image.strip())
    infotext, items = await _read_text(server, picture)
    parameters = parameters_of(infotext, server.shelf.alias_of_hash) if infotext else {}
    return answer({"info": infotext, "items": items, "parameters": parameters})


async def interrogate(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/interrogate`: only the names of models are known here."""
    payload = await read_model(request, InterrogatePayload)
    if not payload.image:
        raise Refusal(404, "Image not found")
    decode(payload.image)
    if payload.model not in {"clip", "deepdanbooru"}:
        raise Refusal(404, "Model not found")
    async with server.lock:
        return answer({"caption": "a test card"})


async def progress(server: ForgeServer, request: Request) -> Response:
    """Answer `GET /sdapi/v1/progress`: the server's one state, whoever's job it is."""
    job, options = server.job, server.options
    skip = request.query_params.get("skip_current_image", "false").lower()
    if skip not in _BOOLEANS:
        raise Refusal(422, [_not_boolean(skip)])
    if job.job_count == 0:
        fraction, eta = 0.0, 0.0
    else:
        fraction = job.fraction(0.01)
        eta = job.elapsed() / fraction - job.elapsed()
    if job.job_count != 0 and options["live_previews_enable"]:
        job.refresh_preview(options.whole("show_progress_every_n_steps", 10))
    image = None if _BOOLEANS[skip] or job.job_count == 0 else job.preview("png")
    return answer(
        {
            "progress": fraction,
            "eta_relative": eta,
            "state": job.to_json(),
            "current_image": image,
            "textinfo": job.textinfo,
        }
    )


_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on", "t", "y"), True),
    **dict.fromkeys(("false", "0", "no", "off", "f", "n"), False),
}


def _not_boolean(value: str) -> dict[str, Any]:
    return {
        "type": "bool_parsing",
        "loc": ["query", "skip_current_image"],
        "msg": "Input should be a valid boolean, unable to interpret input",
        "input": value,
        "url": "https://errors.pydantic.dev/2.8/v/bool_parsing",
    }


async def interrupt(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/interrupt`: hits whatever runs now, or marks the idle state."""
    del request
    place = "POST /sdapi/v1/interrupt"
    lost = server.state.faults.take(FaultKind.LOSE_INTERRUPT, place, PROTOCOL)
    server.state.note("forge.interrupt", current=server.tasks.current, lost=bool(lost))
    if not lost:
        server.job.interrupted = True
    return answer({})


async def skip(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/skip`: ends the present iteration."""
    del request
    server.state.note("forge.skip", current=server.tasks.current)
    server.job.skipped = True
    return no_content()


async def server_stop(server: ForgeServer, request: Request) -> Response:
    """Answer `POST /sdapi/v1/server-stop`: what runs and waits is still done and answered.

    Then HTTP closes. (The real process stays alive with its memory; ours ends.)
    """
    del request
    if not server.stopping.is_set():
        server.stopping.set()
        _background(server, _end_when_idle(server))
    return answer("Stopping.")


async def _end_when_idle(server: ForgeServer) -> None:
    # Taking the lock means to wait behind every job that waits now.
    async with server.lock:
        await asyncio.sleep(_LAST_ANSWERS_S)
    await server.state.die()


async def server_kill(server: ForgeServer, request: Request) -> Response:
    """Act out `POST /sdapi/v1/server-kill`: gone at once, without an answer."""
    del request
    await server.state.die()
    return no_content()


_running: set[asyncio.Task[None]] = set()


def _background(server: ForgeServer, work: Any) -> None:
    task: asyncio.Task[None] = asyncio.ensure_future(work)
    _running.add(task)
    task.add_done_callback(_running.discard)
    server.state.note("forge.stopping")
