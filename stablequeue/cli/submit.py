"""`submit`: queue a job."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from stablequeue.cli import fields
from stablequeue.cli.common import DEFAULTS, Common, put
from stablequeue.errors import BadRequest, NotFound

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.client.submitting import Submitted

_WHERE = Group("Where and when", sort_key=1)
_MODELS = Group("Models", sort_key=2)
_PICTURE = Group("The picture", sort_key=3)
_FROM = Group("From another picture", sort_key=4)
_COMFYUI = Group("ComfyUI workflows", sort_key=5)
_MANY = Group("Many jobs", sort_key=6)
_REST = Group("The rest", sort_key=7)


def submit(
    prompt: Annotated[str | None, Parameter(help="What it shows; - reads it from stdin.")] = None,
    /,
    *,
    server: Annotated[str | None, Parameter(group=_WHERE, help="Alias, or any.")] = None,
    tier: Annotated[
        Literal["interactive", "normal", "bulk"] | None,
        Parameter(group=_WHERE, help="How soon."),
    ] = None,
    tag: Annotated[
        list[str] | None, Parameter(group=_WHERE, help="To find it by; may be repeated.")
    ] = None,
    expires: Annotated[
        str | None,
        Parameter(group=_WHERE, help="Not started by then: dropped, visibly. 2h, or a time."),
    ] = None,
    wait: Annotated[
        bool, Parameter(group=_WHERE, help="Follow it to its end and print the stored files.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        Parameter(group=_MODELS, help="As the server lists it. Empty: what it has loaded."),
    ] = None,
    unet: Annotated[
        str | None, Parameter(group=_MODELS, help="Separate image model (Flux, SD3).")
    ] = None,
    text_encoder: Annotated[
        list[str] | None, Parameter(group=_MODELS, help="Separate text encoder; may be repeated.")
    ] = None,
    vae: Annotated[
        str | None, Parameter(group=_MODELS, help="Empty: the checkpoint's own.")
    ] = None,
    lora: Annotated[
        list[str] | None, Parameter(group=_MODELS, help="NAME or NAME:WEIGHT; may be repeated.")
    ] = None,
    clip_skip: Annotated[
        int | None, Parameter(group=_MODELS, help="Layers of CLIP to leave out.")
    ] = None,
    negative: Annotated[
        str | None, Parameter(group=_PICTURE, help="What it must not show.")
    ] = None,
    size: Annotated[
        str | None, Parameter(group=_PICTURE, help="WIDTHxHEIGHT in pixels, multiples of 8.")
    ] = None,
    steps: Annotated[int | None, Parameter(group=_PICTURE, help="Sampling steps.")] = None,
    cfg: Annotated[float | None, Parameter(group=_PICTURE, help="How closely to obey.")] = None,
    guidance: Annotated[
        float | None, Parameter(group=_PICTURE, help="Distilled guidance (Flux).")
    ] = None,
    sampler: Annotated[
        str | None, Parameter(group=_PICTURE, help="As Forge or as ComfyUI names it.")
    ] = None,
    scheduler: Annotated[
        str | None, Parameter(group=_PICTURE, help="Empty: the sampler's usual one.")
    ] = None,
    seed: Annotated[
        int | None, Parameter(group=_PICTURE, help="-1: a new one, the same on a retry.")
    ] = None,
    count: Annotated[
        int | None, Parameter(group=_PICTURE, help="Pictures, with seeds s, s+1, ...")
    ] = None,
    hires: Annotated[
        float | None, Parameter(group=_PICTURE, help="Second pass, enlarged by this factor.")
    ] = None,
    upscaler: Annotated[
        str | None, Parameter(group=_PICTURE, help="For --hires, or for mode upscale.")
    ] = None,
    mode: Annotated[
        Literal["txt2img", "img2img", "inpaint", "upscale", "workflow"] | None,
        Parameter(group=_PICTURE, help="Empty: what the other options say."),
    ] = None,
    init: Annotated[Path | None, Parameter(group=_FROM, help="Picture to start from.")] = None,
    mask: Annotated[
        Path | None, Parameter(group=_FROM, help="Mask: white is repainted (inpaint).")
    ] = None,
    denoise: Annotated[
        float | None, Parameter(group=_FROM, help="How much of the start picture may change, 0-1.")
    ] = None,
    from_: Annotated[
        str | None,
        Parameter(
            name="--from",
            group=_FROM,
            help="A picture or text file with its parameters, an infotext, a picture's address on"
            " Civitai, or - for stdin; other options go before what it says.",
        ),
    ] = None,
    workflow: Annotated[
        Path | None,
        Parameter(
            group=_COMFYUI, help="File: a template, or as the editor saves it, or in API format."
        ),
    ] = None,
    override: Annotated[
        list[str] | None,
        Parameter(group=_COMFYUI, help="NODE.INPUT=JSON: by node id or title; may be repeated."),
    ] = None,
    file: Annotated[
        Path | None,
        Parameter(
            group=_MANY,
            help="One JSON request a line; - for stdin. Other options go before what a line says,"
            " tags are added.",
        ),
    ] = None,
    skip_bad: Annotated[
        bool, Parameter(group=_MANY, help="Leave out lines that cannot be accepted.")
    ] = False,
    key: Annotated[
        str,
        Parameter(group=_MANY, help="Names the submission: again with it adds what is missing."),
    ] = "",
    resume: Annotated[
        bool, Parameter(group=_MANY, help="Go on with the last submission of this very file.")
    ] = False,
    output: Annotated[
        Literal["original", "webp", "jpeg"] | None,
        Parameter(group=_REST, help="How the file is stored."),
    ] = None,
    set_: Annotated[
        list[str] | None,
        Parameter(
            name="--set",
            group=_REST,
            help="FIELD=JSON: any other field, e.g. hires.steps=10; may be repeated.",
        ),
    ] = None,
    job_id: Annotated[
        str, Parameter(group=_REST, help="A UUID: submitting twice with it is one job.")
    ] = "",
    common: Common = DEFAULTS,
) -> int:
    """Queue a job and print its id.

    The job is on disk when the id is printed. With --wait the exit code is 0 when its pictures
    are stored, 1 when it failed, and 130 after Ctrl-C: then it goes on. With --file, all lines
    are checked before the first is accepted.
    """
    if prompt == "-":
        prompt = sys.stdin.read().strip()
    base, unsure = _pasted(from_, common) if from_ is not None else ({}, ())
    given: dict[str, Any] = {
        "mode": mode or _mode(workflow, mask, init, base),
        "prompt": prompt,
        "negative_prompt": negative,
        "server": server,
        "tier": tier,
        "tags": tag,
        "expires_at": fields.moment(expires) if expires is not None else None,
        "checkpoint": checkpoint,
        "unet": unet,
        "text_encoders": text_encoder,
        "vae": vae,
        "loras": [fields.lora(text) for text in lora] if lora else None,
        "clip_skip": clip_skip,
        "steps": steps,
        "cfg_scale": cfg,
        "guidance": guidance,
        "sampler": sampler,
        "scheduler": scheduler,
        "seed": seed,
        "count": count,
        "init_image": _path(init),
        "mask_image": _path(mask),
        "denoising_strength": denoise,
        "workflow": fields.workflow(workflow) if workflow else None,
        "overrides": dict(fields.override(text) for text in override) if override else None,
    }
    if size is not None:
        given["width"], given["height"] = fields.dimensions(size)
    request = {**base, **{name: value for name, value in given.items() if value is not None}}
    _nested(request, hires=hires, upscaler=upscaler, output=output)
    request = fields.set_fields(request, set_ or [])
    if file is not None:
        if prompt is not None or from_ is not None or job_id or wait:
            raise BadRequest("--file", "goes with neither a prompt, --from, --job-id nor --wait")
        return _submit_file(file, request, key=key, resume=resume, skip_bad=skip_bad, common=common)
    if key or resume or skip_bad:
        raise BadRequest("submit", "--key, --resume and --skip-bad go with --file")
    if not request:
        raise BadRequest("prompt", "say what to make: a prompt, --from, --init or --workflow")
    with common.client() as queue:
        job = queue.submit(request, job_id=job_id)
        job = replace(job, warnings=(*unsure, *job.warnings))
        return finish(queue, job, wait=wait, common=common)


def _submit_file(
    file: Path, given: dict[str, Any], *, key: str, resume: bool, skip_bad: bool, common: Common
) -> int:
    from stablequeue.cli import jobs_file  # noqa: PLC0415

    if key and resume:
        raise BadRequest("--resume", "give it or --key, not both")
    lines = jobs_file.read_lines(
        file.expanduser(), lambda text: _pasted_line(text, common), skip_bad=skip_bad
    )
    with common.client() as queue:
        if not key:
            key, goes_on = jobs_file.submission_key(
                queue.settings.home, lines.content, resume=resume
            )
            if resume and not goes_on:
                common.note("note: this file was not submitted before; it is now")
        return jobs_file.submit_file(queue, lines, given, key=key, skip_bad=skip_bad, common=common)


def _pasted_line(source: str, common: Common) -> dict[str, Any]:
    """Return the fields of a line's `from`; what is not certain is said at once."""
    fields_, unsure = _pasted(source, common)
    for line in unsure:
        common.note(f"warning: {line}")
    return fields_


