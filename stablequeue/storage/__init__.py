"""Where pictures go: stores, names, thumbnails and what is embedded in files.

Only light parts are imported here; `thumbnails`, `metadata` and `inputs` load Pillow, and an S3
store loads boto3 when it is opened.
"""

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
from stablequeue.storage.naming import readable_key
from stablequeue.storage.sniff import Sniffed, sniff

__all__ = [
    "DEFAULT_STORE",
    "STORE_CONFIG",
    "FolderStoreConfig",
    "S3StoreConfig",
    "Sniffed",
    "Store",
    "StoreConfig",
    "StoredBlob",
    "file_sha256",
    "open_store",
    "readable_key",
    "sniff",
    "store_config",
]
