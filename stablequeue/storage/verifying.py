"""Are the stored bytes still what was stored?"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from stablequeue.errors import NotFound
from stablequeue.storage.base import Store
from stablequeue.storage.hashing import stream_sha256


class Kept(Protocol):
    """What the catalogue knows of stored bytes; its assets are such."""

    @property
    def key(self) -> str:
        """Key in the store."""
        ...

    @property
    def sha256(self) -> str:
        """Hash when it was stored, lower case hex."""
        ...


K = TypeVar("K", bound=Kept)


class Condition(StrEnum):
    """How stored bytes were found."""

    WHOLE = "whole"
    DAMAGED = "damaged"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class Verified(Generic[K]):
    """One verdict. `found` is the hash the bytes have now; empty when there are none."""

    asset: K
    condition: Condition
    found: str = ""


def verify(store: Store, assets: Iterable[K]) -> Iterator[Verified[K]]:
    """Read each asset's bytes and compare their SHA-256, one verdict at a time, in order.

    Raises:
        StoreUnavailable: The store cannot be read; nothing is said about the rest.
    """
    for asset in assets:
        try:
            stream = store.open(asset.key)
        except NotFound:
            yield Verified(asset, Condition.MISSING)
            continue
        with stream:
            found = stream_sha256(stream)
        whole = found == asset.sha256
        yield Verified(asset, Condition.WHOLE if whole else Condition.DAMAGED, found)
