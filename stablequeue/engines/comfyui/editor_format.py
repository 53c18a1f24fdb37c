"""From the editor's format to the API format, by the node classes of one server. Pure.

The editor shows more than a server runs: muted and bypassed nodes, notes, reroutes, primitives,
and subgraphs, whose inner nodes get ids like `57:6`. Each link is followed through all of these to
the node that really makes the value, or to the value itself.
Source: what ComfyUI's editor (1.16 to 1.47) sends for the same workflows.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stablequeue.editor_workflow import (
    INPUT_BOUNDARY,
    EditorGraph,
    EditorNode,
    EditorWorkflow,
    Link,
    NodeMode,
    Slot,
)
from stablequeue.engines.comfyui.answers import JSON, NodeClass, one_line
from stablequeue.engines.comfyui.editor_widgets import fits, widget_values
from stablequeue.errors import BadRequest

_PRIMITIVE = "PrimitiveNode"
_REROUTES = frozenset({"Reroute", "Reroute (rgthree)"})
_SHOWN_ONLY = frozenset(
    {
        *("Note", "MarkdownNote", "Label (rgthree)", "Bookmark (rgthree)"),
        *("Fast Groups Muter (rgthree)", "Fast Groups Bypasser (rgthree)"),
        *("Fast Muter (rgthree)", "Fast Bypasser (rgthree)"),
    }
)
_DRAWN = ("LOAD_3D", "LOAD_3D_ANIMATION")
_MOST_STEPS = 100_000
"""Turns of all links together; the most tangled templates take some thousands."""


@dataclass(frozen=True, slots=True)
class _Value:
    """What a link leads to, if it is a value of the editor's."""

    value: Any


_Found = tuple[str, int] | _Value | None


@dataclass(slots=True)
class _Scope:
    """A graph in its place: the whole one, or what one instance of a subgraph stands for.

    Attributes:
        path: What ids of its nodes begin with.
        instance: The node it stands for, in the scope `parent`.
        active: False: the instance is muted or bypassed, so that nothing in it runs.
        given: Values that the instance's own widgets have, by place of the subgraph's input.
        proxied: Values that they have for widgets of inner nodes, by node and widget.
    """

    path: str
    graph: EditorGraph
    instance: EditorNode | None = None
    parent: "_Scope | None" = None
    active: bool = True
    given: Mapping[int, Any] = field(default_factory=dict[int, Any])
    proxied: Mapping[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])
    inner: "dict[str, _Scope]" = field(default_factory=dict[str, "_Scope"])


def class_names(workflow: EditorWorkflow) -> list[str]:
    """Return the classes a server needs for a workflow, each once."""
    names = {
        node.kind: None
        for graph in workflow.graphs()
        for node in graph.nodes.values()
        if _is_real(node, workflow) and node.active
    }
    return list(names)


@dataclass(frozen=True, slots=True)
class Converted:
    """A workflow in API format.

    Attributes:
        graph: Nodes by id, with titles.
        shown: What only the editor has, as an override may name it (`NODE.INPUT`, by id or title):
            widgets of subgraphs, and primitives; with the inputs in the graph that it sets, and
            the node it is of.
    """

    graph: JSON
    shown: Mapping[str, Mapping[str, str]]

    def inside(self, overrides: Iterable[str]) -> dict[str, list[str]]:
        """Return the inputs in the graph for those of the overrides that name others.

        Raises:
            BadRequest: Several nodes have the title.
        """
        found = {name: self.shown[name] for name in overrides if name in self.shown}
        for name, inputs in found.items():
            nodes = sorted(set(inputs.values()))
            if len(nodes) > 1:
                field = f"overrides.{one_line(name, 120)}"
                problem = "several nodes have this title; name one by its id"
                raise BadRequest(field, problem, [one_line(node, 60) for node in nodes])
        return {name: [*inputs] for name, inputs in found.items()}


