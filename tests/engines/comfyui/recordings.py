"""Recordings of a real ComfyUI, trimmed: what the tests here answer with."""

import copy
import json
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "recordings" / "comfyui"


@cache
def _read(name: str) -> Any:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))["data"]


def recorded(name: str) -> Any:
    """Return a recording's data, to do with as one likes."""
    return copy.deepcopy(_read(name))


def history_of(note: str) -> tuple[str, dict[str, Any]]:
    """Return prompt id and history of the recorded prompt whose note begins so."""
    found = [entry for entry in recorded("histories") if entry["note"].startswith(note)]
    assert found, note
    return found[0]["id"], found[0]["history"]


def rejection_of(note: str) -> tuple[int, Any]:
    """Return status and body of the recorded refusal whose note contains that."""
    found = [entry for entry in recorded("rejections") if note in entry["note"]]
    assert found, note
    return found[0]["status"], found[0]["response"]
