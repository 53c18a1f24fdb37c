"""ComfyUI's graphs in API format: a request made of one, and what it says for people.

A graph is a program, so what it says is read off leniently: from its samplers along their links to
the prompts, the models and the size. What cannot be found is left empty. Nothing is executed, and
no walk visits a node twice.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from stablequeue.editor_workflow import is_editor_format, read_editor_workflow
from stablequeue.request import GenerationRequest, Lora, Mode, parse_request

JSON = dict[str, Any]

_TEXT_INPUTS = ("text", "text_g", "text_l", "t5xxl", "clip_l", "prompt", "positive_prompt")
_STRING_INPUTS = ("value", "string", "text", "string_a", "string_b", "Text", "STRING")
_NUMBER_INPUTS = ("value", "seed", "noise_seed", "int", "Number", "number", "INT")
_MODEL_INPUTS = ("ckpt_name", "unet_name")
_LATENT_INPUTS = ("latent_image", "samples", "latent", "pixels", "image", "images")
_PICTURE_LOADERS = ("LoadImage", "LoadImageMask", "LoadVideo", "LoadAudio")
_MOST_WALKED = 10_000
_LONGEST_CHAIN = 50
_STRONGEST = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphSummary:
    """What a graph says, as far as it can be read off; empty or None where it cannot.

    Attributes:
        models: Checkpoints and image models, paths as the server has them, in the graph's order.
        steps: Of the first sampler, as `seed`, `cfg_scale`, `sampler` and `scheduler` are.
        width: Pixels of the empty picture the first sampler starts from.
    """

    prompt: str = ""
    negative_prompt: str = ""
    models: tuple[str, ...] = ()
    loras: tuple[Lora, ...] = ()
    vae: str = ""
    seed: int | None = None
    steps: int | None = None
    cfg_scale: float | None = None
    sampler: str = ""
    scheduler: str = ""
    width: int | None = None
    height: int | None = None
    inputs: tuple[str, ...] = field(default=())
    """Names of pictures, videos and sounds it loads on the server."""

    @property
    def search_text(self) -> str:
        """Everything a person may search for, in one text."""
        names = [*self.models, *(lora.name for lora in self.loras), self.vae]
        return "\n".join(filter(None, [self.prompt, self.negative_prompt, *names]))


def is_api_graph(data: Any) -> bool:
    """Say whether this is a graph in API format: nodes by id, each with its class."""
    if not isinstance(data, dict) or not data:
        return False
    nodes = cast("dict[Any, Any]", data).values()
    return all(isinstance(node, dict) and _class_type(cast("JSON", node)) for node in nodes)


def request_from_comfy_prompt(graph: Mapping[str, Any]) -> tuple[GenerationRequest, list[str]]:
    """Return a workflow request that runs the graph as it is, and notes on what it needs.

    The graph may be in API format, or as the editor saves it.

    The graph keeps its own seeds unless the request is given one.

    Raises:
        BadRequest: It is in neither, or damaged.
    """
    request = parse_request({"mode": Mode.WORKFLOW.value, "workflow": dict(graph)})
    loaded = _loaded(graph) if is_editor_format(graph) else summarise(graph).inputs
    notes = [f"the workflow loads {name!r}, which must be on the server" for name in loaded]
    return request, notes


def _loaded(workflow: Mapping[str, Any]) -> list[str]:
    """Return what an editor's workflow loads on the server, each once."""
    found: dict[str, None] = {}
    for graph in read_editor_workflow(workflow).graphs():
        for node in graph.nodes.values():
            if node.kind in _PICTURE_LOADERS and node.active and node.values:
                name = node.values[0]
                if isinstance(name, str) and name:
                    found[name] = None
    return list(found)


def summarise(graph: Mapping[str, Any]) -> GraphSummary:
    """Read off what a graph says; any JSON object is fine."""
    walker = _Graph(graph)
    samplers = walker.samplers()
    first = samplers[0] if samplers else ""
    guider = walker.link(first, "guider") or first
    sigmas = walker.link(first, "sigmas") or first
    width, height = walker.size(first)
    positive = walker.texts(guider, "positive", "conditioning")
    return GraphSummary(
        prompt="\n".join(positive or ([] if samplers else walker.all_texts())),
        negative_prompt="\n".join(walker.texts(guider, "negative")),
        models=tuple(walker.models()),
        loras=tuple(walker.loras()),
        vae=walker.first_string("vae_name"),
        seed=walker.seed(first),
        steps=_whole(walker.value(sigmas, "steps")),
        cfg_scale=_number(walker.value(guider, "cfg")),
        sampler=_string(walker.value(walker.link(first, "sampler") or first, "sampler_name")),
        scheduler=_string(walker.value(sigmas, "scheduler")),
        width=width,
        height=height,
        inputs=tuple(walker.pictures()),
    )


