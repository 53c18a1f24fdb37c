"""From ComfyUI's messages about one prompt to one fraction that never goes back.

Nothing here waits or sends. Nodes count 1 each, samplers as much as their steps; what is cached or
not reachable from an output does not count. `progress` starts again for every node, so the whole is
kept monotonic here. The messages are a hint: whether a prompt ended is settled by `/history` alone.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, TypeGuard

from stablequeue.engines.base import Phase, Progress
from stablequeue.engines.comfyui.answers import (
    JSON,
    mapping,
    number,
    one_line,
    sequence,
    text,
    whole,
)

_ALMOST = 0.99  # until history says so, it is not done
_MOST_STEPS = 100_000  # a hostile `steps` must not hide everything else
_MOST_NODES = 10_000
_ENDINGS = {"execution_success", "execution_error", "execution_interrupted"}


def is_link(value: Any) -> TypeGuard[list[Any]]:
    """Whether an input's value is `[node id, output index]`."""
    parts = sequence(value)
    return (
        len(parts) == 2  # noqa: PLR2004
        and isinstance(parts[0], str)
        and isinstance(parts[1], int)
    )


def reachable(graph: Mapping[str, Any], outputs: Iterable[str]) -> set[str]:
    """Return the ids of the nodes that run for these output nodes, in no order."""
    found: set[str] = set()
    waiting = [node for node in outputs if node in graph]
    while waiting:
        node = waiting.pop()
        if node in found:
            continue
        found.add(node)
        inputs = mapping(mapping(graph[node]).get("inputs"))
        waiting += [link[0] for link in inputs.values() if is_link(link) and link[0] in graph]
    return found


class Tracker:
    """What is known about one prompt that runs.

    Attributes:
        changed: Set by every message worth showing; whoever shows them clears it.
        hint: Set by every message that may mean the end; whoever awaits the end clears it.
        ended: Whether such a message came.
    """

    def __init__(self, prompt_id: str) -> None:
        self.prompt_id = prompt_id
        self.changed = asyncio.Event()
        self.hint = asyncio.Event()
        self.ended = False
        self.preview: bytes | None = None
        self.client_id = ""  # the one it was posted with; its messages go to that socket only
        self._weights: dict[str, float] = {}
        self._done: dict[str, float] = {}  # 0 to 1, also of nodes not yet known to count
        self._knows_graph = False
        self._titles: dict[str, str] = {}
        self._phase = Phase.QUEUED
        self._sampled = False
        self._heard = False
        self._fraction: float | None = None
        self._step = self._steps = 0
        self._title = ""

    @property
    def knows_graph(self) -> bool:
        """Whether `expect` was called."""
        return self._knows_graph

    @property
    def heard(self) -> bool:
        """Whether any message about it came: then an end will be told, too."""
        return self._heard

    def expect(self, graph: Mapping[str, Any], outputs: Iterable[str] = ()) -> None:
        """Say what will run; without output nodes the whole graph counts."""
        self._knows_graph = True
        wanted = reachable(graph, outputs) or set(graph)
        for node_id in wanted:
            described = mapping(graph[node_id])
            steps = number(mapping(described.get("inputs")).get("steps"))
            self._weights[node_id] = min(max(steps, 1.0), _MOST_STEPS)
            title = text(mapping(described.get("_meta")).get("title"))
            self._titles[node_id] = one_line(title or text(described.get("class_type")), 60)
        self._count()

    def started(self) -> None:
        """Note that the queue shows it running, though no message said so."""
        if self._phase is Phase.QUEUED:
            self._phase = Phase.LOADING
            self.changed.set()

    def apply(self, kind: str, data: JSON) -> None:
        """Take in one message that is about this prompt."""
        self._heard = True
        if kind in _ENDINGS:
            self._phase = Phase.FINISHING
            # `execution_success` comes before the history entry is written, so it is only a
            # reason to look; `executing` with node null comes after.
            self.end()
            return
        self.started()
        match kind:
            case "execution_cached":
                for node_id in sequence(data.get("nodes")):
                    if isinstance(node_id, str):
                        self._weights.pop(node_id, None)
            case "executing":
                self._executing(data)
            case "progress":
                self._progress(text(data.get("node")), data.get("value"), data.get("max"))
            case "progress_state":
                for node_id, state in mapping(data.get("nodes")).items():
                    self._state(node_id, mapping(state))
            case "executed":
                self._finish(text(data.get("node")))
            case _:
                return
        self._count()
        self.changed.set()

    def end(self) -> None:
        """Note that it may be over: everybody who waits for it looks now."""
        self.ended = True
        self.changed.set()
        self.hint.set()

    def show_preview(self, image: bytes) -> None:
        """Keep the newest preview; older ones are of no use to anybody."""
        self.preview = image
        self.changed.set()

    def snapshot(self) -> Progress:
        """Return what is known, and forget the preview, which is handed out once."""
        preview, self.preview = self.preview, None
        return Progress(
            phase=self._phase,
            fraction=self._fraction,
            step=self._step,
            steps=self._steps,
            message=self._words(),
            preview=preview,
        )

    def _words(self) -> str:
        if self._title and self._phase is Phase.SAMPLING and self._steps > 1:
            return f"{self._title}, step {self._step} of {self._steps}"
        return self._title

    def _executing(self, data: JSON) -> None:
        node_id = data.get("node")
        if node_id is None:
            self._phase = Phase.FINISHING
            self.end()
            return
        shown = text(data.get("display_node")) or text(node_id)
        self._title = self._titles.get(shown, "")
        if self._weights.get(shown, 0.0) > 1:
            self._phase = Phase.SAMPLING
        else:
            self._phase = Phase.FINISHING if self._sampled else Phase.LOADING

    def _progress(self, node_id: str, value: Any, largest: Any) -> None:
        self._step, self._steps = whole(value), whole(largest)
        if self._steps > 1:
            self._phase = Phase.SAMPLING
            self._sampled = True
        self._advance(node_id, number(value), number(largest))

    def _state(self, node_id: str, state: JSON) -> None:
        shown = text(state.get("display_node_id")) or node_id
        if state.get("state") == "finished":
            # Part of an expanded node: the node itself is finished by its own entry.
            if shown == node_id:
                self._finish(node_id)
        else:
            self._advance(shown, number(state.get("value")), number(state.get("max")))

    def _advance(self, node_id: str, value: float, largest: float) -> None:
        if largest > 0 and len(self._done) < _MOST_NODES:
            fraction = min(max(value / largest, 0.0), 1.0)
            self._done[node_id] = max(self._done.get(node_id, 0.0), fraction)

    def _finish(self, node_id: str) -> None:
        self._advance(node_id, 1.0, 1.0)

    def _count(self) -> None:
        total = sum(self._weights.values())
        if total <= 0:
            return
        done = sum(weight * self._done.get(node, 0.0) for node, weight in self._weights.items())
        fraction = done / total
        self._fraction = max(self._fraction or 0.0, min(fraction, _ALMOST))
