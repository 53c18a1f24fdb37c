"""Fixed lists of the recorded server (names and numbers), from the JSON files in `data/`."""

import json
from functools import cache
from pathlib import Path
from typing import Any

_DATA = Path(__file__).parent / "data"


@cache
def facts(name: str) -> Any:
    """Return the content of `data/<name>.json`. Shared: copy before changing it."""
    return json.loads((_DATA / f"{name}.json").read_text("utf-8"))


def rows(name: str) -> list[dict[str, Any]]:
    """Return a list of objects; see `facts`."""
    return facts(name)


# AUTOMATIC1111 1.10.1 lacks what Forge added.
_FORGE_SAMPLERS = {"HeunPP2", "IPNDM", "IPNDM_V", "DEIS", "DDPM"}
_FORGE_SCHEDULERS = {
    "turbo",
    "align_your_steps_GITS",
    "align_your_steps_11",
    "align_your_steps_32",
}


def samplers(*, forge: bool) -> list[dict[str, Any]]:
    """Return the samplers in the server's order; the first is what unknown ones become."""
    return [s for s in rows("samplers") if forge or s["name"] not in _FORGE_SAMPLERS]


def schedulers(*, forge: bool) -> list[dict[str, Any]]:
    """Return the schedulers in the server's order; the first is what unknown ones become."""
    return [s for s in rows("schedulers") if forge or s["name"] not in _FORGE_SCHEDULERS]
