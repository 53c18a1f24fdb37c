"""Why ComfyUI refused a prompt: its validation answers in our own errors (scenario 19)."""

from typing import Any

from stablequeue.engines.comfyui import names
from stablequeue.engines.comfyui.answers import JSON, mapping, one_line, sequence, shown, text
from stablequeue.errors import JobRejected, ModelMissing

_MODEL_INPUTS = {
    "ckpt_name",
    "unet_name",
    "clip_name",
    "clip_name1",
    "clip_name2",
    "clip_name3",
    "clip_name4",
    "vae_name",
    "lora_name",
    "model_name",
    "control_net_name",
    "style_model_name",
    "gligen_name",
    "hypernetwork_name",
    "photomaker_model_name",
    "audio_encoder_name",
}
_MOST_NODES = 3


def is_model_input(name: str, value: Any) -> bool:
    """Whether an input names a model file."""
    return name in _MODEL_INPUTS or (isinstance(value, str) and names.is_model_file(value))


def rejection(server: str, answer: JSON) -> JobRejected:
    """Return the error for a 400's body, or for the `node_errors` of a 200.

    A model's name that is not in the server's list is `ModelMissing`, because another server may
    have it; everything else is wrong everywhere.
    """
    nodes = mapping(answer.get("node_errors"))
    for node_id, described in nodes.items():
        for error in map(mapping, sequence(mapping(described).get("errors"))):
            if missing := _missing_model(server, node_id, error):
                return missing
    said = [_node(node_id, mapping(described)) for node_id, described in nodes.items()]
    if not said:
        error = mapping(answer.get("error"))
        parts = (text(error.get("message")), text(error.get("details")))
        said = [": ".join(part for part in parts if part) or text(answer.get("error"))]
    more = f" (and {len(said) - _MOST_NODES} more)" if len(said) > _MOST_NODES else ""
    reason = "; ".join(filter(None, said[:_MOST_NODES])) or "it does not say why"
    return JobRejected(server, f"it refused the job: {one_line(reason)}{more}")


def _node(node_id: str, described: JSON) -> str:
    errors = [mapping(error) for error in sequence(described.get("errors"))]
    words = [
        ": ".join(filter(None, (text(error.get("message")), text(error.get("details")))))
        for error in errors
    ]
    name = f"node {node_id} ({text(described.get('class_type')) or '?'})"
    return f"{name} {', '.join(filter(None, words)) or 'is invalid'}"


def _missing_model(server: str, node_id: str, error: JSON) -> ModelMissing | None:
    if error.get("type") != "value_not_in_list":
        return None
    extra = mapping(error.get("extra_info"))
    name, value = text(extra.get("input_name")), extra.get("received_value")
    if not isinstance(value, str) or not is_model_input(name, value):
        return None
    # The list is given only while it has 20 entries or fewer; else it is null.
    config = sequence(extra.get("input_config"))
    choices = sequence(config[0]) if config else []
    if not choices and len(config) > 1:
        choices = sequence(mapping(config[1]).get("options"))
    listed = [choice for choice in choices if isinstance(choice, str)]
    alike = [shown(suggestion) for suggestion in names.suggest(value, listed)]
    field = f"workflow.{one_line(node_id, 60)}.{one_line(name, 60)}"
    return ModelMissing(server, field, one_line(value), alike)
