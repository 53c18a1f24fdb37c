"""Which models waiting jobs name, so that those behind one that waits need not find out themselves.

A job that waits for a download says in tags of its run what its server lacks. Jobs that name the
same are not started on that server meanwhile: each would only take a place there to learn that it
has to wait, and those behind it could not use the server. Pure.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, cast

from stablequeue.editor_workflow import editor_texts, is_editor_format

WAITING = "Waiting for model"
"""State of a job that waits for a download."""

LACKS = "lacks:"
"""Begins the tag of a waiting run that says what a server lacks."""

_TAG = re.compile(r"<(?:lora|lyco):([^:<>]+)", re.IGNORECASE)
_FIELDS = ("checkpoint", "unet", "vae")
_PROMPTS = ("prompt", "positive_prompt", "negative_prompt")
_LONGEST = 1000


def lacks_tag(server: str, reference: str) -> str:
    """Return the tag of a run that waits because a server lacks what a reference means."""
    return f"{LACKS}{server}:{_digest(reference)}"


def lacked_on(server: str, tags: Iterable[str]) -> frozenset[str]:
    """Return what tags say that a server lacks, as `wanted_by` names it."""
    start = f"{LACKS}{server}:"
    return frozenset(tag.removeprefix(start) for tag in tags if tag.startswith(start))


def lacked_by_waiting(server: str, waiting: Iterable[tuple[int, Iterable[str]]]) -> dict[str, int]:
    """Return what jobs wait for because a server lacks it, and the most urgent tier of those jobs.

    Args:
        server: Its alias.
        waiting: Tier (0 is the most urgent) and tags of each job that waits for a download.
    """
    lacked: dict[str, int] = {}
    for tier, tags in waiting:
        for one in lacked_on(server, tags):
            lacked[one] = min(tier, lacked.get(one, tier))
    return lacked


def is_held_back(lacked: Mapping[str, int], tier: int, wanted: Iterable[str]) -> bool:
    """Whether a job stays back until others have what it wants, too.

    One that is more urgent than all of them does not: it has the download lifted.
    """
    return any(one in lacked and lacked[one] <= tier for one in wanted)


def wanted_by(request: Mapping[str, Any]) -> frozenset[str]:
    """Return what a request names, as digests; the request is not validated yet."""
    return frozenset(_digest(name) for name in _named(request) if 0 < len(name) <= _LONGEST)


def _named(request: Mapping[str, Any]) -> Iterator[str]:
    yield from (name for field in _FIELDS if isinstance(name := request.get(field), str))
    yield from (name for name in _listed(request.get("text_encoders")) if isinstance(name, str))
    for lora in _listed(request.get("loras")):
        name = cast("Mapping[str, Any]", lora).get("name") if isinstance(lora, dict) else None
        if isinstance(name, str):
            yield name
    for field in _PROMPTS:
        if isinstance(prompt := request.get(field), str) and "<" in prompt:
            yield from _TAG.findall(prompt)
    for field in ("workflow", "overrides"):
        yield from _texts(request.get(field))


def _texts(data: Any) -> Iterator[str]:
    """Yield the texts in the inputs of a workflow's nodes, or the values of overrides."""
    if not isinstance(data, dict):
        return
    if is_editor_format(workflow := cast("dict[str, Any]", data)):
        yield from editor_texts(workflow)
        return
    for value in cast("dict[str, Any]", data).values():
        if isinstance(value, str):
            yield value
        elif isinstance(value, dict):
            inputs = cast("dict[str, Any]", value).get("inputs")
            if isinstance(inputs, dict):
                texts = cast("dict[str, Any]", inputs).values()
                yield from (text for text in texts if isinstance(text, str))


def _listed(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _digest(reference: str) -> str:
    return hashlib.sha256(reference.strip().encode("utf-8", "replace")).hexdigest()[:16]
