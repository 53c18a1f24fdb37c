"""Where pictures go: stores, names, thumbnails and what is embedded in files.

What needs Pillow is loaded when it is first used, and an S3 store's library when the store is
opened, so that commands that only look things up start quickly.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stablequeue.storage.base import (
    DEFAULT_STORE,
    STORE_CONFIG,
    FolderStoreConfig,
    S3StoreConfig,
    Store,
    StoreConfig,
    StoredBlob,
    open_store,
    store_config,
)
from stablequeue.storage.hashing import file_sha256
from stablequeue.storage.metadata import Embedded, read_metadata
from stablequeue.storage.naming import readable_key
from stablequeue.storage.sniffing import Sniffed, sniff
from stablequeue.storage.verifying import Condition, Verified, verify

if TYPE_CHECKING:
    from stablequeue.storage.inputs import InputStore
    from stablequeue.storage.reencoding import Reencoded, can_reencode, reencode
    from stablequeue.storage.thumbnails import make_thumbnail

__all__ = [
    "DEFAULT_STORE",
    "STORE_CONFIG",
    "Condition",
    "Embedded",
    "FolderStoreConfig",
    "InputStore",
    "Reencoded",
    "S3StoreConfig",
    "Sniffed",
    "Store",
    "StoreConfig",
    "StoredBlob",
    "Verified",
    "can_reencode",
    "file_sha256",
    "make_thumbnail",
    "open_store",
    "read_metadata",
    "readable_key",
    "reencode",
    "sniff",
    "store_config",
    "verify",
]

_LATER = {
    "InputStore": "stablequeue.storage.inputs",
    "Reencoded": "stablequeue.storage.reencoding",
    "can_reencode": "stablequeue.storage.reencoding",
    "make_thumbnail": "stablequeue.storage.thumbnails",
    "reencode": "stablequeue.storage.reencoding",
}


if not TYPE_CHECKING:  # checkers would take any name for one that is there

    def __getattr__(name: str) -> Any:
        if name in _LATER:
            return getattr(import_module(_LATER[name]), name)
        message = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(message)
