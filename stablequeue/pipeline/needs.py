"""What a server lacks of a request, and the same request under other names. Pure.

The fields are those `ModelMissing` names: `checkpoint`, `loras.0.name`, `prompt` (a LoRA tag in
it), `workflow.NODE.INPUT`, `sections.forge.payload.KEY`, ...
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stablequeue.errors import ModelMissing
from stablequeue.models.kinds import ModelType
from stablequeue.request import GenerationRequest

_FIELDS = {
    "checkpoint": ModelType.CHECKPOINT,
    "unet": ModelType.DIFFUSION_MODEL,
    "vae": ModelType.VAE,
    "text_encoders": ModelType.TEXT_ENCODER,
    "loras": ModelType.LORA,
    "prompt": ModelType.LORA,
    "negative_prompt": ModelType.LORA,
    "upscale": ModelType.UPSCALER,
    "hires": ModelType.UPSCALER,
}
_PAYLOAD = "sections.forge.payload."
_INPUTS = {
    "ckpt_name": ModelType.CHECKPOINT,
    "unet_name": ModelType.DIFFUSION_MODEL,
    "vae_name": ModelType.VAE,
    "lora_name": ModelType.LORA,
    "control_net_name": ModelType.CONTROLNET,
    "model_name": ModelType.UPSCALER,
    "hypernetwork_name": ModelType.HYPERNETWORK,
}
_TAG = re.compile(r"(<(?:lora|lyco):)([^:>]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Need:
    """One model the server lacks.

    Attributes:
        field: Of the request.
        given: The reference as the request gives it.
        kind: What it is for; None: the field does not tell.
        suggestions: What the server has that looks alike.
    """

    field: str
    given: str
    kind: ModelType | None
    suggestions: tuple[str, ...] = ()


def needs_of(missing: ModelMissing) -> list[Need]:
    """Return everything that is missing, each reference of a field once."""
    found: dict[tuple[str, str], Need] = {}
    for one in (missing, *missing.also):
        need = Need(one.field, one.name, _kind(one.field), one.suggestions)
        found.setdefault((one.field, one.name), need)
    return list(found.values())


def renamed(request: GenerationRequest, names: Iterable[tuple[Need, str]]) -> GenerationRequest:
    """Return the request with other names in the fields of these needs."""
    changes: dict[str, Any] = {}

    def now(field: str) -> Any:
        return changes.get(field, getattr(request, field))

    for need, name in names:
        field, _, rest = need.field.partition(".")
        match field:
            case "prompt" | "negative_prompt":
                changes[field] = _retagged(now(field), need.given, name)
            case "loras":
                listed = list(now(field))
                place = int(rest.partition(".")[0])
                listed[place] = listed[place].model_copy(update={"name": name})
                changes[field] = listed
            case "text_encoders":
                listed = list(now(field))
                listed[int(rest)] = name
                changes[field] = listed
            case "upscale" | "hires":
                changes[field] = now(field).model_copy(update={"upscaler": name})
            case "workflow":
                # An override, since it also wins over one the request has for the same input.
                others = {key: value for key, value in now("overrides").items() if key != rest}
                changes["overrides"] = {**others, rest: name}
            case "sections":
                sections = now(field)
                payload = {**sections.forge.payload, need.field.removeprefix(_PAYLOAD): name}
                forge = sections.forge.model_copy(update={"payload": payload})
                changes[field] = sections.model_copy(update={"forge": forge})
            case _:
                changes[field] = name
    return request.model_copy(update=changes)


def _kind(field: str) -> ModelType | None:
    first, _, rest = field.partition(".")
    if first == "workflow":
        key = rest.rpartition(".")[2]
        return ModelType.TEXT_ENCODER if key.startswith("clip_name") else _INPUTS.get(key)
    if first == "sections":
        return ModelType.CHECKPOINT
    return _FIELDS.get(first)


def _retagged(prompt: str, old: str, new: str) -> str:
    def exchange(match: re.Match[str]) -> str:
        same = match[2].strip() == old.strip()
        return f"{match[1]}{new}" if same else match[0]

    return _TAG.sub(exchange, prompt)