def to_api_format(workflow: EditorWorkflow, classes: Mapping[str, NodeClass | None]) -> Converted:
    """Return the same workflow in API format.

    Args:
        workflow: As the editor saved it.
        classes: The server's, for at least `class_names`.

    Raises:
        BadRequest: A node cannot be understood: its links go in circles, or a value cannot be one
            of its input's.
    """
    return _Conversion(workflow, classes).converted()


class _Conversion:
    def __init__(self, workflow: EditorWorkflow, classes: Mapping[str, NodeClass | None]) -> None:
        self._workflow = workflow
        self._classes = classes
        self._promoted: dict[str, list[int]] = {}
        self._shown: dict[str, dict[str, str]] = {}
        self._steps = 0

    def converted(self) -> Converted:
        graph = self._graph()
        shown = {
            name: inputs
            for name, inputs in self._shown.items()
            if name.partition(".")[0] not in graph
        }
        return Converted(graph, shown)

    def _graph(self) -> JSON:
        made: JSON = {}
        # All of them before the first link is followed: it may lead into any.
        for scope in list(self._scopes(_Scope("", self._workflow.root))):
            for node in scope.graph.nodes.values():
                described = self._classes.get(node.kind)
                if not scope.active or not self._runs(node) or described is None:
                    continue
                title = node.title or described.display or node.kind
                made[scope.path + node.id] = {
                    "inputs": self._inputs(scope, node, described),
                    "class_type": node.kind,
                    "_meta": {"title": title},
                }
        for node in made.values():
            node["inputs"] = {
                key: value
                for key, value in node["inputs"].items()
                if not isinstance(value, list) or value[0] in made
            }
        return made

    def _scopes(self, scope: _Scope) -> Iterator[_Scope]:
        """Make the scopes of all instances below one, and yield it and them."""
        yield scope
        for node in scope.graph.nodes.values():
            graph = self._workflow.subgraphs.get(node.kind)
            if graph is None:
                continue
            given, proxied = self._own_values(scope, node, graph)
            scope.inner[node.id] = inner = _Scope(
                path=f"{scope.path}{node.id}:",
                graph=graph,
                instance=node,
                parent=scope,
                active=scope.active and node.active,
                given=given,
                proxied=proxied,
            )
            yield from self._scopes(inner)

    def _own_values(
        self, scope: _Scope, node: EditorNode, graph: EditorGraph
    ) -> tuple[dict[int, Any], dict[tuple[str, str], Any]]:
        """Return what an instance's widgets hold, by input of the subgraph and by inner widget."""
        given: dict[int, Any] = {}
        proxied: dict[tuple[str, str], Any] = {}
        places = {slot.name: place for place, slot in reversed([*enumerate(graph.inputs)])}

        def put(entry: tuple[str, str], value: Any) -> None:
            if value is None:
                return
            if entry[0] != "-1":
                proxied[entry] = value
            elif entry[1] in places:
                given[places[entry[1]]] = value

        if node.proxied:
            for entry, value in zip(node.proxied, node.values, strict=False):
                put(entry, value)
        else:
            given |= self._in_order(node, graph)
        for name, value in () if node.values else node.named.items():
            put(("-1", name), value)
        for (node_id, name), value in scope.proxied.items():
            if node_id == node.id:
                put(next((one for one in node.proxied if one[1] == name), ("-1", name)), value)
        return given, proxied

    def _in_order(self, node: EditorNode, graph: EditorGraph) -> dict[int, Any]:
        """Return the values of an instance's widgets, which are in the order of its inputs."""
        places = self._promoted_inputs(node.kind, graph)
        values = list(node.values)
        found: dict[int, Any] = {}
        for position, place in enumerate(places):
            if not values:
                break
            value = values.pop(0)
            if value is not None:
                found[place] = value
            rest = len(places) - position - 1
            if len(values) > rest and values[0] in ("fixed", "increment", "decrement", "randomize"):
                values.pop(0)
        return found

    def _promoted_inputs(self, kind: str, graph: EditorGraph) -> list[int]:
        """Return which inputs of a subgraph are widgets inside."""
        if kind not in self._promoted:
            self._promoted[kind] = [
                place
                for place in range(len(graph.inputs))
                if any(self._leads_to_widget(graph, link) for link in graph.inner.get(place, ()))
            ]
        return self._promoted[kind]

    def _leads_to_widget(self, graph: EditorGraph, link: Link) -> bool:
        node = graph.nodes.get(link.target)
        if node is None or not 0 <= link.target_slot < len(node.inputs):
            return False
        slot = node.inputs[link.target_slot]
        if slot.widget:
            return True
        below = self._workflow.subgraphs.get(node.kind)
        if below is None:
            return False
        names = [one.name for one in below.inputs]
        return slot.name in names and names.index(slot.name) in self._promoted_inputs(
            node.kind, below
        )

    def _runs(self, node: EditorNode) -> bool:
        return node.active and _is_real(node, self._workflow)

    def _inputs(self, scope: _Scope, node: EditorNode, described: NodeClass) -> JSON:
        values = widget_values(described, node)
        for (node_id, name), value in scope.proxied.items():
            if node_id == node.id and name in described.inputs:
                values[name] = value
        self._show_proxied(scope, node, described)
        linked: JSON = {}
        for slot in node.inputs:
            found = self._source(scope, node, slot)
            if isinstance(found, _Value):
                values[slot.name] = found.value
            elif found is not None:
                linked[slot.name] = [*found]
        made: JSON = {}
        for name, value in values.items():
            if name in linked:
                continue
            kind, _ = described.inputs.get(name, (None, {}))
            if kind in _DRAWN and not isinstance(value, dict):
                raise _wrong(node, f"only the editor can draw its input {one_line(name, 60)}")
            if not fits(kind, value):
                raise _wrong(
                    node,
                    f"its input {one_line(name, 60)} cannot be {_said(value)}; the workflow may"
                    f" have been saved with another version of {one_line(node.kind, 60)}",
                )
            # A list would be taken for a link.
            made[name] = {"__value__": value} if isinstance(value, list) else value
        return {**made, **linked}

    def _show_proxied(self, scope: _Scope, node: EditorNode, described: NodeClass) -> None:
        instance = scope.instance
        for node_id, name in instance.proxied if instance is not None else ():
            if node_id == node.id and name in described.inputs and instance is not None:
                own = f"{scope.path}{node.id}.{name}"
                self._show(scope.path.removesuffix(":"), instance, (name,), own)

    def _show(self, path: str, node: EditorNode, names: Iterable[str], own: str) -> None:
        """Note that a widget of the editor's sets an input of the graph."""
        for before in filter(None, (path, node.title)):
            for name in filter(None, names):
                self._shown.setdefault(f"{before}.{name}", {})[own] = path

    def _source(self, scope: _Scope, target: EditorNode, slot: Slot) -> _Found:
        """Follow what is connected to an input to what makes its value; None: nothing does."""
        way = _Way(scope, _link_of(scope.graph, slot), slot.kind)
        own = f"{scope.path}{target.id}.{slot.name}"
        seen: set[tuple[str, Link, str]] = set()
        while True:
            if way.link is None:
                for path, instance, names in way.left:
                    self._show(path, instance, names, own)
                return way.fallback
            here = (way.scope.path, way.link, way.kind)
            if here in seen:
                name = one_line(slot.name, 60)
                raise _wrong(target, f"the links of its input {name} go in circles")
            seen.add(here)
            self._steps += 1
            if self._steps > _MOST_STEPS:
                raise BadRequest("workflow", f"its links take more turns than {_MOST_STEPS}")
            if way.link.origin == INPUT_BOUNDARY and way.scope.instance is not None:
                way.leave(way.scope.instance, way.link)
                continue
            node = way.scope.graph.nodes.get(way.link.origin)
            if node is None or node.mode == NodeMode.NEVER:
                return None
            if node.kind == _PRIMITIVE:
                self._show(way.scope.path + node.id, node, ("value",), own)
                value = node.values[0] if node.values else None
                return None if value is None else _Value(value)
            if node.mode != NodeMode.BYPASSED and self._runs(node):
                return way.scope.path + node.id, way.link.origin_slot
            way.pass_through(node, way.link)


