"""Puts ComfyUI's half together."""

from starlette.routing import BaseRoute

from stablequeue.sandbox.state import SandboxState


def build(state: SandboxState) -> list[BaseRoute]:
    """Return the routes of one life of a ComfyUI server."""
    del state
    return []
