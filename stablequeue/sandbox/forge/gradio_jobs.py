"""What Gradio's functions do: a list of positional values in, a list of values out.

Positions come from the recorded server (137 inputs of `txt2img`); every extension shifts them on
a real one. A generation that fails is told as success with an empty gallery.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from pydantic import ValidationError

from stablequeue.sandbox.forge.answers import Failure, Refusal
from stablequeue.sandbox.forge.facts import rows
from stablequeue.sandbox.forge.generation import Generation, Result, Shot
from stablequeue.sandbox.forge.payloads import Txt2ImgPayload
from stablequeue.sandbox.forge.pictures import encode
from stablequeue.sandbox.forge.server import ForgeServer

_REMEMBERED = 2
_SAME = "Use same "

# Field of the API's payload for each component that has one.
_FIELDS = {
    "txt2img_prompt": "prompt",
    "txt2img_neg_prompt": "negative_prompt",
    "txt2img_styles": "styles",
    "txt2img_batch_count": "n_iter",
    "txt2img_batch_size": "batch_size",
    "txt2img_cfg_scale": "cfg_scale",
    "txt2img_distilled_cfg_scale": "distilled_cfg_scale",
    "txt2img_height": "height",
    "txt2img_width": "width",
    "txt2img_hr-checkbox": "enable_hr",
    "txt2img_denoising_strength": "denoising_strength",
    "txt2img_hr_scale": "hr_scale",
    "txt2img_hr_upscaler": "hr_upscaler",
    "txt2img_hires_steps": "hr_second_pass_steps",
    "txt2img_hr_resize_x": "hr_resize_x",
    "txt2img_hr_resize_y": "hr_resize_y",
    "hr_checkpoint": "hr_checkpoint_name",
    "hr_vae_te": "hr_additional_modules",
    "hr_sampler": "hr_sampler_name",
    "hr_scheduler": "hr_scheduler",
    "hires_prompt": "hr_prompt",
    "hires_neg_prompt": "hr_negative_prompt",
    "txt2img_hr_cfg": "hr_cfg",
    "txt2img_hr_distilled_cfg": "hr_distilled_cfg",
    "txt2img_steps": "steps",
    "txt2img_sampling": "sampler_name",
    "txt2img_scheduler": "scheduler",
    "txt2img_seed": "seed",
}

_UNCHANGED = {"__type__": "update"}


class BadInputs(Exception):
    """Values a function cannot take: told as `success: false` without a reason."""


class GradioJobs:
    """The functions, and what the last two made."""

    def __init__(self, server: ForgeServer) -> None:
        self._server = server
        self._results: deque[tuple[str, list[Any]]] = deque(maxlen=_REMEMBERED)

    async def txt2img(self, values: Sequence[Any], url_of: Callable[[str], str]) -> list[Any]:
        """Generate; the first value is the task's id.

        Raises:
            BadInputs: A value has a wrong type.
        """
        server = self._server
        payload = _payload(values)
        given = values[0] if isinstance(values[0], str) else ""
        task = given if given.startswith("task(") and given.endswith(")") else ""
        if task:
            server.tasks.add(task)
        started = time.monotonic()
        data: list[Any]
        async with server.lock:
            server.job.begin(task)
            if task:
                server.tasks.start(task)
            try:
                result = await Generation(server, payload, task).run()
                data = self._told(result, url_of)
                if task:
                    self._results.append((task, data))
            except (Failure, Refusal) as error:
                data = [[], "", "", _failure(error)]
            finally:
                if task:
                    server.tasks.finish(task)
                server.job.end()
                server.job.skipped = server.job.interrupted = False
        took = time.monotonic() - started
        return [*data[:3], f"{data[3]}{_performance(took)}"]

    def _told(self, result: Result, url_of: Callable[[str], str]) -> list[Any]:
        gallery = [self._item(shot, url_of) for shot in result.shots]
        text = escape(result.infotext, quote=False).replace("\n", "<br>\n")
        return [gallery, result.info, f"<p>{text}</p>", "<p class='comments'></p>"]

    def _item(self, shot: Shot, url_of: Callable[[str], str]) -> dict[str, Any]:
        path = shot.path
        if path is None:
            name = f"tmp{self._server.rng.getrandbits(40):010x}.png"
            raw = encode(shot.picture, "png", shot.infotext)
            path = self._server.files.save_temporary(raw, name)
        image = {
            "path": str(path),
            "url": url_of(str(path)),
            "size": None,
            "orig_name": None,
            "mime_type": None,
            "is_stream": False,
            "meta": {"_type": "gradio.FileData"},
        }
        return {"image": image, "caption": None}

    async def restore_progress(
        self, values: Sequence[Any], url_of: Callable[[str], str]
    ) -> list[Any]:
        """Return the result of one of the last two jobs; waits while it is not there yet."""
        del url_of
        task = values[0]
        tasks = self._server.tasks
        while isinstance(task, str) and (task == tasks.current or task in tasks.pending):
            async with self._server.lock:  # the job that runs now is over then
                pass
        for known, data in self._results:
            if known == task:
                return data
        reason = "results either have been discarded or never were obtained"
        return [*([_UNCHANGED] * 3), f"Couldn't restore progress for {task}: {reason}"]

    async def nothing(self, values: Sequence[Any], url_of: Callable[[str], str]) -> list[Any]:
        """Act as the helpers that hang on the same button: success, and nothing made."""
        del values, url_of
        return [None]


def _payload(values: Sequence[Any]) -> Txt2ImgPayload:
    told: dict[str, Any] = {"save_images": True}
    for row in rows("gradio_inputs"):
        name = _FIELDS.get(row["elem_id"] or "")
        if name:
            value = values[row["i"]]
            is_same = isinstance(value, str) and value.startswith(_SAME)
            told[name] = None if is_same else value
    try:
        return Txt2ImgPayload.model_validate(told)
    except ValidationError as error:
        raise BadInputs from error


def _failure(error: Failure | Refusal) -> str:
    if isinstance(error, Failure):
        told = f"{error.error}: {error.message}"
    else:
        told = f"HTTPException: {error.detail}"
    return f"<div class='error'>{escape(told, quote=False)}</div>"


def _performance(seconds: float) -> str:
    return (
        "<div class='performance'><p class='time'>Time taken: <wbr>"
        f"<span class='measurement'>{seconds:.1f} sec.</span></p></div>"
    )
