"""ComfyUI's workflows in the format its editor saves, read into plain dataclasses. Pure.

The editor saves what it shows: nodes with the values of their widgets in order, links, and the
definitions of subgraphs, which nodes of the graph are instances of. The API format, which a server
runs, is made of this and of the server's node classes by `engines.comfyui.editor_format`.
Everything in a workflow may be hostile: sizes and depth are bounded, and what is damaged is named.
Source: templates and saved workflows of the format's version 0.4 (2023-2026).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, cast

from stablequeue.errors import BadRequest
from stablequeue.request_checks import one_line

JSON = dict[str, Any]

INPUT_BOUNDARY = "-10"
"""Links inside a subgraph that come from its inputs come from the node of this id."""

OUTPUT_BOUNDARY = "-20"
"""Links inside a subgraph that lead to its outputs lead to the node of this id."""

MOST_NODES = 10_000
"""Of a workflow with every subgraph written out."""

DEEPEST = 30
"""Subgraphs inside each other."""

_WITHOUT_LINKS = frozenset(
    {
        *("GetNode", "SetNode", "easy getNode", "easy setNode"),
        *("Anything Everywhere", "Anything Everywhere?", "Anything Everywhere3"),
        *("Prompts Everywhere", "Seed Everywhere"),
    }
)
"""They hand values on without a link, by rules of their own packs, which only the editor has."""

_GROUPS = ("workflow/", "workflow>")
_MOST_SLOTS = 300
_TOO_DEEP = f"more than {DEEPEST} subgraphs are inside each other"


class NodeMode(IntEnum):
    """Whether a node takes part; other numbers count as ALWAYS."""

    ALWAYS = 0
    NEVER = 2
    BYPASSED = 4


@dataclass(frozen=True, slots=True)
class Slot:
    """An input of a node.

    Attributes:
        link: Id of what is connected; None: nothing.
        widget: It is a widget that may be connected, too.
        label: What the editor shows instead of its name; empty: the name.
    """

    name: str
    kind: str
    link: str | None = None
    widget: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Link:
    """A connection from an output of one node to an input of another."""

    origin: str
    origin_slot: int
    target: str
    target_slot: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorNode:
    """A node as the editor saved it.

    Attributes:
        kind: Its class, or the id of the subgraph it is an instance of.
        outputs: Types.
        values: Of its widgets, in order; with `named` by name, which some have instead or as well.
            Where both are, those in order count, and the other tells only the names.
        proxied: For an instance: which widgets of inner nodes it shows (node id, widget).
    """

    id: str
    kind: str
    title: str
    mode: int
    inputs: tuple[Slot, ...] = ()
    outputs: tuple[str, ...] = ()
    values: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict[str, Any])
    proxied: tuple[tuple[str, str], ...] = ()

    @property
    def active(self) -> bool:
        """Whether it takes part itself."""
        return self.mode not in {NodeMode.NEVER, NodeMode.BYPASSED}

    def __str__(self) -> str:
        title = f" ({one_line(self.title, 60)})" if self.title else ""
        return f"node {one_line(self.id, 60)}{title}"


@dataclass(frozen=True, slots=True, kw_only=True)
class EditorGraph:
    """The graph itself, or the definition of a subgraph.

    Attributes:
        nodes: By id, in their own order.
        links: By id.
        inputs: A subgraph's, by name and type.
        outputs: Inner link that leads to each of a subgraph's outputs.
        inner: Links inside that come from each of a subgraph's inputs.
    """

    nodes: Mapping[str, EditorNode]
    links: Mapping[str, Link]
    inputs: tuple[Slot, ...] = ()
    outputs: Mapping[int, Link] = field(default_factory=dict[int, Link])
    inner: Mapping[int, Sequence[Link]] = field(default_factory=dict[int, "list[Link]"])


@dataclass(frozen=True, slots=True)
class EditorWorkflow:
    """A whole workflow; `subgraphs` by id, and none contains itself."""

    root: EditorGraph
    subgraphs: Mapping[str, EditorGraph]

    def graphs(self) -> Iterator[EditorGraph]:
        """Yield the graph, and each subgraph it uses once."""
        seen: set[str] = set()
        waiting = [self.root]
        while waiting:
            graph = waiting.pop()
            yield graph
            for node in graph.nodes.values():
                if node.kind in self.subgraphs and node.kind not in seen:
                    seen.add(node.kind)
                    waiting.append(self.subgraphs[node.kind])


def is_editor_format(workflow: Mapping[str, Any]) -> bool:
    """Say whether this is a workflow as ComfyUI's editor saves it."""
    return "nodes" in workflow and "links" in workflow


