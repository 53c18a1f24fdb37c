"""The flows of our own project, loaded once a process and kept."""

import os
from pathlib import Path
from typing import Any

from prefect.flows import Flow, load_flow_from_entrypoint

from stablequeue.project import activate

AnyFlow = Flow[..., Any]

_loaded: dict[str, AnyFlow] = {}


def load_all() -> None:
    """Load every flow of the project, so that a process forked from this one has them."""
    project = activate()
    here = Path.cwd()
    os.chdir(project)
    try:
        for path in sorted((project / "flows").glob("*.py")):
            if path.stem != "__init__":
                flow_at(f"flows/{path.name}:{path.stem}")
    finally:
        os.chdir(here)


def flow_at(entrypoint: str) -> AnyFlow:
    """Return the flow at FILE:FUNCTION, relative to the project's folder (the working directory).

    Raises:
        Whatever its module raises when it is imported.
    """
    if entrypoint not in _loaded:
        _loaded[entrypoint] = load_flow_from_entrypoint(entrypoint, use_placeholder_flow=False)
    return _loaded[entrypoint]