@dataclass(slots=True)
class _Way:
    """Where following a link has come to.

    Attributes:
        kind: Type of the input that is to be fed.
        fallback: What it gets if the way ends here.
        left: Subgraphs that were left for it: path, instance, and names of the instance's input.
    """

    scope: _Scope
    link: Link | None
    kind: str
    fallback: _Value | None = None
    left: list[tuple[str, EditorNode, tuple[str, ...]]] = field(
        default_factory=list[tuple[str, EditorNode, tuple[str, ...]]]
    )

    def leave(self, instance: EditorNode, link: Link) -> None:
        """Go out of a subgraph, to what is connected to the instance's input."""
        if link.origin_slot in self.scope.given:
            self.fallback = _Value(self.scope.given[link.origin_slot])
        outer = _outer_slot(self.scope.graph, instance, link.origin_slot)
        if 0 <= link.origin_slot < len(self.scope.graph.inputs):
            slot = self.scope.graph.inputs[link.origin_slot]
            names = (slot.name, slot.label, outer.label if outer is not None else "")
            self.left.append((self.scope.path.removesuffix(":"), instance, names))
        self.scope = self.scope.parent or self.scope
        self.link = _link_of(self.scope.graph, outer)

    def pass_through(self, node: EditorNode, link: Link) -> None:
        """Go through a node that does not run: to an input of it, or into its subgraph."""
        self.fallback = None
        self.left.clear()
        inner = self.scope.inner.get(node.id)
        if node.mode == NodeMode.BYPASSED:
            slot = _through(node, link.origin_slot, self.kind)
            self.kind = slot.kind if slot is not None else self.kind
            self.link = _link_of(self.scope.graph, slot)
        elif inner is not None:
            self.scope, self.link = inner, inner.graph.outputs.get(link.origin_slot)
        else:  # a reroute; notes have no inputs
            self.link = _link_of(self.scope.graph, node.inputs[0] if node.inputs else None)


