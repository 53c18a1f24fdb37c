"""Which files of the library the jobs need that have not ended: eviction leaves them."""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from stablequeue.catalogue import JobState
from stablequeue.client.choosing import Choosing, Which
from stablequeue.client.reading import Reading
from stablequeue.client.session import Session
from stablequeue.errors import BadRequest
from stablequeue.model_names import model_key
from stablequeue.models.kinds import ModelType
from stablequeue.models.records import ModelFile
from stablequeue.models.references import Name, Tag, parse_reference
from stablequeue.models.resolving import resolve
from stablequeue.prefect_api import ACTIVE, run_filter

_LONGEST = 1_000
_MOST = 1_000
_DEPTH = 50
_TAG = re.compile(r"<\w+:([^:<>]+)")
_WORD = re.compile(r"[\w.\-]+")


def needed_by_waiting(session: Session, files: Sequence[ModelFile]) -> set[str]:
    """Return the paths of files that jobs need which wait or run.

    Rather too many than too few: whatever could mean a file counts.

    Raises:
        PrefectUnreachable: Nobody knows what waits.
    """
    choosing = Choosing(session, Reading(session))
    asked = [one.asked for one in choosing.waiting(Which())]
    for run in session.api.runs(run_filter(states=list(ACTIVE))):
        request = run.parameters.get("request")
        if isinstance(request, Mapping):
            asked.append(cast("Mapping[str, Any]", request))
    started = session.catalogue.requests(states=[JobState.STARTED], limit=_MOST)
    asked += [row.data for row in started]
    return needed(asked, files)


def needed(requests: Sequence[Mapping[str, Any]], files: Sequence[ModelFile]) -> set[str]:
    """Return the paths of all files that anything in these requests could mean. Pure."""
    by_key: dict[str, list[ModelFile]] = defaultdict(list)
    embeddings: dict[str, list[ModelFile]] = defaultdict(list)
    for one in files:
        by_key[model_key(one.name)].append(one)
        if one.alias:
            by_key[one.alias.casefold()].append(one)
        if ModelType.EMBEDDING in {one.kind, one.shown_kind}:
            embeddings[model_key(one.name)].append(one)
    found: set[str] = set()
    for text in {text for request in requests for text in _texts(request)}:
        for key in {model_key(text), *(model_key(name) for name in _TAG.findall(text))}:
            found |= {str(one.path) for one in by_key.get(key, ())}
        for word in _WORD.findall(text) if embeddings else ():
            found |= {str(one.path) for one in embeddings.get(model_key(word), ())}
        found |= {str(one.path) for one in _referenced(text, files)}
    return found


def _referenced(text: str, files: Sequence[ModelFile]) -> list[ModelFile]:
    """Return the files that a hash, an id or an address means."""
    if len(text) > _LONGEST or " " in text.strip():
        return []
    try:
        reference = parse_reference(text)
    except BadRequest:
        return []
    if isinstance(reference, Name | Tag):
        return []  # found by name already
    answer = resolve(reference, files)
    return [one for one in (answer.file, *answer.same) if one is not None]


def _texts(value: Any, depth: int = 0) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth < _DEPTH and isinstance(value, Mapping):
        for inner in cast("Mapping[Any, Any]", value).values():
            yield from _texts(inner, depth + 1)
    elif depth < _DEPTH and isinstance(value, list | tuple):
        for inner in cast("Sequence[Any]", value):
            yield from _texts(inner, depth + 1)
