"""JSON schemas as Prefect's pages draw forms from them."""

from typing import Any


def drop_none(field: dict[str, Any]) -> None:
    """Make an optional field of a JSON schema a plain one, in place.

    Prefect draws `X or None` as two tabs, one of them saying None; left empty, a plain field is
    not sent at all, which means the same.
    """
    choices = [choice for choice in field.get("anyOf", ()) if choice.get("type") != "null"]
    if "anyOf" not in field or len(choices) != 1:
        return
    del field["anyOf"]
    field.update(choices[0])
    if field.get("default", ...) is None:
        del field["default"]  # with it, Prefect would refuse the null its own form sends