def _is_real(node: EditorNode, workflow: EditorWorkflow) -> bool:
    virtual = node.kind in _SHOWN_ONLY | _REROUTES or node.kind == _PRIMITIVE
    return not virtual and node.kind not in workflow.subgraphs


def _link_of(graph: EditorGraph, slot: Slot | None) -> Link | None:
    return graph.links.get(slot.link) if slot is not None and slot.link is not None else None


def _outer_slot(graph: EditorGraph, instance: EditorNode, place: int) -> Slot | None:
    """Return the input of an instance that stands for an input of its subgraph."""
    if not 0 <= place < len(graph.inputs):
        return None
    name = graph.inputs[place].name
    number = sum(slot.name == name for slot in graph.inputs[:place])
    alike = [slot for slot in instance.inputs if slot.name == name]
    return alike[number] if number < len(alike) else None


def _through(node: EditorNode, output: int, kind: str) -> Slot | None:
    """Return the input whose value leaves a bypassed node by an output, if any does."""
    own = node.outputs[output] if 0 <= output < len(node.outputs) else "*"
    slots = node.inputs
    opposite = slots[output] if 0 <= output < len(slots) else None
    if kind in {"*", ""}:
        return opposite or (slots[0] if slots else None)
    if opposite and _compatible(opposite.kind, own) and _compatible(opposite.kind, kind):
        return opposite
    exact = next((slot for slot in slots if slot.kind == kind), None)
    return exact or next(
        (slot for slot in slots if _compatible(slot.kind, own) and _compatible(slot.kind, kind)),
        None,
    )


def _compatible(one: str, other: str) -> bool:
    if one in {"*", ""} or other in {"*", ""}:
        return True
    return bool({*one.casefold().split(",")} & {*other.casefold().split(",")})


def _said(value: Any) -> str:
    return one_line(repr(value), 60)


def _wrong(node: EditorNode, problem: str) -> BadRequest:
    return BadRequest("workflow", f"{node}: {problem}")
