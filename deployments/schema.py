"""The run form: a flow's parameter schema made pleasant for Prefect's pages.

Prefect draws a form from the JSON schema Pydantic makes and refuses runs that do not fit it. Here
fields get human titles, what no person should fill in leaves the form, though it may still be
given, and the server is fixed to the deployment's.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from typing import Any

from pydantic import AliasChoices

from stablequeue.forms import drop_none
from stablequeue.request import GenerationRequest

Schema = dict[str, Any]

REQUEST = GenerationRequest.__name__

HIDDEN = ("schema_version", "source")
"""Fields of a request that programs fill in."""

ONLY_FOR = {
    "forge": ("alwayson_scripts",),
    "comfyui": ("workflow", "overrides"),
}
"""Fields of a request that make sense on one kind of server; its section is named after it."""

TITLES = {
    "alwayson_scripts": "Always-on scripts",
    "cfg_scale": "CFG scale",
    "clip_skip": "CLIP skip",
    "comfyui": "ComfyUI",
    "expires_at": "Expires at",
    "extra_pnginfo": "Extra PNG info",
    "hires": "Second, larger pass",
    "init_image": "Start picture",
    "loras": "LoRAs",
    "mask_image": "Mask",
    "padding": "Padding",
    "script_args": "Script arguments",
    "unet": "UNet",
    "vae": "VAE",
}


def form_schema(
    parameters: Mapping[str, Any], server: str, *, kind: str = "", fixed: bool = False
) -> Schema:
    """Return the schema for one deployment of a flow that takes a request.

    Args:
        parameters: The flow's own parameter schema.
        server: Alias of the deployment's server, or any.
        kind: The server's type; what only other types understand leaves the form. Empty: so does
            what only one type understands.
        fixed: Whether a run may name no other server.
    """
    schema = deepcopy(dict(parameters))
    definitions: dict[str, Schema] = schema.get("definitions", {})
    for owner in (schema, *definitions.values()):
        for name, field in owner.get("properties", {}).items():
            _tidy(name, field)
    schema["properties"].pop("job_id", None)  # still taken: our client gives it
    request = definitions[REQUEST]
    request["properties"]["server"] = _server_field(request["properties"]["server"], server, fixed)
    others = [other for other in ONLY_FOR if other != kind]
    _hide(definitions["Sections"], others)
    _hide(request, [*HIDDEN, *(name for other in others for name in ONLY_FOR[other])])
    if not definitions["Sections"]["properties"]:
        _hide(request, ["sections"])
    for alias in _aliases():
        request.setdefault("patternProperties", {})[f"^{alias}$"] = {}
    for owner in (schema, request):
        for place, field in enumerate(owner["properties"].values()):
            field["position"] = place
    return schema


def _tidy(name: str, field: Schema) -> None:
    drop_none(field)
    if field.get("default", ...) is None:  # the form sends null for it, allowed only without this
        del field["default"]
    field["title"] = TITLES.get(name, name.replace("_", " ").capitalize())


def _server_field(field: Schema, server: str, fixed: bool) -> Schema:
    if not fixed:
        return {**field, "default": server}
    return {
        "type": "string",
        "title": "Server",
        "description": "Fixed: this deployment runs on this server only.",
        "enum": [server],
        "default": server,
    }


def _hide(owner: Schema, names: Iterable[str]) -> None:
    """Take fields out of the form; giving them stays allowed."""
    for name in names:
        hidden = owner["properties"].pop(name, None)
        if hidden is not None:
            owner.setdefault("patternProperties", {})[f"^{name}$"] = hidden


def _aliases() -> list[str]:
    """Return the other names that fields of a request may be given under."""
    found: list[str] = []
    for name, field in GenerationRequest.model_fields.items():
        alias = field.validation_alias
        if isinstance(alias, AliasChoices):
            found += [str(choice) for choice in alias.choices if choice != name]
    return found
