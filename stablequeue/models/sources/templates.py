"""The models a ComfyUI workflow template says it needs, and where they are.

A template tells them in three places, the first of which wins for a name: the `models` property of
a node (`name`, `url`, `directory`, maybe `hash` and `hash_type`), a list `models` of the workflow
itself, and links to model files in its notes. Nodes also stand in subgraph definitions. Everything
in a workflow may be hostile: names and URLs are only read here, and checked by who uses them.
Source: the templates of Comfy-Org/workflow_templates (2025-2026).
"""

import re
from collections.abc import Iterator
from typing import Any, cast
from urllib.parse import unquote, urlsplit

from stablequeue.models.sources.asking import as_mapping, as_mappings
from stablequeue.models.sources.kinds import of_comfyui
from stablequeue.models.sources.naming import has_model_suffix
from stablequeue.models.sources.offer import Wanted

MOST_LINKS = 200
_LONGEST_NOTE = 50_000
_LONGEST = 2000
_NOTES = frozenset({"MarkdownNote", "Note"})
_LINK = re.compile(r"\[([^\[\]\n]{1,300})\]\((https?://[^\s()<>]{1,2000})\)")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def model_links(workflow: Any) -> list[Wanted]:
    """Return the models a workflow names with an address, each name once, in its own order.

    Args:
        workflow: The editor's JSON. A graph in API form has none of this.
    """
    data = as_mapping(workflow)
    found: dict[str, Wanted] = {}
    listed = [*_of_nodes(data), *_of_list(data.get("models")), *_of_notes(data)]
    for wanted in listed:
        key = wanted.name.casefold()
        if key not in found and len(found) < MOST_LINKS:
            found[key] = wanted
    return list(found.values())


def _of_nodes(data: dict[str, Any]) -> Iterator[Wanted]:
    for node in _nodes(data):
        yield from _of_list(as_mapping(node.get("properties")).get("models"))


def _of_list(entries: Any) -> Iterator[Wanted]:
    for entry in as_mappings(entries):
        name, url, folder = (_text(entry.get(key)) for key in ("name", "url", "directory"))
        if name and url:
            yield Wanted(
                url=url, name=name, kind=of_comfyui(folder), folder=folder, sha256=_sha256(entry)
            )


def _of_notes(data: dict[str, Any]) -> Iterator[Wanted]:
    for node in _nodes(data):
        values = node.get("widgets_values")
        if node.get("type") not in _NOTES or not isinstance(values, list):
            continue
        for text in cast("list[Any]", values):
            if isinstance(text, str):
                yield from _of_note(text[:_LONGEST_NOTE])


def _of_note(text: str) -> Iterator[Wanted]:
    for found in _LINK.finditer(text):
        url = found[2]
        folders = [unquote(part) for part in _path(url).split("/")]
        name = folders.pop()
        if not has_model_suffix(name):
            continue
        folder = next((one for one in reversed(folders) if of_comfyui(one)), "")
        yield Wanted(url=url, name=name, kind=of_comfyui(folder), folder=folder)


def _nodes(data: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the nodes of the workflow and of its subgraphs, whatever their depth."""
    yield from as_mappings(data.get("nodes"))
    for subgraph in as_mappings(as_mapping(data.get("definitions")).get("subgraphs")):
        yield from as_mappings(subgraph.get("nodes"))


def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _text(value: Any) -> str:
    return value.strip() if isinstance(value, str) and len(value) <= _LONGEST else ""


def _sha256(entry: dict[str, Any]) -> str:
    """Return the promised hash, if it is of the one kind that can be relied on."""
    if _text(entry.get("hash_type")).casefold().replace("-", "") not in {"sha256", ""}:
        return ""
    value = _text(entry.get("hash")).casefold().removeprefix("sha256:").removeprefix("0x")
    return value if _SHA256.fullmatch(value) else ""
