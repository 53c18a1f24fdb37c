"""Block fields taken from the configuration models they mirror, so that they cannot drift apart."""

from copy import copy
from typing import Any

from pydantic import BaseModel
from pydantic.fields import ComputedFieldInfo, FieldInfo

_TITLES = {
    "url": "URL",
    "username": "User name",
    "token": "Bearer token",
    "ui_username": "User name of the pages",
    "ui_password": "Password of the pages",
    "card": "Graphics card",
    "connect_timeout_s": "Connection timeout (s)",
    "read_timeout_s": "Answer timeout (s)",
    "stall_after_s": "Stalled after (s)",
    "sandbox": "Built-in sandbox",
    "models_from": "Models reach it by",
    "model_paths": "Model folders there (LOCAL=REMOTE)",
    "keep_free_mib": "Keep free (MiB)",
    "endpoint_url": "Endpoint URL",
    "attempts": "Attempts",
}


def same_field(model: type[BaseModel], name: str) -> Any:
    """Return the field `name` of `model` for a block: default, limits and description alike."""
    return copy(model.model_fields[name])


def title_of(name: str, field: FieldInfo | ComputedFieldInfo) -> str:
    """Return what the form calls a field."""
    del field
    return _TITLES.get(name, name.replace("_", " ").capitalize())
