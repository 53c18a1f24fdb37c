"""The node classes of the sandbox's ComfyUI. Importing this package fills `table.NODES`."""

from stablequeue.sandbox.comfyui.nodes import (
    images,
    latents,
    loaders,
    masks,
    sampling,
    saving,
    text,
)
from stablequeue.sandbox.comfyui.nodes.table import NODES

__all__ = ["NODES", "images", "latents", "loaders", "masks", "sampling", "saving", "text"]
