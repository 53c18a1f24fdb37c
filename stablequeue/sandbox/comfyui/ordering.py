"""In which order the nodes of a workflow run.

Source: the order of `executing` messages in the recordings. Only what the outputs need runs. Of
the nodes that are ready, an output comes first, then one that an output waits for (directly, or
through one node between), then whichever was met first on the way back from the outputs.
"""

from collections.abc import Callable, Iterable
from math import isfinite
from typing import Any, cast

from stablequeue.sandbox.comfyui.nodes import NODES

JSON = dict[str, Any]


def links(node: JSON) -> list[tuple[str, int]]:
    """Return the links into the declared inputs of a node, in order."""
    return [
        (source, slot)
        for value in cast("JSON", node["inputs"]).values()
        if (link := as_link(value)) is not None
        for source, slot in (link,)
    ]


def as_link(value: Any) -> tuple[str, int] | None:
    """Return `value` as (node, output) if it is a link."""
    match value:
        case [str() as source, int() as slot] if not isinstance(slot, bool):
            return source, slot
        case [str() as source, float() as slot] if isfinite(slot):
            return source, int(slot)
        case _:
            return None


class Agenda:
    """The nodes still to run."""

    def __init__(self, prompt: JSON, outputs: Iterable[str], cached: Callable[[str], bool]) -> None:
        self._prompt = prompt
        self._waits_for: dict[str, set[str]] = {}
        self._blocks: dict[str, set[str]] = {}
        for output in outputs:
            self._add(output, cached)

    def _add(self, output: str, cached: Callable[[str], bool]) -> None:
        to_meet = [output]
        met: list[tuple[str, str]] = []
        while to_meet:
            node_id = to_meet.pop()
            if node_id in self._waits_for:
                continue
            self._waits_for[node_id] = set()
            self._blocks[node_id] = set()
            for source, _ in links(self._prompt[node_id]):
                if not cached(source):
                    to_meet.append(source)
                    met.append((source, node_id))
        for source, node_id in met:
            self._waits_for[node_id].add(source)
            self._blocks[source].add(node_id)

    def next(self) -> str | None:
        """Return the node to run now, or None at the end."""
        ready = [node_id for node_id, before in self._waits_for.items() if not before]
        if not ready:
            return None
        for wanted in (self._is_output, self._feeds_output, self._nearly_feeds_output):
            if (chosen := next(filter(wanted, ready), None)) is not None:
                return chosen
        return ready[0]

    def done(self, node_id: str) -> None:
        """Take a node off the agenda."""
        del self._waits_for[node_id]
        for blocked in self._blocks[node_id]:
            self._waits_for[blocked].discard(node_id)

    def _is_output(self, node_id: str) -> bool:
        return NODES[self._prompt[node_id]["class_type"]].output_node

    def _nearly_feeds_output(self, node_id: str) -> bool:
        return any(map(self._feeds_output, self._blocks[node_id]))

    def _feeds_output(self, node_id: str) -> bool:
        return any(map(self._is_output, self._blocks[node_id]))
