"""A user's own workflow in API format, made into one picture's graph.

Pure: overrides by name, this picture's seed, uploaded pictures in place of their names, and file
name prefixes of our own, so that files are ours to find and never a name of an earlier run's
(SaveImage numbers by what is in the folder; scenario 11).

A user's workflow is trusted code: it can read images outside the server's input folder.
"""

import copy
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from stablequeue.engines.comfyui.answers import JSON, mapping, one_line, text
from stablequeue.engines.comfyui.progress import is_link
from stablequeue.errors import BadRequest

SEED_INPUTS = ("seed", "noise_seed")
PLACEHOLDERS = ("init_image", "mask_image")
_PICTURE_INPUTS = ("image", "mask")
# They save models, not results: their prefix says where a model goes.
_MODEL_SAVERS = {
    "CheckpointSave",
    "CLIPSave",
    "ImageOnlyCheckpointSave",
    "LoraSave",
    "ModelSave",
    "VAESave",
}
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")


def with_overrides(workflow: Mapping[str, Any], overrides: Mapping[str, Any]) -> JSON:
    """Return a copy with inputs replaced.

    Args:
        workflow: API format; not changed.
        overrides: `NODE.INPUT` -> value, where NODE is a node's id or its title (`_meta.title`),
            as long as only one node has it. An id wins over a title.

    Raises:
        BadRequest: There is no such node or input, or several nodes have the title; says what
            there is.
    """
    graph: JSON = copy.deepcopy(dict(workflow))
    for name, value in overrides.items():
        node_id, key = find_input(graph, name)
        graph[node_id]["inputs"][key] = copy.deepcopy(value)
    return graph


def named_inside(
    overrides: Mapping[str, Any], inside: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Return overrides that name inputs of the graph, for some that name what the editor shows.

    Args:
        overrides: As asked.
        inside: For each of those, the inputs it sets. One that is named itself keeps its own value.
    """
    named = {one: value for name, value in overrides.items() for one in inside.get(name, ())}
    return named | {name: value for name, value in overrides.items() if name not in inside}


def find_input(graph: Mapping[str, Any], name: str) -> tuple[str, str]:
    """Return node id and input that `NODE.INPUT` names; both may contain dots.

    Raises:
        BadRequest: As in `with_overrides`.
    """
    splits = [(name[:dot], name[dot + 1 :]) for dot, sign in enumerate(name) if sign == "."]
    nodes = [(_find_nodes(graph, node), key) for node, key in reversed(splits)]
    for found, key in nodes:
        having = [node for node in found if key in _inputs(graph, node)]
        if len(having) == 1 and len(found) == 1:
            return having[0], key
    field = f"overrides.{one_line(name, 120)}"
    for found, _ in nodes:
        if len(found) > 1:
            ids = [one_line(node, 60) for node in sorted(found)]
            raise BadRequest(field, "several nodes have this title; name one by its id", ids)
        if found:
            allowed = [one_line(key, 60) for key in sorted(_inputs(graph, found[0]))]
            raise BadRequest(field, f"node {found[0]!r} has no such input", allowed)
    problem = "there is no node with this id or title" if splits else "write it as NODE.INPUT"
    raise BadRequest(field, problem, [*_nodes_for_people(graph)])


def seed_inputs(graph: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the (node id, input) pairs that hold seeds, in the graph's order.

    A seed that comes over a link from a node with a number of its own is set there.
    """
    found: dict[tuple[str, str], None] = {}
    for node_id in graph:
        inputs = _inputs(graph, node_id)
        for key in SEED_INPUTS:
            value = inputs.get(key)
            if _is_number(value):
                found[node_id, key] = None
            elif is_link(value):
                source = _inputs(graph, value[0])
                for name in (*SEED_INPUTS, "value"):
                    if _is_number(source.get(name)):
                        found[value[0], name] = None
    return list(found)


def seed_of(graph: Mapping[str, Any]) -> int | None:
    """Return the first seed in the graph; None: it has none."""
    return next((graph[node_id]["inputs"][key] for node_id, key in seed_inputs(graph)), None)


def with_seed(
    graph: JSON, *, seed: int, asked: bool, index: int, kept: Iterable[tuple[str, str]]
) -> list[str]:
    """Set this picture's seed in place; return the inputs that were set, for the record.

    Args:
        graph: Changed in place.
        seed: This picture's seed.
        asked: The request names a seed, or asks for several pictures. Otherwise the workflow's
            own seeds stay.
        index: Which picture.
        kept: Inputs an override has set: they keep that seed, plus `index`.
    """
    kept = set(kept)
    changed: list[str] = []
    for node_id, key in seed_inputs(graph):
        inputs = graph[node_id]["inputs"]
        if (node_id, key) in kept:
            inputs[key] += index
        elif asked:
            inputs[key] = seed
        else:
            continue
        changed.append(f"{node_id}.{key}")
    return changed


def placeholders(graph: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (node id, input, field) where a picture of the request belongs."""
    for node_id in graph:
        for key, value in _inputs(graph, node_id).items():
            if key in _PICTURE_INPUTS and value in PLACEHOLDERS:
                yield node_id, key, value


def with_prefixes(graph: JSON, folder: str) -> list[str]:
    """Let every saving node save below `folder`, in place; return their ids.

    The first saves as `folder/img`, each further one as `folder/img-<node id>`.
    """
    savers = [
        node_id
        for node_id in graph
        if "filename_prefix" in _inputs(graph, node_id)
        and text(mapping(graph[node_id]).get("class_type")) not in _MODEL_SAVERS
    ]
    for place, node_id in enumerate(savers):
        name = f"img-{_UNSAFE.sub('_', node_id)}" if place else "img"
        graph[node_id]["inputs"]["filename_prefix"] = f"{folder}/{name}"
    return savers


def saves_one_picture(graph: Mapping[str, Any], savers: Iterable[str]) -> bool:
    """Whether all it saves are SaveImage's files of one node, which can be found by name."""
    classes = [text(mapping(graph[node_id]).get("class_type")) for node_id in savers]
    return classes == ["SaveImage"]


def _inputs(graph: Mapping[str, Any], node_id: str) -> JSON:
    return mapping(mapping(graph.get(node_id)).get("inputs"))


def _find_nodes(graph: Mapping[str, Any], name: str) -> list[str]:
    if name in graph:
        return [name]
    return [node_id for node_id in graph if _title(graph, node_id) == name]


def _title(graph: Mapping[str, Any], node_id: str) -> str:
    return text(mapping(mapping(graph[node_id]).get("_meta")).get("title"))


def _nodes_for_people(graph: Mapping[str, Any]) -> Iterator[str]:
    for node_id in graph:
        title = _title(graph, node_id) or text(mapping(graph[node_id]).get("class_type"))
        yield one_line(f"{node_id} ({title})" if title else node_id, 100)


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
