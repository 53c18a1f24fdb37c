"""Whether a server can run a user's workflow, asked before anything is sent.

A missing model is told apart from everything else, because another server may have it. Model names
whose slash or case differs from the server's are replaced by the server's own; nothing else is.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from stablequeue.editor_workflow import is_editor_format, read_editor_workflow
from stablequeue.engines.base import LoraUse, Resolution
from stablequeue.engines.comfyui import names
from stablequeue.engines.comfyui.answers import (
    JSON,
    NodeClass,
    mapping,
    number,
    one_line,
    shown,
    text,
)
from stablequeue.engines.comfyui.client import ComfyClient
from stablequeue.engines.comfyui.editor_format import Converted, class_names, to_api_format
from stablequeue.engines.comfyui.inventory import node_classes
from stablequeue.engines.comfyui.progress import is_link, reachable
from stablequeue.engines.comfyui.rejections import is_model_input
from stablequeue.engines.comfyui.workflow import (
    PLACEHOLDERS,
    named_inside,
    placeholders,
    seed_inputs,
    with_overrides,
)
from stablequeue.errors import BadRequest, ModelMissing, Unsupported
from stablequeue.request import GenerationRequest

_SHOWN = 40


async def resolve_workflow(
    client: ComfyClient, alias: str, request: GenerationRequest
) -> Resolution:
    """Check a workflow against what the server has now.

    A workflow as the editor saves it is made into one for this server's classes first.

    Returns:
        Its main models and sampler, and in `detail` the exact names to put in (`exact`: node id ->
        input -> name).

    Raises:
        BadRequest: An override names nothing that exists, or the editor's workflow cannot be
            understood.
        ModelMissing: It lacks models; tells all of them.
        Unsupported: It lacks a node class, or the workflow cannot do what the request asks.
    """
    workflow = await _read(client, alias, request.workflow)
    classes = workflow.classes
    inside = workflow.converted.inside(request.overrides) if workflow.converted else {}
    graph = with_overrides(workflow.graph, named_inside(request.overrides, inside))
    outputs = [node_id for node_id in graph if _class(graph, classes, node_id).output_node]
    if not outputs:
        raise Unsupported(alias, "workflow", "none of its nodes saves or shows anything")
    _check_request(alias, request, graph)
    exact: dict[str, JSON] = {}
    lacking: list[ModelMissing] = []
    for node_id in sorted(reachable(graph, outputs)):
        described = _class(graph, classes, node_id)
        if workflow.converted is not None:
            _need_inputs(described, graph, node_id)
        for key, value in inputs_of(graph, node_id).items():
            try:
                name = _checked(alias, described, node_id, key, value)
            except ModelMissing as error:
                lacking.append(error)
                continue
            if name != value:
                exact.setdefault(node_id, {})[key] = name
    if lacking:
        raise ModelMissing.of(lacking)
    found = summary(with_exact_names(graph, exact), exact)
    if workflow.converted is None:
        return found
    detail = {**found.detail, "inside": inside} if inside else found.detail
    return replace(found, graph=graph, detail=detail)


@dataclass(frozen=True, slots=True)
class _Workflow:
    """A workflow in API format, the classes of its nodes, and what it was made of, if it was."""

    graph: JSON
    classes: Mapping[str, NodeClass | None]
    converted: Converted | None = None


async def _read(client: ComfyClient, alias: str, workflow: JSON) -> _Workflow:
    """Ask for the classes a workflow needs, and bring it into API format.

    Raises:
        BadRequest: See `to_api_format`.
        Unsupported: The server lacks a class.
    """
    edited = read_editor_workflow(workflow) if is_editor_format(workflow) else None
    wanted = class_names(edited) if edited is not None else _class_types(workflow)
    classes = await node_classes(client, wanted)
    missing = sorted(name for name, found in classes.items() if found is None)
    if missing:
        raise Unsupported(
            alias,
            "workflow",
            f"it has no node {', '.join(one_line(name, 80) for name in missing)};"
            " install the custom nodes there, or send the job elsewhere",
        )
    if edited is None:
        return _Workflow(workflow, classes)
    converted = to_api_format(edited, classes)
    return _Workflow(converted.graph, classes, converted)


def with_exact_names(graph: JSON, exact: Mapping[str, Any]) -> JSON:
    """Put the server's own names into a graph, in place; return it."""
    for node_id, inputs in exact.items():
        if node_id in graph:
            graph[node_id]["inputs"].update(mapping(inputs))
    return graph


