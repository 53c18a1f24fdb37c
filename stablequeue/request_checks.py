"""Checks of a request that no schema can say, and the name of the field that is wrong."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from stablequeue.errors import BadRequest

LONGEST_MODEL = 4_000
"""Characters of a reference to a model: addresses may be signed, and long."""

_CLAIMED = re.compile(
    r"(?:urn|air|sha256|blake3|tensors|autov[123]|crc32|hf|huggingface|version|model|image):",
    re.IGNORECASE,
)
"""What no file's name begins with; then it is a reference, or wrong."""

BEFORE_NUMBERS = frozenset(
    {
        *("version", "model", "image", "civitai"),
        *("sha256", "blake3", "tensors", "autov1", "autov2", "autov3", "crc32"),
    }
)
"""Words of references, in lower case, behind whose colon there may be nothing but digits."""

_DEEPEST = 150
_LONGEST_NUMBER = 1024  # bits
_PREFECTS_OWN = "__prefect_kind"
"""A key under which Prefect's server would read a parameter as a template of its own."""


def refuse_unstorable(data: Mapping[str, Any]) -> None:
    """Refuse what no database, no JSON and no server takes, wherever it is in the request.

    Raises:
        BadRequest: A NUL or half a character in a text, a number that is none, or too much depth.
    """
    waiting: list[tuple[tuple[object, ...], object]] = [((), data)]
    while waiting:
        place, value = waiting.pop()
        if isinstance(value, Mapping | list) and len(place) >= _DEEPEST:
            raise BadRequest(dotted(place[:3]), "too many levels inside each other")
        if isinstance(value, Mapping):
            for key, below in cast("Mapping[object, object]", value).items():
                waiting.append(((*place, key), below))
                if problem := _unusable_name(key):
                    raise BadRequest(dotted((*place, key)), f"its name {problem}")
        elif isinstance(value, list):
            below = cast("list[object]", value)
            waiting += [((*place, index), item) for index, item in enumerate(below)]
        elif problem := _unstorable(value):
            raise BadRequest(dotted(place), f"it {problem}")


def _unusable_name(key: object) -> str:
    if key == _PREFECTS_OWN:
        return "is one that Prefect keeps for itself"
    return _unstorable(key) if isinstance(key, str) else ""


def _unstorable(value: object) -> str:
    if isinstance(value, str):
        if "\0" in value:
            return "holds a NUL character, which cannot be stored"
        if not value.isascii() and any("\ud800" <= character <= "\udfff" for character in value):
            return "holds half of a character (a lone surrogate)"
    elif isinstance(value, float) and not math.isfinite(value):
        return "is no finite number"
    elif isinstance(value, int) and value.bit_length() > _LONGEST_NUMBER:
        return "is too large a number"
    return ""


def field_parts(
    location: Sequence[int | str], data: Mapping[str, Any], *, missing: bool
) -> list[int | str]:
    """Return pydantic's location without the names of union members it puts in between.

    What is a key or an index of the data is a field; the first part always is.
    """
    kept: list[int | str] = []
    value: Any = data
    for number, part in enumerate(location):
        is_last = number == len(location) - 1
        if isinstance(value, Mapping) and part in value:
            value = cast("Mapping[object, Any]", value)[part]
        elif isinstance(value, list) and isinstance(part, int):
            items = cast("list[Any]", value)
            value = items[part] if part < len(items) else None
        elif kept and not (missing and is_last):
            continue
        kept.append(part)
    return kept


def dotted(place: Sequence[object]) -> str:
    """Return a place in a request as people write it, e.g. `loras.0.weight`."""
    parts = (one_line(str(part).replace("\0", "\\0"), 60) or "''" for part in place)
    return ".".join(parts)


def one_line(text: str, longest: int = 300) -> str:
    """Return `text` without line breaks and unprintable characters, cut to `longest`."""
    line = "".join(
        character if character.isprintable() else ascii(character)[1:-1]
        for character in " ".join(text.split())
    )
    return line if len(line) <= longest else f"{line[: longest - 3]}..."


def checked_model(given: str) -> str:
    """Return a reference to a model, a key of Civitai in its address left out.

    Whatever may be a file's name is taken as it is; only what claims to be an address, an id or a
    hash and is none is refused.

    Raises:
        ValueError: It can mean no model.
    """
    text = given.strip()
    if "://" not in text and not _CLAIMED.match(text):
        return given
    from stablequeue.models.references import (  # noqa: PLC0415  # most requests need none of it
        CivitaiImage,
        CivitaiModel,
        CivitaiVersion,
        parse_reference,
    )

    try:
        reference = parse_reference(text)
    except BadRequest as error:
        raise ValueError(error.problem) from None
    if isinstance(reference, CivitaiImage):
        message = "a picture names several models; submit it with --from, or name one of them"
        raise ValueError(message)  # noqa: TRY004 - pydantic reports ValueError only
    keyed = "token=" in text.casefold() and isinstance(reference, CivitaiVersion | CivitaiModel)
    return str(reference) if keyed else given