def read_editor_workflow(workflow: Mapping[str, Any]) -> EditorWorkflow:
    """Read a workflow as the editor saves it.

    Raises:
        BadRequest: It is damaged or too large, or only the editor can follow it; says where.
    """
    subgraphs: dict[str, EditorGraph] = {}
    definitions = _object(workflow.get("definitions"))
    for place, data in enumerate(_list(definitions.get("subgraphs"), "definitions.subgraphs")):
        described = _object(data)
        name = described.get("id")
        if not isinstance(name, str) or not name:
            raise _damaged(f"subgraph {place} has no id")
        subgraphs[name] = _graph(described, f"subgraph {one_line(name, 60)}: ")
    found = EditorWorkflow(_graph(workflow, ""), subgraphs)
    if not found.root.nodes:
        raise _damaged("it has no nodes")
    _check_size(found)
    for graph in found.graphs():
        for node in graph.nodes.values():
            if node.active and node.kind not in subgraphs:
                _check_kind(node)
    return found


def editor_texts(workflow: Mapping[str, Any]) -> Iterator[str]:
    """Yield the texts among the values of all nodes; what is damaged is passed over."""
    subgraphs = _object(workflow.get("definitions")).get("subgraphs")
    for graph in (workflow, *(map(_object, _lenient(subgraphs)))):
        for node in map(_object, _lenient(graph.get("nodes"))):
            values: Any = node.get("widgets_values")
            if isinstance(values, dict):
                values = list(cast("JSON", values).values())
            yield from (value for value in _lenient(values) if isinstance(value, str))


def _graph(data: Mapping[str, Any], where: str) -> EditorGraph:
    nodes: dict[str, EditorNode] = {}
    for place, described in enumerate(_list(data.get("nodes"), f"{where}nodes")):
        node = _node(described, f"{where}node number {place}")
        if node.id in nodes:
            raise _damaged(f"{where}two nodes have the id {one_line(node.id, 60)}")
        nodes[node.id] = node
    links = dict(_links(data.get("links"), where))
    outputs: dict[int, Link] = {}
    inner: dict[int, list[Link]] = {}
    for link in links.values():
        if link.target == OUTPUT_BOUNDARY:
            outputs.setdefault(link.target_slot, link)
        if link.origin == INPUT_BOUNDARY:
            inner.setdefault(link.origin_slot, []).append(link)
    # The inputs of the whole graph are those of no instance: only a definition has any.
    inputs = tuple(_slots(data.get("inputs"), f"{where}inputs")) if where else ()
    return EditorGraph(nodes=nodes, links=links, inputs=inputs, outputs=outputs, inner=inner)


def _node(data: Any, where: str) -> EditorNode:
    if not isinstance(data, dict):
        raise _damaged(f"{where} is no object")
    described = cast("JSON", data)
    node_id = _id(described.get("id"))
    if node_id is None:
        raise _damaged(f"{where} has no id")
    where = f"node {one_line(node_id, 60)}"
    kind = described.get("type")
    if not isinstance(kind, str) or not kind:
        raise _damaged(f"{where} has no type")
    properties = _object(described.get("properties"))
    mode, title = described.get("mode"), described.get("title")
    values: Any = described.get("widgets_values")
    named = _object(described.get("widgets_values_named"))
    if isinstance(values, dict):
        named, values = {**named, **cast("JSON", values)}, None
    return EditorNode(
        id=node_id,
        kind=kind,
        title=title if isinstance(title, str) else "",
        mode=mode if isinstance(mode, int) else 0,
        inputs=tuple(_slots(described.get("inputs"), f"{where}: inputs")),
        outputs=tuple(slot.kind for slot in _slots(described.get("outputs"), f"{where}: outputs")),
        values=tuple(_list(values, f"{where}: widgets_values")),
        named=named,
        proxied=tuple(_pairs(properties.get("proxyWidgets"), f"{where}: proxyWidgets")),
    )


