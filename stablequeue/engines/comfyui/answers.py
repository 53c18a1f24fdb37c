"""What ComfyUI answers, read into plain dataclasses; nonsense is refused, not passed on."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

JSON = dict[str, Any]
SHOWN = 300  # characters of a server's own words that go into a message


class NonsenseError(ValueError):
    """An answer that does not have the shape ComfyUI's have; one line, without the answer."""


def parse_json(body: bytes | str) -> Any:
    """Parse JSON from outside.

    Raises:
        NonsenseError: It is not JSON, or nested so deeply that it cannot be read.
    """
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NonsenseError("it is not JSON") from error


def mapping(value: Any) -> JSON:
    """Return `value` if it is an object, else an empty one."""
    return cast("JSON", value) if isinstance(value, dict) else {}


def sequence(value: Any) -> list[Any]:
    """Return `value` if it is a list, else an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def text(value: Any) -> str:
    """Return `value` if it is text, else an empty one."""
    return value if isinstance(value, str) else ""


def number(value: Any) -> float:
    """Return `value` as a finite number, 0 for everything that is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return 0.0
    try:
        result = float(value)
    except OverflowError:
        return 0.0
    return result if math.isfinite(result) else 0.0


def whole(value: Any) -> int:
    """Return `value` as a whole number, 0 for everything that is none."""
    return int(number(value))


