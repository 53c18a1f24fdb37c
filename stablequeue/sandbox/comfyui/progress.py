"""Progress of the nodes of one prompt, as `progress_state` tells it ([10], [12])."""

from typing import Any

from stablequeue.sandbox.comfyui.hub import Hub
from stablequeue.sandbox.comfyui.nodes.table import Preview

JSON = dict[str, Any]


class Progress:
    """Which nodes run or have run. Waiting ones are not told, cached ones never appear."""

    def __init__(self, hub: Hub, prompt_id: str) -> None:
        self._hub, self._prompt_id = hub, prompt_id
        self._nodes: dict[str, JSON] = {}

    def start(self, node_id: str) -> None:
        """A node begins."""
        self._set(node_id, 0.0, 1.0, "running")

    def update(self, node_id: str, value: int, maximum: int, preview: Preview | None) -> None:
        """A node got on: state, preview with metadata, progress, plain preview, in this order."""
        self._set(node_id, value, maximum, "running")
        with_metadata = preview is not None and self._hub.tells_metadata()
        if preview is not None and with_metadata:
            self._hub.send_preview(preview, self._told(node_id))
        told = {"value": value, "max": maximum, "prompt_id": self._prompt_id, "node": node_id}
        self._hub.send("progress", told, self._hub.client_id)
        if preview is not None and not with_metadata:
            self._hub.send_plain_preview(preview)

    def finish(self, node_id: str) -> None:
        """A node is done (or its cached output was told again)."""
        entry = self._nodes.get(node_id, {"max": 1})
        self._set(node_id, entry["max"], entry["max"], "finished")

    def _told(self, node_id: str) -> JSON:
        return {
            "node_id": node_id,
            "prompt_id": self._prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }

    def _set(self, node_id: str, value: float, maximum: float, state: str) -> None:
        entry = {"value": value, "max": maximum, "state": state}
        self._nodes[node_id] = entry | self._told(node_id)
        told = {"prompt_id": self._prompt_id, "nodes": self._nodes}
        self._hub.send("progress_state", told, self._hub.client_id)
