"""A generation server of ours that needs no graphics card and paints labelled test cards.

It speaks ComfyUI's and Forge's protocols over real sockets and is never kinder than the servers it
stands for: they lose interrupts, forget history, replace unknown models, and so does it. It is the
server `stablequeue up` starts when none is saved, and the one the tests talk to.
"""

from stablequeue.sandbox.card import CardOutOfMemory, GraphicsCard
from stablequeue.sandbox.faults import Fault, FaultKind, Faults
from stablequeue.sandbox.models import ModelFile, ModelShelf, default_models
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.sandbox.state import SandboxConfig, SandboxState

__all__ = [
    "CardOutOfMemory",
    "Fault",
    "FaultKind",
    "Faults",
    "GraphicsCard",
    "ModelFile",
    "ModelShelf",
    "Sandbox",
    "SandboxConfig",
    "SandboxState",
    "default_models",
    "serve_sandbox",
]
