"""Types for answers of servers that change: whatever does not fit becomes its empty value."""

from collections.abc import Callable
from typing import Annotated, Any, cast

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WrapValidator
from pydantic.alias_generators import to_camel


def _or(default: Callable[[], Any]) -> WrapValidator:
    def validate(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            return default()

    return WrapValidator(validate)


def _mappings(value: Any) -> list[Any]:
    if not isinstance(value, list):
        return []
    return [one for one in cast("list[Any]", value) if isinstance(one, dict)]


def _texts(value: Any) -> list[str]:
    # Postgres array literals ("{Image,RentCivit}") are seen in place of lists.
    if isinstance(value, str) and value.startswith("{") and value.endswith("}"):
        value = [part.strip('" ') for part in value[1:-1].split(",")]
    if not isinstance(value, list):
        return []
    return [one for one in cast("list[Any]", value) if isinstance(one, str) and one]


def _numbers(value: Any) -> list[int]:
    if not isinstance(value, list):
        return []
    return [one for one in cast("list[Any]", value) if type(one) is int]


def _text_map(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        return {}
    return {k: v for k, v in cast("dict[str, Any]", value).items() if isinstance(v, str)}


def _json_map(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


Text = Annotated[str, _or(str)]
Number = Annotated[int, _or(int)]
Real = Annotated[float, _or(float)]
Flag = Annotated[bool, _or(bool)]
Texts = Annotated[list[str], BeforeValidator(_texts)]
Numbers = Annotated[list[int], BeforeValidator(_numbers)]
TextMap = Annotated[dict[str, str], BeforeValidator(_text_map)]
JsonMap = Annotated[dict[str, Any], BeforeValidator(_json_map)]
Mappings = BeforeValidator(_mappings)
"""Keeps the objects of a list; anything else, `null` included, is left out."""


class Lenient(BaseModel):
    """An answer's object: camelCase there, snake_case here; every field may be missing."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True
    )
