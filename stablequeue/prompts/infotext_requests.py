"""Requests and infotexts, made of each other, with notes about what could not be carried over."""

import json
import re
from collections.abc import Mapping
from typing import Any, cast

from stablequeue.errors import BadRequest
from stablequeue.prompts.infotext import Infotext, parse_infotext
from stablequeue.prompts.lora_tags import add_tags, lift_tags
from stablequeue.request import LARGEST_SEED, GenerationRequest, parse_request

_SIZE = re.compile("([0-9]{1,6}) ?[xX\u00d7] ?([0-9]{1,6})")
_NOTE_LENGTH = 160
_NONE = {"", "none", "automatic", "use same choices", "use same checkpoint"}
_VAE_NAME = re.compile(r"vae|(?:^|[/\\])ae(?:\.|$)", re.IGNORECASE)

# What tells of the past and asks for nothing. Hashes serve to find models, which is done by name.
_KNOWLEDGE = {
    "Batch pos",
    "Batch size",
    "Civitai metadata",
    "Civitai resources",
    "Created Date",
    "Hashes",
    "Lora hashes",
    "Model hash",
    "TI",
    "TI hashes",
    "User",
    "VAE hash",
    "Version",
}
_SAME_AS_DEFAULT = {
    "Emphasis": "Original",
    "Hires CFG Scale": "1.0",  # what Forge writes for a second pass that was not told
    "Hires Module 1": "Use same choices",
    "Hires checkpoint": "Use same checkpoint",
    "Hires sampler": "Use same sampler",
    "Hires schedule type": "Use same scheduler",
    "Inpaint area": "Whole picture",
    "Mask mode": "Inpaint masked",
    "RNG": "GPU",
    "VAE Decoder": "Full",
    "VAE Encoder": "Full",
}


def request_from_infotext(infotext: Infotext | str) -> tuple[GenerationRequest, list[str]]:
    """Return the request an infotext describes, and one line for all that it does not cover.

    Names stay as they stand there; a server's engine finds them in its lists, or refuses. A
    picture made from another one becomes a txt2img request, because an infotext does not carry
    the picture.

    Raises:
        BadRequest: Prompts longer than a request may have.
        UnreadableFile: The text is longer than any infotext.
    """
    if isinstance(infotext, str):
        infotext = parse_infotext(infotext)
    reading = _Reading(infotext.params)
    prompt, loras, kept = lift_tags(infotext.prompt)
    reading.notes += [f"the tag {tag[:80]} stays in the prompt" for tag in kept]
    fields: dict[str, Any] = {
        "prompt": prompt,
        "negative_prompt": infotext.negative_prompt,
        "loras": [lora.model_dump() for lora in loras],
    }
    reading.whole("Steps", fields, "steps", 1, 1000)
    reading.number("CFG scale", fields, "cfg_scale", 0, 100)
    reading.number("Distilled CFG Scale", fields, "guidance", 0, 100)
    reading.whole("Seed", fields, "seed", 0, LARGEST_SEED)
    reading.whole("Clip skip", fields, "clip_skip", 0, 24)
    reading.name("Sampler", fields, "sampler")
    reading.name("Schedule type", fields, "scheduler")
    _size(reading, fields)
    _models(reading, fields)
    _hires(reading, fields)
    _other_picture(reading, fields)
    _resources(reading, fields)
    reading.rest()
    return _valid(fields), reading.notes


def _valid(fields: Mapping[str, Any]) -> GenerationRequest:
    return parse_request({key: value for key, value in fields.items() if value not in ("", [], {})})


