"""Generation data of a picture on Civitai, made into an infotext. Pure.

What Civitai keeps is an infotext's pairs under names of its own (`cfgScale`, `Model hash`), hashes
and resources as JSON. Sources: Civitai's API and its own reader of infotexts (2026-08).
"""

import json
import math
from collections.abc import Mapping
from typing import Any, cast

from stablequeue.prompts.infotext import Infotext
from stablequeue.prompts.lora_tags import add_tags, lift_tags
from stablequeue.request import Lora

JSON = dict[str, Any]

_NAMES = {
    "steps": "Steps",
    "sampler": "Sampler",
    "scheduler": "Schedule type",
    "cfgScale": "CFG scale",
    "seed": "Seed",
    "clipSkip": "Clip skip",
    "denoise": "Denoising strength",
}
_NOT_PAIRS = {
    *("prompt", "negativePrompt", "hashes", "resources", "civitaiResources", "comfy", "id"),
    *("additionalResources", "extra", "engine", "workflow", "process", "baseModel", "aspectRatio"),
    *("width", "height", "quantity", "draft", "fluxMode", "remixOfId", "priority", "nsfw"),
    *("external", "techniques", "tools", "models", "upscalers", "vaes", "controlNets", "versionId"),
    *("modelIds", "versionIds", "ultra", "fluxUltraAspectRatio", "output", "experimental"),
}
_LORAS = {"lora", "locon", "lycoris", "dora"}
_STRONGEST = 10.0


def infotext_of_meta(meta: Mapping[str, Any]) -> Infotext:
    """Return the infotext that generation data amount to; what cannot be read is left out."""
    params: dict[str, str] = {}
    for name, value in meta.items():
        if name not in _NOT_PAIRS and (text := _text(value)):
            params.setdefault(_NAMES.get(name, name), text)
    width, height = meta.get("width"), meta.get("height")
    if "Size" not in params and _text(width) and _text(height):
        params["Size"] = f"{_text(width)}x{_text(height)}"
    resources = _mappings(meta.get("resources"))
    hashes = {**_hashes(resources), **_mapping(meta.get("hashes"))}
    if hashes:
        params["Hashes"] = json.dumps(hashes)
    if "Model" not in params:
        named = (_text(one.get("name")) for one in resources if one.get("type") == "model")
        if name := next(filter(None, named), ""):
            params["Model"] = name
    if listed := _mappings(meta.get("civitaiResources")):
        params["Civitai resources"] = json.dumps(listed)
    return Infotext(
        prompt=_with_loras(_text(meta.get("prompt")), resources),
        negative_prompt=_text(meta.get("negativePrompt")),
        params=params,
    )


def graph_of_meta(meta: Mapping[str, Any]) -> tuple[JSON, JSON]:
    """Return ComfyUI's graph in API format and in the editor's; empty where there is none."""
    comfy = meta.get("comfy")
    try:
        # A text of JSON, which ComfyUI lets contain NaN.
        data: Any = json.loads(comfy, parse_constant=lambda _: None) if comfy else None
    except (ValueError, TypeError, RecursionError):
        return {}, {}
    return _mapping(_mapping(data).get("prompt")), _mapping(_mapping(data).get("workflow"))


def _hashes(resources: list[JSON]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in resources:
        kind, name, digits = (_text(one.get(key)) for key in ("type", "name", "hash"))
        if digits:
            found["model" if kind == "model" else f"{kind}:{name}"] = digits
    return found


def _with_loras(prompt: str, resources: list[JSON]) -> str:
    """Put LoRAs that only the list of resources tells into the prompt, as tags."""
    there = {lora.name.casefold() for lora in lift_tags(prompt)[1]}
    missing: list[Lora] = []
    for one in resources:
        name, weight = _text(one.get("name")), one.get("weight", 1.0)
        usable = isinstance(weight, int | float) and not isinstance(weight, bool)
        plain = not set(name) & set("<>:\n") and len(name) <= 1000  # noqa: PLR2004 - of a request
        if one.get("type") not in _LORAS or not name or not plain or name.casefold() in there:
            continue
        strength = float(weight) if usable and abs(weight) <= _STRONGEST else 1.0
        missing.append(Lora(name=name, weight=strength))
    return add_tags(prompt, missing) if missing else prompt


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else f"{value}"


def _mapping(value: Any) -> JSON:
    return cast("JSON", value) if isinstance(value, dict) else {}


def _mappings(value: Any) -> list[JSON]:
    listed = cast("list[Any]", value) if isinstance(value, list) else []
    return [cast("JSON", one) for one in listed if isinstance(one, dict)]
