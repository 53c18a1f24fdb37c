"""Forge and AUTOMATIC1111 over `/sdapi/v1`. Tried on Forge f2.0.1v1.10.1 (June 2025)."""

from stablequeue.engines.forge.engine import Forge

__all__ = ["Forge"]
