"""What a server remembers of the prompt before: a node with equal inputs is not run again.

Only nodes of the latest prompt are kept, so another workflow in between forgets them ([11]).
"""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any, cast

from stablequeue.sandbox.comfyui.nodes import NODES
from stablequeue.sandbox.comfyui.nodes.table import Host
from stablequeue.sandbox.comfyui.ordering import as_link

JSON = dict[str, Any]
Key = str
_never_equal = itertools.count()


@dataclass
class Cache:
    """Values and told outputs by the key of a node."""

    values: dict[Key, tuple[Any, ...]] = field(default_factory=dict[str, tuple[Any, ...]])
    told: dict[Key, JSON] = field(default_factory=dict[str, JSON])

    def keep(self, keys: set[Key]) -> None:
        """Forget everything but `keys`."""
        self.values = {key: value for key, value in self.values.items() if key in keys}
        self.told = {key: value for key, value in self.told.items() if key in keys}


def keys_of(host: Host, prompt: JSON) -> dict[str, Key]:
    """Return a key per node: equal for nodes that would make the same of the same.

    Titles and node ids do not count. What cannot be told (a missing file, a missing node) never
    equals anything.
    """
    keys: dict[str, Key] = {}
    for node_id in prompt:
        _add_key(host, prompt, node_id, keys)
    return keys


def _add_key(host: Host, prompt: JSON, wanted: str, keys: dict[str, Key]) -> None:
    """Fill `keys` for a node and all before it, without recursion: chains may be long."""
    path = [wanted]
    while path:
        node_id = path[-1]
        if node_id in keys:
            path.pop()
            continue
        given: Any = prompt[node_id].get("inputs")
        inputs = cast("JSON", given) if isinstance(given, dict) else {}
        sources = [link[0] for value in inputs.values() if (link := as_link(value))]
        open_ones = [s for s in sources if s in prompt and s not in keys]
        if open_ones and open_ones[0] not in path:
            path.append(open_ones[0])
            continue
        told: list[Any] = [prompt[node_id]["class_type"], _change(host, prompt[node_id])]
        for name in sorted(inputs):
            link = as_link(inputs[name])
            if link is None:
                told.append([name, inputs[name]])
            else:
                told.append([name, keys.get(link[0], next(_never_equal)), link[1]])
        keys[node_id] = json.dumps(told, default=str)
        path.pop()


def _change(host: Host, node: JSON) -> Any:
    known = NODES[node["class_type"]]
    if known.changed is None:
        return None
    try:
        return known.changed(host, node["inputs"])
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return next(_never_equal)
