"""Recordings of a real Forge, trimmed: what the tests here answer with and compare with."""

import base64
import copy
import io
import json
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

FOLDER = Path(__file__).parents[2] / "recordings" / "forge"


@cache
def _read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def listed(path: str) -> Any:
    """Return the recorded JSON of a list, e.g. `/sdapi/v1/sd-models`."""
    return copy.deepcopy(_read("lists")[path]["json"])


def list_status(path: str) -> int:
    return _read("lists")[path]["status"]


def job(name: str) -> dict[str, Any]:
    """Return a recorded job: path, request, status, response (with pictures painted anew)."""
    found = copy.deepcopy(_read("jobs")[name])
    response = found["response"]
    if isinstance(response.get("images"), list):
        response["images"] = [_painted(described) for described in response["images"]]
    return found


def job_names() -> list[str]:
    return sorted(_read("jobs"))


def info(name: str) -> dict[str, Any]:
    return json.loads(_read("jobs")[name]["response"]["info"])


def sequence(name: str) -> list[dict[str, Any]]:
    """Return a recorded sequence of progress answers."""
    return copy.deepcopy(_read("progress")[name])


def picture(
    mode: str = "RGB",
    size: tuple[int, int] = (64, 64),
    infotext: str = "",
    *,
    kind: str = "PNG",
    colour: Any = "teal",
) -> bytes:
    """Paint a picture with an infotext."""
    raw = io.BytesIO()
    image = Image.new(mode, size, colour)
    if kind == "PNG":
        texts = PngImagePlugin.PngInfo()
        if infotext:
            texts.add_text("parameters", infotext)
        image.save(raw, "PNG", pnginfo=texts)
    else:
        image.save(raw, kind)
    return raw.getvalue()


def _painted(described: dict[str, Any]) -> str:
    if described["mime"] == "image/jpeg":
        raw = picture(kind="JPEG")
    else:
        raw = picture(described["mode"], tuple(described["size"]))
    return base64.b64encode(raw).decode()
