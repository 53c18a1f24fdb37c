"""The models a pasted picture names, matched with what identifies their bytes. Pure.

A request made of an infotext names its models as the infotext does. `uses_of` tells for each such
field what else the infotext says of that model (hashes, ids), and `with_references` puts what was
found for it into the request.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stablequeue.errors import BadRequest
from stablequeue.model_names import model_key
from stablequeue.models.infotext_models import Named
from stablequeue.models.kinds import ModelType
from stablequeue.models.references import (
    CivitaiModel,
    CivitaiVersion,
    Name,
    Reference,
    parse_reference,
)
from stablequeue.request import GenerationRequest

_SINGLE = {
    "checkpoint": ModelType.CHECKPOINT,
    "unet": ModelType.DIFFUSION_MODEL,
    "vae": ModelType.VAE,
}
_IMAGES = {ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL}


@dataclass(frozen=True, slots=True, kw_only=True)
class Use:
    """A model in a field of a request.

    Attributes:
        field: Dotted path, e.g. `loras.0.name`.
        given: As the request names it.
        kind: What it is for.
        references: That identify its bytes, the surest first; empty: it is named only.
    """

    field: str
    given: str
    kind: ModelType
    references: tuple[Reference, ...] = ()

    def __str__(self) -> str:
        return f"{_SPOKEN.get(self.kind, self.kind.value)} {self.given!r}"


_SPOKEN = {
    ModelType.CHECKPOINT: "checkpoint",
    ModelType.DIFFUSION_MODEL: "image model",
    ModelType.LORA: "LoRA",
    ModelType.VAE: "VAE",
    ModelType.TEXT_ENCODER: "text encoder",
    ModelType.EMBEDDING: "embedding",
}


def uses_of(request: GenerationRequest, named: Sequence[Named]) -> list[Use]:
    """Return the models in a request's fields, each with all that is said of it."""
    fields = [(name, str(getattr(request, name)), kind) for name, kind in _SINGLE.items()]
    fields += [
        (f"text_encoders.{place}", name, ModelType.TEXT_ENCODER)
        for place, name in enumerate(request.text_encoders)
    ]
    fields += [
        (f"loras.{place}.name", lora.name, ModelType.LORA)
        for place, lora in enumerate(request.loras)
    ]
    return [
        Use(field=field, given=given, kind=kind, references=_references(given, kind, named))
        for field, given, kind in fields
        if given.strip() and given.casefold() not in {"automatic", "none"}
    ]


def embeddings_of(named: Sequence[Named]) -> list[Use]:
    """Return the embeddings an infotext names: no field of a request has them, the prompt does."""
    return [
        Use(
            field="prompt",
            given=one.name,
            kind=one.kind,
            references=tuple(each for each in one.references if not isinstance(each, Name)),
        )
        for one in named
        if one.kind is ModelType.EMBEDDING and one.name
    ]


def with_references(
    request: GenerationRequest, found: Iterable[tuple[Use, str]]
) -> GenerationRequest:
    """Return the request with other references in the fields of these uses."""
    changes: dict[str, Any] = {}
    for use, reference in found:
        field, _, rest = use.field.partition(".")
        if field == "loras":
            listed = list(changes.get(field, request.loras))
            place = int(rest.partition(".")[0])
            listed[place] = listed[place].model_copy(update={"name": reference})
            changes[field] = listed
        elif field == "text_encoders":
            listed = list(changes.get(field, request.text_encoders))
            listed[int(rest)] = reference
            changes[field] = listed
        elif field != "prompt":
            changes[field] = reference
    return request.model_copy(update=changes) if changes else request


def _references(given: str, kind: ModelType, named: Sequence[Named]) -> tuple[Reference, ...]:
    own = _parsed(given)
    found: list[Reference] = []
    for one in named:
        if one.kind is not kind and not {one.kind, kind} <= _IMAGES:
            continue
        single = kind in _SINGLE.values()
        by_id = own is not None and any(_same_id(own, each) for each in one.references)
        if by_id or (one.name and _plain(one.name) == _plain(given)) or (single and not one.name):
            found += [each for each in one.references if not isinstance(each, Name)]
    if own is not None and not isinstance(own, Name):
        found.insert(0, own)
    elif isinstance(own, Name) and own.digits:
        found.append(own)
    return tuple(dict.fromkeys(found))


def _parsed(text: str) -> Reference | None:
    try:
        return parse_reference(text)
    except BadRequest:
        return None


def _same_id(one: Reference, other: Reference) -> bool:
    match one, other:
        case CivitaiVersion(version_id=mine), CivitaiVersion(version_id=its):
            return mine == its
        case CivitaiModel(model_id=mine), CivitaiModel(model_id=its):
            return mine == its
        case _:
            return one == other


def _plain(name: str) -> str:
    """Return what spellings of one name share: names in `Lora hashes` have no colons and commas."""
    return re.sub("[:,]", "", model_key(name))
