"""Records the tests of the catalogue are full of."""

import hashlib
from collections.abc import Callable
from typing import Any

from stablequeue.catalogue import (
    Asset,
    Attempt,
    AttemptState,
    Catalogue,
    NewAsset,
    StoredRequest,
)
from stablequeue.engines.base import Kind, Ticket
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest


def ticket(number: int) -> Ticket:
    """Return a ticket that says which attempt it is of."""
    return Ticket(engine="forge", remote_id=f"remote-{number}", data={"number": number})


def accepted(catalogue: Catalogue, prompt: str = "a cat", **fields: Any) -> StoredRequest:
    """Accept a new job."""
    request = GenerationRequest.model_validate({"prompt": prompt, **fields})
    return catalogue.accept(request, job_id=new_job_id(), seed=7, deployment="generate/any")


def begun(
    catalogue: Catalogue,
    job_id: str,
    index: int = 0,
    *,
    server: str = "gpu-a",
    make_ticket: Callable[[int], Ticket] = ticket,
) -> Attempt:
    """Begin an attempt."""
    return catalogue.begin_attempt(
        job_id, index, server=server, engine="forge", make_ticket=make_ticket
    )


def new_asset(content: str = "bytes", **fields: Any) -> NewAsset:
    """Return a file with this content, to be recorded."""
    sha256 = hashlib.sha256(content.encode()).hexdigest()
    values: dict[str, Any] = {
        "ordinal": 0,
        "kind": Kind.IMAGE,
        "mime": "image/png",
        "sha256": sha256,
        "size": len(content),
        "width": 64,
        "height": 48,
        "store": "pictures",
        "key": f"2026-11-21/{sha256[:12]}.png",
        "server": "gpu-a",
        "engine": "forge",
        **fields,
    }
    return NewAsset(**values)


def stored(
    catalogue: Catalogue, asked: str = "a cat", *, tags: tuple[str, ...] = (), **fields: Any
) -> Asset:
    """Record one picture of a new job; its bytes are its own unless `content` is given."""
    job = accepted(catalogue, asked, tags=list(tags))
    content = fields.pop("content", job.job_id)
    attempt = begun(catalogue, job.job_id)
    assert catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
    (asset,) = catalogue.record_assets(attempt.id, [new_asset(content, **fields)])
    return asset
