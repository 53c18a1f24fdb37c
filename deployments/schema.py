"""The run form: a flow's parameter schema made pleasant for Prefect's pages.

Prefect draws a form from the JSON schema Pydantic makes and refuses runs that do not fit it. Here
fields get human titles, what no person should fill in leaves the form, though it may still be
given, and the server is fixed to the deployment's.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from typing import Any

from stablequeue.forms import drop_none

Schema = dict[str, Any]

HIDDEN = ("schema_version", "source")
"""Fields of a request that programs fill in."""

TITLES = {
    "txt2img": "txt2img",
    "cfg_scale": "CFG scale",
    "clip_skip": "CLIP skip",
    "vae": "VAE",
    "unet": "UNet",
    "loras": "LoRAs",
    "init_image": "Start picture",
    "mask_image": "Mask",
    "alwayson_scripts": "Always-on scripts",
    "expires_at": "Expires at",
}


def form_schema(parameters: Mapping[str, Any], server: str, *, fixed: bool) -> Schema:
    """Return the schema for one deployment.

    Args:
        parameters: The flow's own parameter schema.
        server: Alias of the deployment's server, or any.
        fixed: Whether a run may name no other server.
    """
    schema = deepcopy(dict(parameters))
    _each_property(schema, _tidy)
    schema["properties"] = {
        name: value for name, value in schema["properties"].items() if name != "job_id"
    }
    request = schema.get("definitions", {}).get("GenerationRequest")
    if request is not None:
        _hide(request, HIDDEN)
        if fixed:
            request["properties"]["server"] = {
                "type": "string",
                "title": "Server",
                "description": "Fixed: this deployment runs on this server only.",
                "enum": [server],
                "default": server,
            }
        else:
            request["properties"]["server"]["default"] = server
        _position(request)
    _position(schema)
    return schema


def _each_property(schema: Schema, act: Callable[[str, Schema], None]) -> None:
    for owner in (schema, *schema.get("definitions", {}).values()):
        for name, field in owner.get("properties", {}).items():
            act(name, field)


def _tidy(name: str, field: Schema) -> None:
    drop_none(field)
    field["title"] = TITLES.get(name, name.replace("_", " ").capitalize())


def _hide(owner: Schema, names: tuple[str, ...]) -> None:
    """Take fields out of the form; giving them stays allowed."""
    for name in names:
        hidden = owner["properties"].pop(name, None)
        if hidden is not None:
            owner.setdefault("patternProperties", {})[f"^{name}$"] = hidden


def _position(owner: Schema) -> None:
    for place, field in enumerate(owner["properties"].values()):
        field["position"] = place
