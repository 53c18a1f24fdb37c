"""`config show`, `config example`: the settings."""

from typing import Annotated, Any, cast

from cyclopts import Parameter
from pydantic import BaseModel, SecretStr

from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.hiding import without_secrets
from stablequeue.settings import load_with_origins

_HIDDEN = "(set)"


def show(
    *,
    origin: Annotated[bool, Parameter(help="Also where each value comes from.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Show the settings in force.

    Secrets are never shown, only whether they are set.
    """
    settings, origins = load_with_origins(common.overrides())
    values = plain(settings)
    origin_by_name = {name: origins.get(name, "default") for name in flat(values)}
    if common.json:
        data: Any = (
            {
                name: {"value": value, "origin": _of_section(name, origin_by_name)}
                for name, value in values.items()
            }
            if origin
            else values
        )
        common.emit(data, "")
        return 0
    rows = [
        [name, str(value), *([origin_by_name[name]] if origin else [])]
        for name, value in flat(values).items()
    ]
    headers = ("SETTING", "VALUE", *(("ORIGIN",) if origin else ()))
    common.emit(values, lambda target: target.table(headers, rows))
    return 0


def _of_section(name: str, origins: dict[str, str]) -> Any:
    """Return a setting's origin; of a section, those of its settings by their dotted names."""
    if name in origins:
        return origins[name]
    return {one: where for one, where in origins.items() if one.startswith(f"{name}.")}


def example(*, common: Common = DEFAULTS) -> int:
    """Print a commented settings file.

    Every line is a comment: save it as stablequeue.yaml in the home folder and change what should
    differ.
    """
    from stablequeue.cli.example import example_settings  # noqa: PLC0415

    text = example_settings()
    common.emit({"yaml": text}, text.rstrip("\n"))
    return 0


def plain(model: BaseModel) -> dict[str, Any]:
    """Return a model's values as JSON data, without secrets."""
    return {name: _plain(getattr(model, name)) for name in type(model).model_fields}


def _plain(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return _HIDDEN if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return plain(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in cast("dict[str, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in cast("list[Any]", value)]
    if isinstance(value, int | float):
        return value
    return without_password(str(value or ""))


def without_password(value: Any) -> Any:
    """Return a URL without the secrets in it; anything else as it is."""
    if not isinstance(value, str) or "://" not in value:
        return value
    return without_secrets(value)


def flat(values: dict[str, Any], within: str = "") -> dict[str, Any]:
    """Return nested values with dotted names; an empty section has none."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= flat(cast("dict[str, Any]", value), f"{within}{name}.")
        else:
            shown = ", ".join(cast("list[str]", value)) if isinstance(value, list) else value
            found[f"{within}{name}"] = shown
    return found