class _Reading:
    """The pairs of an infotext as they are used up, and what is noted on the way."""

    def __init__(self, params: Mapping[str, str]) -> None:
        self.left = dict(params)
        self.notes: list[str] = []

    def take(self, key: str) -> str:
        return self.left.pop(key, "").strip()

    def note(self, key: str, value: str, why: str) -> None:
        self.notes.append(f"{key}: {_short(value)}: {why}")

    def name(self, key: str, fields: dict[str, Any], field: str) -> None:
        value = self.take(key)
        if value.casefold() not in _NONE:
            fields[field] = value[:1000]

    def number(
        self, key: str, fields: dict[str, Any], field: str, low: float, high: float
    ) -> float | None:
        value = self.take(key)
        if not value:
            return None
        try:
            number = float(value)
        except ValueError:
            self.note(key, value, "this is no number; the default is used")
            return None
        if not low <= number <= high:
            self.note(key, value, f"must be from {low:g} to {high:g}; the default is used")
            return None
        fields[field] = number
        return number

    def whole(self, key: str, fields: dict[str, Any], field: str, low: int, high: int) -> None:
        value = self.take(key)
        if not value:
            return
        # Digits only: int() takes underscores, and refuses thousands of digits by another error.
        if not re.fullmatch(r"-?[0-9]{1,19}", value):
            self.note(key, value, "this is no whole number; the default is used")
        elif not low <= int(value) <= high:
            self.note(key, value, f"must be from {low} to {high}; the default is used")
        else:
            fields[field] = int(value)

    def size(self, key: str) -> tuple[int, int] | None:
        value = self.take(key)
        if not value:
            return None
        if match := _SIZE.fullmatch(value):
            return int(match[1]), int(match[2])
        self.note(key, value, "this is no size; the default is used")
        return None

    def rest(self) -> None:
        for key, value in self.left.items():
            if key not in _KNOWLEDGE and value != _SAME_AS_DEFAULT.get(key):
                self.note(key, value, "this is not carried over")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _NOTE_LENGTH else line[:_NOTE_LENGTH] + "..."