class _Graph:
    """A graph to walk; whatever is no node or no link counts as not there."""

    def __init__(self, graph: Mapping[str, Any]) -> None:
        self._nodes: dict[str, JSON] = {
            str(key): cast("JSON", node)
            for key, node in graph.items()
            if isinstance(node, dict) and _class_type(cast("JSON", node))
        }
        self._walked = 0

    def inputs(self, node: str) -> JSON:
        found = self._nodes.get(node, {}).get("inputs")
        return cast("JSON", found) if isinstance(found, dict) else {}

    def link(self, node: str, name: str) -> str:
        """Return the node an input is linked to; empty if it is not."""
        return self._target(self.inputs(node).get(name))[0]

    def _target(self, value: Any) -> tuple[str, int]:
        if isinstance(value, list):
            parts = cast("list[Any]", value)
            if len(parts) == 2 and isinstance(parts[1], int) and str(parts[0]) in self._nodes:  # noqa: PLR2004
                return str(parts[0]), parts[1]
        return "", 0

    def value(self, node: str, name: str) -> Any:
        """Return an input's own value, or the one of the primitive node it is linked to."""
        value = self.inputs(node).get(name)
        for _ in range(_LONGEST_CHAIN):
            if not (target := self._target(value)[0]):
                break
            inputs = self.inputs(target)
            names = [key for key in (name, *_NUMBER_INPUTS, *_STRING_INPUTS) if key in inputs]
            value = inputs[names[0]] if names else None
        return None if isinstance(value, list | dict) else value

    def samplers(self) -> list[str]:
        """Return the sampling nodes, first those that start from an empty picture."""
        found = [
            node
            for node in self._nodes
            if "latent_image" in self.inputs(node)
            and ("positive" in self.inputs(node) or "guider" in self.inputs(node))
        ]
        return sorted(found, key=lambda node: self.size(node) == (None, None))

    def seed(self, sampler: str) -> int | None:
        noise = self.link(sampler, "noise") or sampler
        for name in ("seed", "noise_seed"):
            if (seed := _whole(self.value(noise, name))) is not None:
                return seed
        return None

    def texts(self, node: str, *names: str) -> list[str]:
        """Return the texts that lead into these inputs, each once, in the order of the links."""
        found: dict[str, None] = {}
        waiting = [self._target(self.inputs(node).get(name)) for name in names]
        seen: set[tuple[str, int]] = set()
        while waiting and self._step():
            at = waiting.pop(0)
            if not at[0] or at in seen:
                continue
            seen.add(at)
            inputs = self.inputs(at[0])
            own = [text for name in _TEXT_INPUTS for text in self._strings(inputs.get(name))]
            found |= dict.fromkeys(own)
            if not own:
                waiting += self._conditioning(inputs, at[1])
        return list(found)

    def _conditioning(self, inputs: JSON, output: int) -> Iterator[tuple[str, int]]:
        """Yield where a node that only passes conditioning on has it from."""
        if "positive" in inputs and "negative" in inputs:  # such nodes give both, in this order
            yield self._target(inputs["negative" if output == 1 else "positive"])
            return
        for name, value in inputs.items():
            if name.startswith(("conditioning", "positive")):
                yield self._target(value)

    def _strings(self, value: Any) -> list[str]:
        """Return the texts of a value that is one, or is linked to nodes that hold them."""
        found: list[str] = []
        waiting: list[Any] = [value]
        seen: set[str] = set()
        while waiting and self._step():
            now = waiting.pop(0)
            target = self._target(now)[0]
            if isinstance(now, str) and now.strip():
                found.append(now.strip())
            elif target and target not in seen:
                seen.add(target)
                inputs = self.inputs(target)
                waiting += [inputs[name] for name in _STRING_INPUTS if name in inputs]
        return found

    def all_texts(self) -> list[str]:
        return [
            text
            for node in self._nodes
            if "TextEncode" in _class_type(self._nodes[node])
            for text in self._strings(self.inputs(node).get("text"))
        ]

    def size(self, sampler: str) -> tuple[int | None, int | None]:
        seen: set[str] = set()
        node = self.link(sampler, "latent_image")
        while node and node not in seen and self._step():
            seen.add(node)
            width, height = (_whole(self.value(node, name)) for name in ("width", "height"))
            if width and height:
                return width, height
            links = [self.link(node, name) for name in _LATENT_INPUTS]
            node = next((link for link in links if link), "")
        return None, None

    def models(self) -> list[str]:
        values = (_string(self.value(node, name)) for node in self._nodes for name in _MODEL_INPUTS)
        return list(dict.fromkeys(filter(None, values)))

    def loras(self) -> list[Lora]:
        found: list[Lora] = []
        for node in self._nodes:
            inputs = self.inputs(node)
            if name := _string(self.value(node, "lora_name")):
                model = _number(self.value(node, "strength_model"))
                clip = _number(self.value(node, "strength_clip"))
                found += _lora(name, 1.0 if model is None else model, clip)
            for entry in inputs.values():  # nodes that hold a list of LoRAs
                if isinstance(entry, dict):
                    one = cast("JSON", entry)
                    name, on = _string(one.get("lora")), one.get("on", True)
                    strength = _number(one.get("strength"))
                    if name and on:
                        found += _lora(name, 1.0 if strength is None else strength, None)
        return found

    def first_string(self, name: str) -> str:
        return next(filter(None, (_string(self.value(node, name)) for node in self._nodes)), "")

    def pictures(self) -> list[str]:
        found: dict[str, None] = {}
        for node, content in self._nodes.items():
            if _class_type(content) in _PICTURE_LOADERS:
                for name in ("image", "video", "file", "audio"):
                    if text := _string(self.inputs(node).get(name)):
                        found[text] = None
        return list(found)

    def _step(self) -> bool:
        self._walked += 1
        return self._walked < _MOST_WALKED


def _class_type(node: JSON) -> str:
    found = node.get("class_type")
    return found if isinstance(found, str) else ""


def _lora(name: str, weight: float, text_weight: float | None) -> list[Lora]:
    """Return the LoRA unless it is switched off; strengths no request allows are cut."""
    if len(name) > 1000 or not (weight or text_weight):  # noqa: PLR2004 - a request's limit
        return []
    cut = [
        None if value is None else max(-_STRONGEST, min(_STRONGEST, value))
        for value in (weight, text_weight)
    ]
    return [Lora(name=name, weight=cut[0] or 0.0, text_weight=cut[1])]


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _string(value: Any) -> str:
    return value.strip() if isinstance(value, str) else ""
