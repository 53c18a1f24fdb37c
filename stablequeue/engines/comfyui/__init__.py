"""ComfyUI over HTTP and WebSocket. Tried on 0.3.64, 0.8.0 and 0.26.0."""

from stablequeue.engines.comfyui.engine import ComfyUI

__all__ = ["ComfyUI"]