def summary(graph: Mapping[str, Any], exact: Mapping[str, Any]) -> Resolution:
    """Return the first of each kind of model, all LoRAs, and the first sampler, for the record."""
    found: dict[str, str] = {}
    encoders: list[str] = []
    loras: list[LoraUse] = []
    for node_id in graph:
        inputs = inputs_of(graph, node_id)
        for key, value in inputs.items():
            if not isinstance(value, str):
                continue
            if key in {"ckpt_name", "unet_name", "vae_name", "sampler_name", "scheduler"}:
                found.setdefault(key, value)
            elif key == "lora_name":
                weight = number(inputs.get("strength_model"))
                text_weight = number(inputs.get("strength_clip", weight))
                loras.append(LoraUse(name=value, weight=weight, text_weight=text_weight))
            elif key.startswith("clip_name"):
                encoders.append(value)
    return Resolution(
        checkpoint=found.get("ckpt_name", ""),
        unet=found.get("unet_name", ""),
        text_encoders=tuple(encoders),
        vae=found.get("vae_name", ""),
        loras=tuple(loras),
        sampler=found.get("sampler_name", ""),
        scheduler=found.get("scheduler", ""),
        detail={"exact": dict(exact)},
    )


def model_names(graph: Mapping[str, Any]) -> list[str]:
    """Return every model a graph names, sorted."""
    return sorted(
        {
            value
            for node_id in graph
            for key, value in inputs_of(graph, node_id).items()
            if isinstance(value, str) and is_model_input(key, value)
        }
    )


def inputs_of(graph: Mapping[str, Any], node_id: str) -> JSON:
    """Return a node's inputs."""
    return mapping(mapping(graph.get(node_id)).get("inputs"))


def _class_types(graph: Mapping[str, Any]) -> list[str]:
    return [text(mapping(graph[node_id]).get("class_type")) for node_id in graph]


def _class(
    graph: Mapping[str, Any], classes: Mapping[str, NodeClass | None], node_id: str
) -> NodeClass:
    found = classes[text(mapping(graph[node_id]).get("class_type"))]
    return found or NodeClass(name="", inputs={}, output_node=False)


def _need_inputs(described: NodeClass, graph: Mapping[str, Any], node_id: str) -> None:
    """Refuse a node that something is not connected to, as the server would."""
    given = inputs_of(graph, node_id)
    for name in described.inputs:
        kind = text(described.inputs[name][0])
        if name in described.required and name not in given and not kind.startswith("COMFY_"):
            title = text(mapping(mapping(graph[node_id]).get("_meta")).get("title"))
            node = f"node {one_line(node_id, 60)} ({one_line(title, 60)})"
            problem = f"{node} needs its input {one_line(name, 60)}, and nothing is connected to it"
            raise BadRequest("workflow", problem)


def _check_request(alias: str, request: GenerationRequest, graph: JSON) -> None:
    wanted = {field for _, _, field in placeholders(graph)}
    for field in PLACEHOLDERS:
        given = bool(getattr(request, field))
        if given and field not in wanted:
            raise Unsupported(
                alias, field, f"the workflow has no image input whose value is {field!r}"
            )
        if field in wanted and not given:
            raise Unsupported(alias, field, "the workflow wants a picture here; give one")
    if not request.keeps_own_seeds and not seed_inputs(graph):
        field = "seed" if request.seed >= 0 else "count"
        raise Unsupported(alias, field, "the workflow has no seed input, so it has no effect")


def _checked(alias: str, described: NodeClass, node_id: str, key: str, value: Any) -> Any:
    """Return what to send for one input."""
    choices = described.choices(key)
    if choices is None or is_link(value) or value in choices or described.chosen_by_upload(key):
        return value
    if is_model_input(key, value) and isinstance(value, str):
        try:
            return names.find(value, described.names(key))
        except names.NoMatch as error:
            field = f"workflow.{one_line(node_id, 60)}.{one_line(key, 60)}"
            alike = [shown(suggestion) for suggestion in error.suggestions]
            raise ModelMissing(alias, field, value, alike) from error
    if described.name.startswith("Load"):
        return value  # a file of the server's, by rules of the node's own
    raise Unsupported(
        alias,
        f"workflow.{one_line(node_id, 60)}.{one_line(key, 60)}",
        f"{described.name} has no {one_line(repr(value), 80)}",
        [shown(choice) for choice in choices[:_SHOWN]],
    )
