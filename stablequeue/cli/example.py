"""The commented example of every setting, made of the settings' own descriptions."""

import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from stablequeue.settings import ALIASES, FILE_NAME, PREFIX, S3Settings, Settings

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
}


def example_settings() -> str:
    """Return the file's text."""
    return "\n".join([_HEAD, *_fields(Settings, "")])


def _fields(model: type[BaseModel], indent: str) -> Iterator[str]:
    for name, info in model.model_fields.items():
        if info.annotation is S3Settings:
            yield from _comment(f"{(S3Settings.__doc__ or '').strip()} {_environment(name)}", "")
            yield f"#{name}:"
            yield from _fields(S3Settings, "  ")
            yield ""
            continue
        about = info.description or ""
        yield from _comment(about if indent else f"{about} {_environment(name)}".strip(), indent)
        yield f"#{indent}{name}: {_value(name, info)}"
        if not indent:
            yield ""


def _comment(text: str, indent: str) -> Iterator[str]:
    lead = f"#{indent}# " if indent else "# "
    for line in textwrap.wrap(text, _WIDTH, break_long_words=False):
        yield lead + line


def _environment(name: str) -> str:
    names = [f"{PREFIX}{name.upper()}" + ("_*" if name == "s3" else ""), *ALIASES.get(name, ())]
    return f"[{', '.join(names)}]"


def _value(name: str, info: FieldInfo) -> str:
    value: Any = info.get_default(call_default_factory=True, validated_data={})
    if name in _SAMPLES:
        value = _SAMPLES[name]
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, Path):
        value = str(value)
    if value is None or value is PydanticUndefined:
        value = ""
    text = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return text.removesuffix("\n").removesuffix("\n...")
