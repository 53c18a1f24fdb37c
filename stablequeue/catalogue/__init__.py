"""The catalogue: what was asked, each attempt's ticket, and what came out.

Importing this is quick; `Catalogue` and `open_catalogue` bring SQLModel in (a second) when they are
first named. Commands that only look use `stablequeue.catalogue.glance`.
"""

from typing import TYPE_CHECKING, Any

from stablequeue.catalogue.records import (
    ENDED,
    FINISHED,
    TRANSITIONS,
    Asset,
    Attempt,
    AttemptState,
    Blob,
    JobState,
    MigrationReport,
    NewAsset,
    NewJob,
    Outcome,
    Parked,
    StoredRequest,
)

if TYPE_CHECKING:
    from stablequeue.catalogue.catalogue import Catalogue, open_catalogue

__all__ = [
    "ENDED",
    "FINISHED",
    "TRANSITIONS",
    "Asset",
    "Attempt",
    "AttemptState",
    "Blob",
    "Catalogue",
    "JobState",
    "MigrationReport",
    "NewAsset",
    "NewJob",
    "Outcome",
    "Parked",
    "StoredRequest",
    "open_catalogue",
]


def __getattr__(name: str) -> Any:
    if name in {"Catalogue", "open_catalogue"}:
        from stablequeue.catalogue import catalogue  # noqa: PLC0415  # see above

        return getattr(catalogue, name)
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)
