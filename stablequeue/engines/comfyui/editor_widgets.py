"""The values of a node's widgets by name, read off the order in which the editor saved them. Pure.

Order and number are the editor's own: each input that is a widget has a value; after a seed comes
what becomes of it after a run; after the required ones an upload button. Which inputs are widgets
is told by the server's class, and in newer workflows by the node itself as well.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from stablequeue.editor_workflow import EditorNode
from stablequeue.engines.comfyui.answers import JSON, NodeClass, mapping, sequence, text

_CONTROLS = frozenset({"fixed", "increment", "decrement", "randomize", "increment-wrap"})
_SEEDS = frozenset({"seed", "noise_seed"})
_WIDGETS = frozenset({"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"})
_SHOWN_ONLY = frozenset({"AUDIO_UI", "AUDIOUPLOAD", "FILEUPLOAD", "IMAGEUPLOAD"})
_MORE_WIDGETS = frozenset(
    {
        *("AUDIO_RECORD", "BOUNDING_BOX", "CHART", "COLOR", "CURVE", "GALLERIA", "IMAGECOMPARE"),
        *("LOAD_3D", "LOAD_3D_ANIMATION", "MARKDOWN", "MULTISELECT", "PAINTER", "PREVIEW_3D"),
        *("PREVIEW_3D_ANIMATION", "RANGE", "SELECTBUTTON", "TEXTAREA", "TREESELECT", "WEBCAM"),
    }
)
_AFTER_BUTTONS = frozenset({"LOAD_3D", "LOAD_3D_ANIMATION"})
_BUTTONS = frozenset({"upload3dmodel", "uploadExtraResources", "clear"})
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
"""A choice each of whose options brings inputs of its own."""

_KNOWN = frozenset({*_WIDGETS, *_MORE_WIDGETS, *_SHOWN_ONLY, DYNAMIC_COMBO})
_EMPTY: Mapping[str, Any] = {"INT": 0, "FLOAT": 0.0, "STRING": "", "BOOLEAN": False}
_DEEPEST = 5
_ABSENT = object()


@dataclass(slots=True)
class _Reading:
    """Values yet to be taken, and those that were, by name."""

    left: list[Any]
    found: JSON = field(default_factory=dict[str, Any])
    misfits: int = 0

    def take(self, name: str, kind: Any, options: JSON, rest: int = 0) -> Any:
        """Take the value of a widget, after which there are at least `rest` more."""
        if text(kind) in _AFTER_BUTTONS:
            while self.left and text(self.left[0]) in _BUTTONS:
                self.left.pop(0)
        value = self.left.pop(0) if self.left else _ABSENT
        if value is not _ABSENT and text(kind) not in _SHOWN_ONLY:
            self.found[name] = value
            self.misfits += not fits(kind, value)
        self._pass_control(name, kind, options, rest)
        return value

    def _pass_control(self, name: str, kind: Any, options: JSON, rest: int) -> None:
        """Pass over what becomes of a seed after a run: it is the editor's business."""
        following = self.left[0] if self.left else None
        told = bool(options.get("control_after_generate"))
        seed = told or name.rpartition(".")[2] in _SEEDS
        if text(following) in _CONTROLS and (seed or kind in ("INT", "FLOAT", None)):
            self.left.pop(0)
            if is_combo(kind) and self.left and self.left[0] == "":
                self.left.pop(0)  # a filter of the choices
        elif seed and isinstance(following, bool) and len(self.left) > rest:
            self.left.pop(0)  # as editors of early 2023 said it


def widget_values(described: NodeClass, node: EditorNode) -> JSON:
    """Return the value of each widget of a node, by the name of its input.

    What the workflow does not tell has the class's own default, if it has one.
    """
    values = dict(_defaults(described, node))
    # Templates are changed by hand in the values in order only: those by name may be old.
    told = _in_order(described, node) if node.values else node.named
    return values | {
        name: value
        for name, value in told.items()
        if value is not None and name.partition(".")[0] in described.inputs
    }


def _in_order(described: NodeClass, node: EditorNode) -> JSON:
    """Return the values by name in whichever of the orders fits them.

    The class may have changed since the workflow was saved, and what a node tells itself may be
    in an order of its own, or not be all.
    """
    if len(node.named) == len(node.values):
        named = _fitted(described, zip(node.named, node.values, strict=True))
        if not named.misfits:
            return named.found
    read = _by_class(described, node)
    slots = [slot.name for slot in node.inputs if slot.widget]
    same = {name for name in described.inputs if is_widget(described, node, name)} == {*slots}
    told = None if same and not read.misfits else _by_slots(described, node, slots)
    return told.found if told is not None and told.misfits <= read.misfits else read.found