def _size(reading: _Reading, fields: dict[str, Any]) -> None:
    size = reading.size("Size")
    if size is None:
        return
    # Servers round down to multiples of 8 and still tell the size they were asked for.
    width, height = (min(max(side // 8 * 8, 16), 16384) for side in size)
    if (width, height) != size:
        reading.note("Size", f"{size[0]}x{size[1]}", f"{width}x{height} is used")
    fields["width"], fields["height"] = width, height


def _models(reading: _Reading, fields: dict[str, Any]) -> None:
    model, short_hash = reading.take("Model"), reading.left.get("Model hash", "").strip()
    reading.name("VAE", fields, "vae")
    vae: list[str] = []
    encoders: list[str] = []
    for number in range(1, 10):
        module = reading.take(f"Module {number}")
        if module.casefold() not in _NONE:
            (vae if _VAE_NAME.search(module) else encoders).append(module[:1000])
    if vae:
        fields["vae"] = vae[0]
    for name in vae[1:] + encoders[4:]:
        reading.note("Module", name, "there is no room for it in a request")
    fields["text_encoders"] = encoders[:4]
    if not model and short_hash:
        model = short_hash
        reading.note("Model hash", short_hash, "the model is known by its hash only")
    # Text encoders of their own mean that the model's file has none: it is the image model alone.
    fields["unet" if encoders else "checkpoint"] = model[:1000]


def _hires(reading: _Reading, fields: dict[str, Any]) -> None:
    hires: dict[str, Any] = {}
    reading.number("Hires upscale", hires, "scale", 0, 8)
    if resize := reading.size("Hires resize"):
        width, height = fields.get("width", 512), fields.get("height", 512)
        hires["scale"] = min(max(resize[0] / width, resize[1] / height), 8.0)
        if resize[0] * height != resize[1] * width:
            reading.note("Hires resize", f"{resize[0]}x{resize[1]}", "its shape is not kept")
    reading.whole("Hires steps", hires, "steps", 0, 1000)
    reading.name("Hires upscaler", hires, "upscaler")
    if hires.get("scale", 0) > 1:
        reading.number("Denoising strength", hires, "denoising_strength", 0, 1)
        fields["hires"] = hires
    elif hires:
        reading.notes.append("the second pass (Hires) has no size and is left out")


def _other_picture(reading: _Reading, fields: dict[str, Any]) -> None:
    """What only a picture made from another one has."""
    masked = "Mask blur" in reading.left
    if reading.number("Denoising strength", fields, "denoising_strength", 0, 1) is not None:
        how = "with a mask from another picture" if masked else "from another picture"
        reading.notes.append(
            f"it was made {how}, which an infotext does not carry; the request makes a new one"
        )
    if not masked:
        return
    inpaint: dict[str, Any] = {}
    reading.whole("Mask blur", inpaint, "mask_blur", 0, 256)
    reading.whole("Masked area padding", inpaint, "padding", 0, 1024)
    inpaint["only_masked"] = reading.take("Inpaint area").casefold() == "only masked"
    inpaint["invert"] = reading.take("Mask mode").casefold() == "inpaint not masked"
    fill = reading.take("Masked content").casefold()
    if fill in {"fill", "original", "latent noise", "latent nothing"}:
        inpaint["fill"] = fill
    fields["inpaint"] = inpaint


def _resources(reading: _Reading, fields: dict[str, Any]) -> None:
    """Civitai's own generator names its models by their version, never by a file's name.

    They are asked for by that reference, so that a server that cannot find them refuses instead
    of making another picture.
    """
    try:
        listed: Any = json.loads(reading.left.get("Civitai resources", "") or "[]")
    except (ValueError, RecursionError):
        listed = []
    for resource in cast("list[Any]", listed) if isinstance(listed, list) else []:
        if not isinstance(resource, dict):
            continue
        one = cast("dict[str, Any]", resource)
        reference, shown = _reference(one), f"{one.get('modelName') or one.get('type')}"
        if not reference:
            continue
        if one.get("type") == "checkpoint":
            if fields.get("checkpoint") or fields.get("unet"):
                continue
            fields["checkpoint"] = reference
        elif one.get("type") in {"lora", "locon", "lycoris", "dora"}:
            weight = one.get("weight", 1.0)
            usable = isinstance(weight, int | float) and -10 <= weight <= 10  # noqa: PLR2004
            fields["loras"].append({"name": reference, "weight": weight if usable else 1.0})
        else:
            reading.note("Civitai resources", shown, "this kind is not carried over")
            continue
        reading.note("Civitai resources", shown, f"asked for as {reference}")


def _reference(resource: Mapping[str, Any]) -> str:
    air, version = resource.get("air"), resource.get("modelVersionId")
    if isinstance(air, str) and air.startswith("urn:air:") and air.isprintable():
        return air[:1000]
    if isinstance(version, int) and version > 0:
        return f"https://civitai.com/model-versions/{version}"
    return ""


def infotext_of(request: GenerationRequest, *, seed: int, model_hash: str = "") -> Infotext:
    """Return the infotext of a picture made by a plain request, as A1111 would tell it.

    Args:
        request: Not a workflow.
        seed: The picture's own seed.
        model_hash: First 10 digits of the checkpoint's SHA-256, if known.

    Raises:
        BadRequest: The request is a workflow, of which an infotext can say nothing.
    """
    if request.workflow:
        raise BadRequest("workflow", "a workflow has no infotext")
    modules = [request.vae, *request.text_encoders] if request.text_encoders else []
    told: dict[str, str] = {
        "Steps": f"{request.steps}",
        "Sampler": request.sampler,
        "Schedule type": request.scheduler,
        "CFG scale": f"{request.cfg_scale:g}",
        "Distilled CFG Scale": f"{request.guidance:g}" if request.text_encoders else "",
        "Seed": f"{seed}",
        "Size": f"{request.width}x{request.height}",
        "Model hash": model_hash,
        "Model": request.checkpoint or request.unet,
        "VAE": "" if modules else request.vae,
        "Denoising strength": "",
        "Clip skip": f"{request.clip_skip}" if request.clip_skip else "",
    }
    if request.hires.enabled:
        hires = request.hires
        told |= {
            "Denoising strength": f"{hires.denoising_strength:g}",
            "Hires upscale": f"{hires.scale:g}",
            "Hires steps": f"{hires.steps}" if hires.steps else "",
            "Hires upscaler": hires.upscaler,
        }
    elif request.init_image:
        told["Denoising strength"] = f"{request.denoising_strength:g}"
    told |= {f"Module {n}": name for n, name in enumerate(filter(None, modules), 1)}
    return Infotext(
        prompt=add_tags(request.prompt, request.loras),
        negative_prompt=request.negative_prompt,
        params={key: value for key, value in told.items() if value},
    )
