"""Request fields as they are typed: LoRAs, sizes, overrides, times."""

import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from stablequeue.errors import BadRequest
from stablequeue.request_checks import BEFORE_NUMBERS

_SIZE = re.compile(r"(\d{1,6})(?:\s*[xX*\u00d7]\s*(\d{1,6}))?")
_WEIGHTED = re.compile(r"(.+):([+-]?(?:\d+\.?\d*|\.\d+))", re.DOTALL)
_DURATION = re.compile(r"(\d{1,6}(?:\.\d{1,6})?)\s*(s|m|min|h|d)")
_UNITS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def lora(text: str) -> dict[str, Any]:
    """Read NAME or NAME:WEIGHT; names may have colons and backslashes of their own.

    What stands behind `version:` and its like is no weight.
    """
    found = _WEIGHTED.fullmatch(text)
    if found and found[1].rpartition(":")[2].strip().casefold() not in BEFORE_NUMBERS:
        return {"name": found[1], "weight": float(found[2])}
    return {"name": text}


def dimensions(text: str) -> tuple[int, int]:
    """Read 768x512 (width first), or 512 for a square.

    Raises:
        BadRequest: It is neither.
    """
    if found := _SIZE.fullmatch(text.strip()):
        width = int(found[1])
        return width, int(found[2] or width)
    raise BadRequest("--size", f"{text!r} is not a size", ["512x768", "1024"])


def override(text: str) -> tuple[str, Any]:
    """Read NODE.INPUT=JSON; what is not JSON is taken as text.

    Raises:
        BadRequest: There is no `=`, or no dot before it.
    """
    name, equals, value = text.partition("=")
    if not equals or "." not in name.strip("."):
        raise BadRequest("--override", f"{text!r} is not NODE.INPUT=VALUE", ["3.seed=7"])
    return name, json_or_text(value)


def json_or_text(value: str) -> Any:
    """Return JSON data, or the text itself where it is none."""
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def moment(text: str, now: datetime | None = None) -> str:
    """Read a time (local unless it says otherwise) or a duration from now: 30m, 2h, 1d.

    Returns:
        ISO 8601 with a time zone.

    Raises:
        BadRequest: It is neither.
    """
    now = now or datetime.now(UTC)
    try:
        if found := _DURATION.fullmatch(text.strip()):
            return (now + timedelta(seconds=float(found[1]) * _UNITS[found[2]])).isoformat()
        return datetime.fromisoformat(text.strip()).astimezone(UTC).isoformat()
    except (ValueError, OverflowError, OSError):
        allowed = ["2h", "30m", "2026-12-24T18:00"]
        raise BadRequest("--expires", f"{text!r} is not a time", allowed) from None


def past_moment(option: str, text: str, now: datetime | None = None) -> datetime:
    """Read a time or date (local unless it says otherwise), or how long ago: 2d, 6h.

    Raises:
        BadRequest: It is neither.
    """
    now = now or datetime.now(UTC)
    try:
        if found := _DURATION.fullmatch(text.strip()):
            return now - timedelta(seconds=float(found[1]) * _UNITS[found[2]])
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        raise BadRequest(option, f"{text!r} is not a time", ["2026-11-20", "2d", "6h"]) from None


def set_fields(fields: Mapping[str, Any], items: Sequence[str]) -> dict[str, Any]:
    """Return `fields` with each FIELD=JSON set; dots lead into fields of fields.

    Raises:
        BadRequest: An item is not FIELD=JSON, or leads into something without fields.
    """
    result: dict[str, Any] = {**fields}
    for item in items:
        path, equals, value = item.partition("=")
        names = path.split(".")
        if not equals or not all(names):
            raise BadRequest("--set", f"{item!r} is not FIELD=JSON", ["hires.steps=10"])
        at = result
        for name in names[:-1]:
            inner: Any = at.get(name, {})
            if not isinstance(inner, dict):
                raise BadRequest("--set", f"{name!r} in {path!r} has no fields")
            at[name] = {**cast("dict[str, Any]", inner)}
            at = at[name]
        at[names[-1]] = json_or_text(value)
    return result


def workflow(path: Path) -> dict[str, Any]:
    """Read a ComfyUI workflow, in whichever format.

    Raises:
        BadRequest: The file cannot be read, or is no JSON object.
    """
    try:
        data = json.loads(path.expanduser().read_bytes())
    except OSError as error:
        raise BadRequest("--workflow", f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise BadRequest("--workflow", f"{path} is not JSON") from error
    if not isinstance(data, dict):
        raise BadRequest("--workflow", f"{path} is no workflow of ComfyUI")
    return cast("dict[str, Any]", data)
