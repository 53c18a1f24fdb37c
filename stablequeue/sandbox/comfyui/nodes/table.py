"""How node classes are declared; the declaration is what `/object_info` tells.

Inputs are written as the server writes them: a list of the type (or the list of choices) and, if
there is any, a dictionary of limits. Names, types, limits and defaults: ComfyUI 0.3.64's
`/object_info`; descriptions and tooltips are left out.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from PIL import Image

from stablequeue.sandbox.comfyui.folders import Folders
from stablequeue.sandbox.comfyui.values import Model
from stablequeue.sandbox.models import ModelShelf

Spec = list[Any]
Specs = dict[str, Spec]
Inputs = dict[str, Any]
LARGEST = 16_384


class Host(Protocol):
    """What declarations may ask of the server."""

    @property
    def models(self) -> ModelShelf:
        """The model files."""
        ...

    @property
    def folders(self) -> Folders:
        """Where pictures come from and go to."""
        ...


class Call(Protocol):
    """What a running node may use of the server."""

    node_id: str
    prompt: dict[str, Any]
    extra_pnginfo: Any

    @property
    def host(self) -> Host:
        """The server's models and files."""
        ...

    async def load(self, model: Model) -> Model:
        """Bring a model onto the card, spending its swap time; return what is used instead."""
        ...

    async def reserve(self, width: int, height: int, count: int) -> None:
        """Raise if sampling pictures of this size does not fit beside the models."""
        ...

    async def step(self, number: int) -> None:
        """Spend one step (from 1); faults and interrupts take effect here."""
        ...

    async def strike(self, place: str) -> frozenset[str]:
        """Let faults for a place happen; return the kinds the node must act out."""
        ...

    async def progress(self, value: int, maximum: int, preview: "Preview | None" = None) -> None:
        """Tell how far the node is; interrupts take effect here."""
        ...

    def wants_previews(self) -> bool:
        """Say whether previews are made at all."""
        ...

    def note(self, what: str, **facts: Any) -> None:
        """Write to the journal."""
        ...


@dataclass(frozen=True, slots=True)
class Preview:
    """A picture to send while a node runs; enlarged to fit `longest` pixels, if given."""

    format: str  # JPEG or PNG
    picture: Image.Image
    longest: int | None


@dataclass(frozen=True, slots=True)
class Made:
    """What a node made: one value per output, and what it tells the page."""

    values: tuple[Any, ...] = ()
    ui: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])


Run = Callable[[Call, Inputs], Awaitable[Made]]


@dataclass(frozen=True, kw_only=True)
class NodeClass:
    """One class of node.

    Attributes:
        specs: The required and the optional inputs, asked anew each time.
        hidden: Inputs the server fills in itself.
        taken_over: Inputs whose value only `check` judges.
        check: Returns what is wrong with the constant inputs, by input name.
        changed: Returns something that differs when a cached result must not be used.
    """

    name: str
    display: str
    category: str
    output: tuple[str, ...]
    output_name: tuple[str, ...]
    output_node: bool
    module: str
    required: Callable[[Host], Specs]
    optional: Callable[[Host], Specs]
    hidden: Mapping[str, str]
    run: Run
    taken_over: frozenset[str] = frozenset()
    check: Callable[[Host, Inputs], dict[str, str]] | None = None
    changed: Callable[[Host, Inputs], object] | None = None

    def describe(self, host: Host) -> dict[str, Any]:
        """Return this class as `/object_info` tells it."""
        groups: dict[str, Any] = {"required": self.required(host)}
        if optional := self.optional(host):
            groups["optional"] = optional
        if self.hidden:
            groups["hidden"] = dict(self.hidden)
        return {
            "input": groups,
            "input_order": {group: list(specs) for group, specs in groups.items()},
            "output": list(self.output),
            "output_is_list": [False] * len(self.output),
            "output_name": list(self.output_name),
            "name": self.name,
            "display_name": self.display,
            "description": "",
            "python_module": self.module,
            "category": self.category,
            "output_node": self.output_node,
        }


NODES: dict[str, NodeClass] = {}


def _none(_host: Host) -> Specs:
    return {}


def node(
    name: str,
    *,
    category: str,
    output: tuple[str, ...] = (),
    names: tuple[str, ...] = (),
    display: str = "",
    output_node: bool = False,
    module: str = "nodes",
    required: Callable[[Host], Specs] = _none,
    optional: Callable[[Host], Specs] = _none,
    hidden: Mapping[str, str] | None = None,
    **more: Any,
) -> Callable[[Run], Run]:
    """Declare the decorated coroutine function as the class `name`; `more`: see `NodeClass`."""

    def declare(run: Run) -> Run:
        NODES[name] = NodeClass(
            name=name,
            display=display or name,
            category=category,
            output=output,
            output_name=names or output,
            output_node=output_node,
            module=module,
            required=required,
            optional=optional,
            hidden=hidden or {},
            run=run,
            **more,
        )
        return run

    return declare


def whole(default: int, low: int, high: int, step: int = 0) -> Spec:
    """Declare an INT."""
    limits: dict[str, Any] = {"default": default, "min": low, "max": high}
    return ["INT", limits | ({"step": step} if step else {})]


def seed_input() -> Spec:
    """Declare a seed."""
    return ["INT", {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}]


def real(default: float, low: float, high: float, step: float = 0.01, **more: Any) -> Spec:
    """Declare a FLOAT."""
    return ["FLOAT", {"default": default, "min": low, "max": high, "step": step, **more}]


def text(default: str | None = None, *, multiline: bool = False) -> Spec:
    """Declare a STRING."""
    more: dict[str, Any] = {"multiline": True, "dynamicPrompts": True} if multiline else {}
    return ["STRING", more if default is None else {"default": default, **more}]


def flag(*, default: bool) -> Spec:
    """Declare a BOOLEAN."""
    return ["BOOLEAN", {"default": default}]


def choice(options: list[str], **more: Any) -> Spec:
    """Declare one of `options`."""
    return [options, more] if more else [options]


def size(default: int = 512, low: int = 16, step: int = 8) -> Spec:
    """Declare a width or height in pixels."""
    return whole(default, low, LARGEST, step)
