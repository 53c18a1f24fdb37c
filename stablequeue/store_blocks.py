"""Saved stores: block documents of two types, over HTTP and without Prefect."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from stablequeue.errors import NotFound, SettingsError
from stablequeue.prefect_api import PrefectApi
from stablequeue.storage import DEFAULT_STORE, STORE_CONFIG, FolderStoreConfig, S3StoreConfig

FOLDER_BLOCK = "picture-folder"
"""Slug of the block type for folders."""

BUCKET_BLOCK = "picture-bucket"
"""Slug of the block type for S3 buckets."""

_KINDS = {FOLDER_BLOCK: "folder", BUCKET_BLOCK: "s3"}


def saved_store(api: PrefectApi, name: str) -> FolderStoreConfig | S3StoreConfig:
    """Return a saved store with its secrets.

    Raises:
        NotFound: There is none of this name.
        SettingsError: Its saved values do not fit.
    """
    for slug in _KINDS:
        try:
            document = api.block_document(slug, name, secrets=True)
        except NotFound:
            continue
        return store_of(slug, name, document.data)
    message = (
        f"there is no store {name!r}; save a block 'Picture folder' or 'Picture bucket' of this"
        " name in Prefect's UI, or leave the server's store empty for the one in the settings"
    )
    raise NotFound(message)


def store_of(slug: str, name: str, data: Mapping[str, Any]) -> FolderStoreConfig | S3StoreConfig:
    """Return the configuration a saved store block holds.

    Raises:
        SettingsError: The values do not fit; names the store and the first wrong field.
    """
    if name == DEFAULT_STORE:
        message = f"a store block cannot be named {name!r}: that is the store in the settings"
        raise SettingsError(message)
    model = FolderStoreConfig if slug == FOLDER_BLOCK else S3StoreConfig
    known = {field: value for field, value in data.items() if field in model.model_fields}
    try:
        return STORE_CONFIG.validate_python({**known, "name": name, "type": _KINDS[slug]})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"][1:])
        message = f"saved store {name!r}, {field}: {first['msg']}; correct it in Prefect's UI"
        raise SettingsError(message) from None
