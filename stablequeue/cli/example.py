"""The commented example of every setting, made of the settings' own descriptions."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stablequeue.settings import FILE_NAME, PREFIX, Settings, environment_names

_WIDTH = 90
_HEAD = f"""\
# Settings of StableQueue. Save this as {FILE_NAME} in the home folder, or name it with
# {PREFIX}CONFIG, take away the # before a line and change the value.
#
# A setting in the environment goes before this file, one on the command line before both:
#   {PREFIX}FILES_PORT=8080 stablequeue up
#   stablequeue --setting files_port=8080 up
# Which value is in force, and why: stablequeue config show --origin
"""
_SAMPLES: dict[str, Any] = {
    "home": "/srv/stablequeue",
    "input_folders": ["/srv/photos"],
    "pictures": "/srv/pictures",
    "models.folders": {
        "checkpoint": ["/srv/models/checkpoints", "/mnt/nas/checkpoints"],
        "lora": ["/srv/models/loras"],
    },
    "models.installations": ["/srv/ComfyUI", "/srv/stable-diffusion-webui-forge"],
    "models.extra_model_paths": ["/srv/extra_model_paths.yaml"],
    "models.locks": "/srv/models/.locks",
}


def example_settings() -> str:
    """Return the file's text."""
    return "\n".join([_HEAD, *_fields(Settings, "")])


def _fields(model: type[BaseModel], within: str) -> Iterator[str]:
    indent = "  " * within.count(".")
    for name, info in model.model_fields.items():
        setting = f"{within}{name}"
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from _comment((section.__doc__ or "").strip(), indent)
            yield f"#{indent}{name}:"
            yield from _fields(section, f"{setting}.")
        else:
            yield from _comment(f"{info.description or ''} {_environment(setting)}", indent)
            yield from _value(name, _sample(setting, info), indent)
        if not indent:
            yield ""


def _comment(text: str, indent: str) -> Iterator[str]:
    lead = f"#{indent}# " if indent else "# "
    for line in textwrap.wrap(text, _WIDTH - len(indent), break_long_words=False):
        yield lead + line


def _environment(setting: str) -> str:
    names = environment_names().get(setting, ())
    return f"[{', '.join(names)}]" if names else ""


def _sample(setting: str, info: FieldInfo) -> Any:
    value: Any = info.get_default(call_default_factory=True, validated_data={})
    if setting in _SAMPLES:
        value = _SAMPLES[setting]
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = list(cast("tuple[Any, ...]", value))
    return "" if value is None or value is PydanticUndefined else value


def _value(name: str, value: Any, indent: str) -> Iterator[str]:
    """Yield the lines of one setting; a mapping gets one for each key."""
    if isinstance(value, dict) and value:
        yield f"#{indent}{name}:"
        for key, item in cast("dict[str, Any]", value).items():
            yield from _value(key, item, f"{indent}  ")
        return
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    yield f"#{indent}{name}: " + text.removesuffix("\n").removesuffix("\n...")
