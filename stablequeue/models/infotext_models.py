"""The models an infotext names, each with everything it says to find it by. Pure.

Sources: A1111 and Forge (`Model hash`, `VAE hash`, `Lora hashes`, `TI hashes`), Civitai's extension
(`Hashes`), Civitai's site generator (`Civitai resources`). Hashes come in 8, 10, 12 or 64 digits
and either case; names in `Lora hashes` have lost their colons and commas.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from stablequeue.errors import BadRequest
from stablequeue.models.identities import is_nothing
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.references import (
    CivitaiModel,
    CivitaiVersion,
    Hash,
    Name,
    Reference,
    parse_reference,
)
from stablequeue.prompts.infotext import Infotext
from stablequeue.prompts.lora_tags import lift_tags

_HASH = re.compile("[0-9a-f]{8}|[0-9a-f]{10}|[0-9a-f]{12}|[0-9a-f]{64}")
_LISTED = re.compile(r"\s*([^:]+):\s*(?:0x)?([0-9a-fA-F]+)\s*")
_LARGEST_ID = 2**31


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One model of an infotext.

    Attributes:
        kind: What it is for.
        name: As it stands there; "": not told.
        references: What to look for, the surest first: ids, hashes, the name last.
    """

    kind: ModelType
    name: str
    references: tuple[Reference, ...]


def models_of(infotext: Infotext) -> list[Named]:
    """Return the models an infotext names: checkpoint, VAE, LoRAs, embeddings, others.

    What cannot be read is left out.
    """
    found = _Found()
    params = infotext.params
    for key, value in _object(params.get("Hashes", "")).items():
        word, _, name = key.partition(":")
        kind = type_of(word)
        if kind is not None and isinstance(value, str):
            found.add(kind, name or _single(kind, params), value)
    for kind, name_key, hash_key in (
        (ModelType.CHECKPOINT, "Model", "Model hash"),
        (ModelType.VAE, "VAE", "VAE hash"),
    ):
        found.add(kind, params.get(name_key, ""), params.get(hash_key, ""))
    for kind, key in ((ModelType.LORA, "Lora hashes"), (ModelType.EMBEDDING, "TI hashes")):
        for piece in params.get(key, "").split(","):
            if match := _LISTED.fullmatch(piece):
                found.add(kind, match[1].strip(), match[2])
    for lora in lift_tags(infotext.prompt)[1]:
        found.add(ModelType.LORA, lora.name, "")
    found.resources(params.get("Civitai resources", ""))
    return found.named()


class _Found:
    """Collects what is said in several places about the same model."""

    def __init__(self) -> None:
        self._hashes: dict[tuple[ModelType, str], list[str]] = {}
        self._names: dict[tuple[ModelType, str], str] = {}
        self._ids: list[Named] = []

    def add(self, kind: ModelType, name: str, digits: str) -> None:
        name, digits = name.strip(), digits.strip().lower().removeprefix("0x")
        if name.casefold() in {"none", "automatic"}:
            name = ""
        usable = bool(_HASH.fullmatch(digits)) and not is_nothing(digits)
        if not name and not usable:
            return
        # There is one checkpoint and one VAE; of the rest there are several, told by name.
        single = kind in {ModelType.CHECKPOINT, ModelType.VAE}
        key = (kind, "" if single else _plain(name) or digits)
        self._names[key] = self._names.get(key) or name
        hashes = self._hashes.setdefault(key, [])
        if usable and digits not in hashes:
            hashes.append(digits)

    def resources(self, text: str) -> None:
        """Add what Civitai's site generator lists, with exact ids."""
        try:
            listed: object = json.loads(text) if text else []
        except (ValueError, RecursionError):
            return
        for one in cast("list[Any]", listed) if isinstance(listed, list) else []:
            if isinstance(one, dict):
                self._resource(cast("dict[str, Any]", one))

    def _resource(self, one: Mapping[str, Any]) -> None:
        version, air = one.get("modelVersionId"), one.get("air")
        reference: Reference | None = None
        if type(version) is int and 0 < version < _LARGEST_ID:
            reference = CivitaiVersion(version)
        elif isinstance(air, str):
            try:
                reference = parse_reference(air)
            except BadRequest:
                return
        if not isinstance(reference, CivitaiVersion | CivitaiModel):
            return
        kind = type_of(str(one.get("type", ""))) or reference.kind
        if kind is not None:
            name = one.get("modelName")
            told = name if isinstance(name, str) else ""
            self._ids.append(Named(kind=kind, name=told, references=(reference,)))

    def named(self) -> list[Named]:
        found: list[Named] = []
        for key, name in self._names.items():
            kind, _ = key
            # The longest hash is the surest.
            hashes = sorted(self._hashes.get(key, []), key=len, reverse=True)
            references: list[Reference] = []
            for digits in hashes:
                reference = parse_reference(digits)
                if isinstance(reference, Hash):
                    references.append(reference)
            if name:
                references.append(Name(name, kind=kind))
            found.append(Named(kind=kind, name=name, references=tuple(references)))
        return [*self._ids, *found]


def _single(kind: ModelType, params: Mapping[str, str]) -> str:
    keys = {ModelType.CHECKPOINT: "Model", ModelType.VAE: "VAE"}
    return params.get(keys.get(kind, ""), "")


def _plain(name: str) -> str:
    return re.sub("[:,]", "", name).casefold()


def _object(text: str) -> dict[str, Any]:
    try:
        data: object = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", data) if isinstance(data, dict) else {}