def is_widget(described: NodeClass, node: EditorNode, name: str) -> bool:
    """Whether an input of a class is a widget in the editor."""
    kind, options = described.inputs[name]
    if options.get("forceInput"):
        return False
    kind = options.get("widgetType") or kind
    if is_combo(kind) or text(kind) in _KNOWN:
        return True
    return any(slot.widget and slot.name == name for slot in node.inputs)


def is_combo(kind: Any) -> bool:
    """Whether an input is a choice."""
    return isinstance(kind, list) or kind == "COMBO"


def fits(kind: Any, value: Any) -> bool:
    """Whether a value can be one of this type at all."""
    match kind:
        case "INT" | "FLOAT":
            return is_number(value)
        case "BOOLEAN":
            return isinstance(value, bool | int) or value in ("true", "false")
        case "STRING":
            return isinstance(value, str | int | float) and not isinstance(value, bool)
        case "COMBO":
            return not isinstance(value, dict)
        case list():
            choices = cast("list[Any]", kind)
            return value in choices or not choices or isinstance(value, str)
        case _:
            return True


def is_number(value: Any) -> bool:
    """Whether the server takes a value as a number; it reads texts, too."""
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return False
        return True
    return isinstance(value, int | float) and not isinstance(value, bool)


def _by_class(described: NodeClass, node: EditorNode) -> _Reading:
    """Read the values in the order the server's class declares its inputs."""
    reading = _Reading(list(node.values))
    names = [name for name in described.inputs if is_widget(described, node, name)]
    last = next((name for name in reversed(names) if name in described.required), "")
    for place, name in enumerate(names):
        kind, options = described.inputs[name]
        kind = options.get("widgetType") or kind
        more = len(names) - place - 1
        value = reading.take(name, kind, options, more)
        if kind == DYNAMIC_COMBO:
            _take_chosen(reading, name, options, value, 1)
        if name == last and more and _uploads(described) and len(reading.left) > more:
            reading.left.pop(0)
    return reading


def _fitted(described: NodeClass, pairs: Iterable[tuple[str, Any]]) -> _Reading:
    """Return values whose names are known, and how many of them cannot be theirs."""
    reading = _Reading([])
    for name, value in pairs:
        kind, options = described.inputs.get(name, (None, {}))
        reading.found[name] = value
        reading.misfits += not fits(options.get("widgetType") or kind, value)
    return reading


def _by_slots(described: NodeClass, node: EditorNode, names: Sequence[str]) -> _Reading | None:
    """Read the values in the order of the node's own inputs; None: they are not all."""
    reading = _Reading(list(node.values))
    for name in names:
        if not reading.left:
            return None
        kind, options = described.inputs.get(name, (None, {}))
        reading.take(name, options.get("widgetType") or kind, options)
    return None if reading.left else reading


def _take_chosen(reading: _Reading, name: str, options: JSON, value: Any, depth: int) -> None:
    """Take the inputs that the chosen option of a dynamic choice brings."""
    for key, kind, more in _chosen(options, value):
        full = f"{name}.{key}"
        if is_combo(kind) or text(kind) in _KNOWN:
            inner = reading.take(full, kind, more)
            if kind == DYNAMIC_COMBO and depth < _DEEPEST:
                _take_chosen(reading, full, more, inner, depth + 1)


def _chosen(options: JSON, value: Any) -> Iterator[tuple[str, Any, JSON]]:
    for option in map(mapping, sequence(options.get("options"))):
        if option.get("key") != value:
            continue
        groups = mapping(option.get("inputs"))
        for group in ("required", "optional"):
            for key, spec in mapping(groups.get(group)).items():
                parts: Sequence[Any] = sequence(spec)
                if parts:
                    more = mapping(parts[1]) if len(parts) > 1 else {}
                    if not more.get("forceInput"):
                        yield key, parts[0], more
        return


def _uploads(described: NodeClass) -> bool:
    return any(described.chosen_by_upload(name) for name in described.required)


def _defaults(described: NodeClass, node: EditorNode) -> Iterator[tuple[str, Any]]:
    """Yield what a widget that nobody touched holds."""
    for name, (kind, options) in described.inputs.items():
        if not is_widget(described, node, name):
            continue
        if "default" in options:
            yield name, options["default"]
        elif choices := described.choices(name):
            yield name, choices[0]
        elif text(kind) in _EMPTY:
            yield name, _EMPTY[text(kind)]