def one_line(value: Any, limit: int = SHOWN) -> str:
    """Return a server's words as one line of bounded length."""
    line = " ".join(str(value).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown(name: Any) -> str:
    """Return a name for a message: as it is, but for what would not stay on one line."""
    return "".join(letter if letter.isprintable() else "?" for letter in str(name)[:SHOWN])


@dataclass(frozen=True, slots=True)
class QueueItem:
    """One prompt that runs or waits."""

    number: float
    prompt_id: str
    graph: JSON
    outputs: tuple[str, ...]  # ids of the output nodes that will run


@dataclass(frozen=True, slots=True)
class Queue:
    """`GET /queue`, with what waits in the order it will run."""

    running: tuple[QueueItem, ...]
    pending: tuple[QueueItem, ...]

    def find(self, prompt_id: str) -> QueueItem | None:
        """Return the item with that id."""
        return next((i for i in (*self.running, *self.pending) if i.prompt_id == prompt_id), None)

    def runs(self, prompt_id: str) -> bool:
        """Whether it runs now."""
        return any(item.prompt_id == prompt_id for item in self.running)

    def before(self, prompt_id: str) -> int:
        """Return how many prompts, anybody's, are before a waiting one."""
        ids = [item.prompt_id for item in self.pending]
        return len(self.running) + (ids.index(prompt_id) if prompt_id in ids else 0)


def parse_queue(data: Any) -> Queue:
    """Read `GET /queue`.

    `queue_pending` is a heap, not in the order of running: that order is (number, prompt_id)
    (scenario 14).
    """
    answer = mapping(data)
    if not {"queue_running", "queue_pending"} <= answer.keys():
        raise NonsenseError("it has no queue_running and queue_pending")
    pending = _items(answer["queue_pending"])
    return Queue(
        running=tuple(_items(answer["queue_running"])),
        pending=tuple(sorted(pending, key=lambda item: (item.number, item.prompt_id))),
    )


def _items(value: Any) -> list[QueueItem]:
    if not isinstance(value, list):
        raise NonsenseError("its queue is not a list")
    return [_item(entry) for entry in cast("list[Any]", value)]


def _item(value: Any) -> QueueItem:
    entry = sequence(value)
    if len(entry) < 3 or not isinstance(entry[1], str):  # noqa: PLR2004 - number, id, graph
        raise NonsenseError("an item of its queue is not [number, prompt_id, prompt, ...]")
    outputs = sequence(entry[4]) if len(entry) > 4 else []  # noqa: PLR2004
    return QueueItem(
        number=number(entry[0]),
        prompt_id=entry[1],
        graph=mapping(entry[2]),
        outputs=tuple(node for node in outputs if isinstance(node, str)),
    )


@dataclass(frozen=True, slots=True)
class Ended:
    """One entry of `/history`: the truth about a prompt that ended."""

    number: float
    graph: JSON
    outputs: JSON
    status: str
    messages: tuple[tuple[str, JSON], ...]
    meta: JSON = field(default_factory=dict[str, Any])

    def message(self, kind: str) -> JSON | None:
        """Return the last message of that kind."""
        return next((data for name, data in reversed(self.messages) if name == kind), None)

    @property
    def seconds(self) -> float:
        """How long it ran, by the server's own clock; 0 if it does not say."""
        times = [number(data.get("timestamp")) for _, data in self.messages]
        times = [time for time in times if time > 0]
        return (max(times) - min(times)) / 1000 if times else 0.0


def parse_history(data: Any, prompt_id: str) -> Ended | None:
    """Read `GET /history/<prompt_id>`; None while it has not ended (or is unknown).

    Raises:
        NonsenseError: It is not a history.
    """
    if not isinstance(data, dict):
        raise NonsenseError("it is not a history")
    entry = mapping(data).get(prompt_id)
    if entry is None:
        return None
    if not isinstance(entry, dict):
        raise NonsenseError("an entry of its history is not an object")
    found = mapping(entry)
    prompt = sequence(found.get("prompt"))
    status = mapping(found.get("status"))
    return Ended(
        number=number(prompt[0]) if prompt else 0.0,
        graph=mapping(prompt[2]) if len(prompt) > 2 else {},  # noqa: PLR2004
        outputs=mapping(found.get("outputs")),
        status=text(status.get("status_str")),
        messages=tuple(_messages(status.get("messages"))),
        meta=mapping(found.get("meta")),
    )


def _messages(value: Any) -> list[tuple[str, JSON]]:
    pairs = [sequence(entry) for entry in sequence(value)]
    return [(text(pair[0]), mapping(pair[1])) for pair in pairs if len(pair) == 2]  # noqa: PLR2004


@dataclass(frozen=True, slots=True)
class Accepted:
    """The answer to `POST /prompt` with status 200."""

    prompt_id: str
    number: float
    node_errors: JSON


def parse_accepted(data: Any) -> Accepted:
    """Read the answer to `POST /prompt`.

    Raises:
        NonsenseError: It names no prompt.
    """
    answer = mapping(data)
    if not text(answer.get("prompt_id")):
        raise NonsenseError("it names no prompt_id")
    return Accepted(
        prompt_id=answer["prompt_id"],
        number=number(answer.get("number")),
        node_errors=mapping(answer.get("node_errors")),
    )


@dataclass(frozen=True, slots=True)
class SystemStats:
    """`GET /system_stats`. Memory in bytes."""

    version: str
    gpu: str
    vram_total: int
    vram_free: int
    sandbox: bool
    torch_free: int = 0

    @property
    def free_for_others(self) -> int:
        """What another process could use of the first device.

        `vram_free` counts what PyTorch keeps for itself in, except where there is no such thing
        (on a CPU both are the machine's memory).
        """
        kept = self.torch_free if self.torch_free < self.vram_free else 0
        return self.vram_free - kept

    @property
    def release(self) -> tuple[int, ...]:
        """The version as numbers; empty if it says none."""
        parts = self.version.lstrip("v").split("-")[0].split("+")[0].split(".")
        return tuple(int(part) for part in parts) if all(map(_small, parts)) else ()


def _small(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < 9  # noqa: PLR2004 - hostile digits


def parse_system_stats(data: Any) -> SystemStats:
    """Read `GET /system_stats`.

    Raises:
        NonsenseError: It is no ComfyUI's.
    """
    answer = mapping(data)
    system = mapping(answer.get("system"))
    if not system:
        raise NonsenseError("it has no `system`, so this is no ComfyUI")
    devices = [mapping(device) for device in sequence(answer.get("devices"))]
    first = devices[0] if devices else {}
    return SystemStats(
        version=one_line(text(system.get("comfyui_version")), 40),
        gpu=one_line(text(first.get("name")), 120),
        vram_total=whole(first.get("vram_total")),
        vram_free=whole(first.get("vram_free")),
        sandbox=system.get("stablequeue_sandbox") is True,
        torch_free=whole(first.get("torch_vram_free")),
    )


@dataclass(frozen=True, slots=True)
class NodeClass:
    """`GET /object_info/<Class>`: what a node takes."""

    name: str
    inputs: Mapping[str, tuple[Any, JSON]]  # input -> (type or list of choices, options), in order
    output_node: bool
    required: frozenset[str] = frozenset()
    display: str = ""

    def choices(self, name: str) -> tuple[Any, ...] | None:
        """Return what a combo input offers; None if it is no combo or says nothing."""
        if name not in self.inputs:
            return None
        kind, options = self.inputs[name]
        if isinstance(kind, list):
            return tuple(cast("list[Any]", kind))
        if kind == "COMBO" and isinstance(options.get("options"), list):
            return tuple(sequence(options["options"]))
        return None

    def names(self, name: str) -> tuple[str, ...]:
        """Return the text choices of a combo input, in the server's order."""
        return tuple(choice for choice in self.choices(name) or () if isinstance(choice, str))

    def chosen_by_upload(self, name: str) -> bool:
        """Whether the list shows only a part of what is accepted (scenario 23)."""
        options = self.inputs[name][1] if name in self.inputs else {}
        return "remote" in options or any(
            key.endswith("_upload") and value for key, value in options.items()
        )


def parse_node_class(data: Any, name: str) -> NodeClass | None:
    """Read `GET /object_info/<Class>`; None if the server has no such class.

    Raises:
        NonsenseError: It is not an object.
    """
    if not isinstance(data, dict):
        raise NonsenseError("it is no description of nodes")
    found = mapping(data).get(name)
    if found is None:
        return None
    described = mapping(found)
    inputs: dict[str, tuple[Any, JSON]] = {}
    required: frozenset[str] = frozenset()
    for group in ("required", "optional"):
        specs = mapping(mapping(described.get("input")).get(group))
        order = sequence(mapping(described.get("input_order")).get(group))
        for key in dict.fromkeys([*filter(_among(specs), order), *specs]):
            parts: Sequence[Any] = sequence(specs[key])
            if parts:
                inputs[key] = (parts[0], mapping(parts[1]) if len(parts) > 1 else {})
        if group == "required":
            required = frozenset(inputs)
    return NodeClass(
        name=name,
        inputs=inputs,
        output_node=described.get("output_node") is True,
        required=required,
        display=one_line(text(described.get("display_name")), 100),
    )


def _among(specs: JSON) -> Callable[[Any], bool]:
    return lambda key: isinstance(key, str) and key in specs


def parse_names(data: Any) -> tuple[str, ...]:
    """Read a list of names.

    Raises:
        NonsenseError: It is not a list.
    """
    if not isinstance(data, list):
        raise NonsenseError("it is not a list of names")
    return tuple(name for name in cast("list[Any]", data) if isinstance(name, str))
