"""What assets are found by: the words of an asset and the values it can be filtered by."""

from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any, cast

from sqlmodel import Session, col, select

from stablequeue.catalogue.records import NewAsset
from stablequeue.catalogue.tables import FacetRow
from stablequeue.catalogue.texts import clean, folded_tag, is_hexadecimal
from stablequeue.catalogue.words import facet_token, limited, words

SHORT_HASH = 10  # digits of an AutoV2, the beginning of a SHA-256

LONGEST_VALUE = 500  # PostgreSQL indexes up to 2700 bytes

Facet = tuple[str, str]
"""Kind (model, server, kind or tag) and value as it is compared."""

_PROMPT_INPUTS = {
    "text",
    "text_g",
    "text_l",
    "text_positive",
    "positive",
    "prompt",
    "clip_l",
    "t5xxl",
}


def asset_prompt(new: NewAsset, data: Mapping[str, Any]) -> str:
    """Return what an asset shows: told with it, or its request's prompt, or its workflow's texts.

    Args:
        new: The asset.
        data: The request, JSON data of any release.
    """
    if prompt := new.prompt or str(data.get("prompt", "")):
        return prompt
    texts: list[str] = []
    for node in _mapping(data.get("workflow")).values():
        for name, value in _mapping(_mapping(node).get("inputs")).items():
            if name in _PROMPT_INPUTS and isinstance(value, str) and value.strip():
                texts.append(value.strip())
    return "\n".join(dict.fromkeys(texts))


def asset_words(new: NewAsset, prompt: str, tags: Iterable[str]) -> list[str]:
    """Return the words an asset is found by: its prompt, its models, its tags."""
    found: list[str] = []
    for name in new.models:
        found += words(_stem(_normal(name)))
    for tag in tags:
        found += words(tag)
    found += words(prompt)  # last: what is too much is cut off at the end
    return limited(found)


def asset_facets(new: NewAsset, tags: Iterable[str]) -> list[Facet]:
    """Return the values an asset can be filtered by, each once, sorted."""
    facets: set[Facet] = {("kind", str(new.kind)), ("server", new.server)}
    facets.update(("tag", folded_tag(tag)) for tag in tags)
    for name, sha in new.models.items():
        path = _normal(name)
        facets.update(("model", value) for value in (path, PurePosixPath(path).name, _stem(path)))
        if sha:
            facets.update(("model", value) for value in (sha.lower(), sha.lower()[:SHORT_HASH]))
    return sorted({(kind, _value(value)) for kind, value in facets if value})


def model_spellings(model: str) -> list[str]:
    """Return under which values a model that somebody names may be found, best first."""
    value = _normal(model)
    is_hash = len(value) > SHORT_HASH and is_hexadecimal(value)
    return [value, value[:SHORT_HASH]] if is_hash else [value]


def tokens_of(session: Session, facets: Iterable[Facet]) -> list[str]:
    """Return the tokens of these values, giving new ones an id; for a writing session."""
    tokens: list[str] = []
    for kind, value in facets:
        row = find_facet(session, kind, value)
        if row is None:
            row = FacetRow(kind=kind, value=value)
            session.add(row)
            session.flush()
        tokens.append(facet_token(row.id or 0))
    return tokens


def find_facet(session: Session, kind: str, value: str) -> FacetRow | None:
    """Return the row of one value, None when no asset ever had it."""
    query = select(FacetRow).where(col(FacetRow.kind) == kind, col(FacetRow.value) == _value(value))
    return session.exec(query).one_or_none()


def _value(text: str) -> str:
    return clean(text)[:LONGEST_VALUE]


def _normal(name: str) -> str:
    return clean(name).strip().replace("\\", "/").casefold()


def _stem(path: str) -> str:
    return PurePosixPath(path).stem


def _mapping(value: Any) -> Mapping[str, Any]:
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}
