"""What the worker knows, in a file: for `stablequeue ls` and for the next worker."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from stablequeue.secrets import private_folder

logger = logging.getLogger("stablequeue.worker")

STATE_FILE = "worker-state.json"


def read_state(run_folder: Path) -> Mapping[str, Any]:
    """Return what was written last; empty when there is nothing, or nothing that can be read."""
    try:
        data: object = json.loads((run_folder / STATE_FILE).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("Mapping[str, Any]", data) if isinstance(data, dict) else {}


def write_state(run_folder: Path, state: Mapping[str, Any]) -> None:
    """Replace what was written; a disk that does not take it is only logged."""
    path = private_folder(run_folder) / STATE_FILE
    draft = path.with_suffix(".part")
    try:
        draft.write_text(json.dumps(state), encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        logger.warning("%s cannot be written: %s", path, error)
