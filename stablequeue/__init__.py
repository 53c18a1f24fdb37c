"""A durable queue for generative image work.

from stablequeue import Client

with Client() as queue:
    job = queue.submit(prompt="a lighthouse at night", steps=20)
    print(queue.wait(job.job_id).state)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stablequeue.client import Client
    from stablequeue.request import GenerationRequest

    __version__: str

__all__ = ["Client", "GenerationRequest", "__version__"]

_WHERE = {"Client": "stablequeue.client", "GenerationRequest": "stablequeue.request"}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: the command line must start quickly."""
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # 20 ms

        return version("stablequeue")
    if module := _WHERE.get(name):
        from importlib import import_module  # noqa: PLC0415

        return getattr(import_module(module), name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