def _slots(data: Any, where: str) -> Iterator[Slot]:
    slots = _list(data, where)
    if len(slots) > _MOST_SLOTS:
        raise _damaged(f"{where}: there are more than {_MOST_SLOTS}")
    for slot in map(_object, slots):
        name, kind, label = slot.get("name"), slot.get("type"), slot.get("label")
        yield Slot(
            name=name if isinstance(name, str) else "",
            kind=kind if isinstance(kind, str) else "*",
            link=_id(slot.get("link")),
            widget=isinstance(slot.get("widget"), dict),
            label=label if isinstance(label, str) else "",
        )


def _links(data: Any, where: str) -> Iterator[tuple[str, Link]]:
    """Yield links: `[id, origin, slot, target, slot, type]`, or objects that say the same."""
    for place, described in enumerate(_list(data, f"{where}links")):
        if described is None:
            continue  # the editor leaves such holes
        if isinstance(described, dict):
            known = cast("JSON", described)
            names = ("id", "origin_id", "origin_slot", "target_id", "target_slot")
            parts = [known.get(name) for name in names]
        else:
            parts = cast("list[Any]", described) if isinstance(described, list) else []
        if len(parts) < 5:  # noqa: PLR2004 - id, two ends of two parts
            raise _damaged(f"{where}link number {place} is no link")
        link_id, origin, target = _id(parts[0]), _id(parts[1]), _id(parts[3])
        slots = (_index(parts[2]), _index(parts[4]))
        if link_id is None or origin is None or target is None or None in slots:
            raise _damaged(f"{where}link number {place} does not say what it connects")
        yield link_id, Link(origin, slots[0] or 0, target, slots[1] or 0)


def _check_kind(node: EditorNode) -> None:
    """Refuse what only the editor can follow."""
    instead = "export the workflow with 'Export (API)'"
    if node.kind in _WITHOUT_LINKS:
        how = f"{one_line(node.kind, 60)} hands values on without a link"
        raise BadRequest("workflow", f"{node}: {how}, which only the editor can follow; {instead}")
    if node.kind.startswith(_GROUPS):
        problem = f"it is a group node of older editors; make it a subgraph, or {instead}"
        raise BadRequest("workflow", f"{node}: {problem}")


def _check_size(workflow: EditorWorkflow) -> None:
    """Refuse subgraphs inside themselves, and more nodes than anybody draws."""
    known: dict[str, tuple[int, int]] = {}

    def measure(graph: EditorGraph, inside: tuple[str, ...]) -> tuple[int, int]:
        """Return how many nodes there are with all subgraphs written out, and how deep."""
        total, depth = len(graph.nodes), 0
        for node in graph.nodes.values():
            if node.kind not in workflow.subgraphs:
                continue
            if node.kind in inside:
                raise _damaged(f"{node}: its subgraph contains itself")
            if len(inside) >= DEEPEST:
                raise _damaged(_TOO_DEEP)
            if node.kind not in known:
                below = workflow.subgraphs[node.kind]
                known[node.kind] = measure(below, (*inside, node.kind))
            nodes, levels = known[node.kind]
            total, depth = total + nodes, max(depth, levels + 1)
        return total, depth

    total, depth = measure(workflow.root, ())
    if depth > DEEPEST:
        raise _damaged(_TOO_DEEP)
    if total > MOST_NODES:
        raise _damaged(f"it has more than {MOST_NODES} nodes")


def _pairs(data: Any, where: str) -> Iterator[tuple[str, str]]:
    entries = _lenient(data)
    if len(entries) > _MOST_SLOTS:
        raise _damaged(f"{where}: there are more than {_MOST_SLOTS}")
    for entry in entries:
        parts = _lenient(entry)
        node_id = _id(parts[0]) if len(parts) >= 2 else None  # noqa: PLR2004
        name = parts[1] if node_id is not None else ""
        yield node_id or "", name if isinstance(name, str) else ""


def _id(value: Any) -> str | None:
    """Return a node's or a link's id, which are numbers or texts, as text."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        return None
    return str(value)


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 6:  # noqa: PLR2004
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _list(value: Any, where: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise _damaged(f"{where} is no list")
    return cast("list[Any]", value)


def _lenient(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _object(value: Any) -> JSON:
    return cast("JSON", value) if isinstance(value, dict) else {}


def _damaged(problem: str) -> BadRequest:
    return BadRequest("workflow", f"the editor's workflow is damaged: {problem}")
