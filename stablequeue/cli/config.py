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
    if common.json:
        data: Any = (
            {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
            if origin
            else values
        )
        common.emit(data, "")
        return 0
    rows = [
        [name, str(value), *([origins[name.partition(".")[0]]] if origin else [])]
        for name, value in flat(values).items()
    ]
    headers = ("SETTING", "VALUE", *(("ORIGIN",) if origin else ()))
    common.emit(values, lambda target: target.table(headers, rows))
    return 0


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
    values: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, SecretStr):
            values[name] = _HIDDEN if value.get_secret_value() else ""
        elif isinstance(value, BaseModel):
            values[name] = plain(value)
        elif isinstance(value, list):
            values[name] = [str(item) for item in value]  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        else:
            values[name] = value if isinstance(value, int | float | str) else str(value or "")
    return {name: without_password(value) for name, value in values.items()}


def without_password(value: Any) -> Any:
    """Return a URL without the secrets in it; anything else as it is."""
    if not isinstance(value, str) or "://" not in value:
        return value
    return without_secrets(value)


def flat(values: dict[str, Any]) -> dict[str, Any]:
    """Return nested values with dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            inner = cast("dict[str, Any]", value)
            found |= {f"{name}.{key}": item for key, item in inner.items()}
        else:
            found[name] = ", ".join(value) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType]
    return found