def finish(queue: "Client", job: "Submitted", *, wait: bool, common: Common) -> int:
    """Say what became of a submission; with `wait`, follow the job."""
    for text in (*job.warnings, *filter(None, [job.note])):
        common.note(f"{'note' if text == job.note else 'warning'}: {text}")
    if wait:
        from stablequeue.cli.follow import follow  # noqa: PLC0415

        if not common.json and not common.quiet:
            put(job.job_id)
        return follow(queue, job.job_id, common)
    data = {"job_id": job.job_id, "warnings": list(job.warnings), "note": job.note}
    common.emit(data, job.job_id)
    return 0


def _mode(
    workflow: Path | None, mask: Path | None, init: Path | None, base: dict[str, Any]
) -> str | None:
    if workflow:
        return "workflow"
    if mask:
        return "inpaint"
    if init and base.get("mode", "txt2img") == "txt2img":
        return "img2img"
    return None


def _nested(
    request: dict[str, Any], *, hires: float | None, upscaler: str | None, output: str | None
) -> None:
    if hires is not None:
        request["hires"] = {**request.get("hires", {}), "scale": hires}
    if upscaler is not None:
        part = "upscale" if request.get("mode") == "upscale" else "hires"
        request[part] = {**request.get(part, {}), "upscaler": upscaler}
    if output is not None:
        request["output"] = {**request.get("output", {}), "format": output}


def _path(path: Path | None) -> str | None:
    """Return a path that means the same to every process."""
    return str(path.expanduser().absolute()) if path is not None else None


def _pasted(source: str, common: Common) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Return the fields that a picture, a text or an address tells, and what is not certain."""
    from stablequeue.client.pasting import read_pasted  # noqa: PLC0415

    text = sys.stdin.read() if source == "-" else source
    try:
        found = read_pasted(common.settings(), text)
    except NotFound as error:
        raise BadRequest("--from", str(error)) from error
    for note in found.notes:
        common.note(f"note: {note}")
    for line in found.matched:
        common.note(f"note: {line}")
    return found.request.dumped(), found.unmatched
