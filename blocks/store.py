"""Blocks for stores: where finished pictures go. The document's name is the store's name."""

from pathlib import Path
from typing import ClassVar

from prefect.blocks.core import Block
from pydantic import ConfigDict, SecretStr

from blocks.fields import same_field, title_of
from stablequeue.storage import FolderStoreConfig, S3StoreConfig
from stablequeue.store_blocks import BUCKET_BLOCK, FOLDER_BLOCK, store_of


class PictureFolder(Block):
    """A folder for finished pictures, on a disk or a network share."""

    model_config: ClassVar[ConfigDict] = ConfigDict(field_title_generator=title_of)

    _block_type_name = "Picture folder"
    _block_type_slug = FOLDER_BLOCK
    _description = "A folder that StableQueue stores finished pictures in."

    folder: Path = same_field(FolderStoreConfig, "folder")
    must_exist: bool = same_field(FolderStoreConfig, "must_exist")
    keep_free_mib: int = same_field(FolderStoreConfig, "keep_free_mib")

    def config(self) -> FolderStoreConfig | S3StoreConfig:
        """Return the store's configuration; raises `SettingsError` when it does not fit."""
        data = {name: getattr(self, name) for name in type(self).model_fields}
        return store_of(FOLDER_BLOCK, self._block_document_name or "", data)


class PictureBucket(Block):
    """A bucket for finished pictures, on S3 or anything that speaks it."""

    model_config: ClassVar[ConfigDict] = ConfigDict(field_title_generator=title_of)

    _block_type_name = "Picture bucket"
    _block_type_slug = BUCKET_BLOCK
    _description = "An S3 bucket that StableQueue stores finished pictures in."

    bucket: str = same_field(S3StoreConfig, "bucket")
    prefix: str = same_field(S3StoreConfig, "prefix")
    endpoint_url: str = same_field(S3StoreConfig, "endpoint_url")
    region: str = same_field(S3StoreConfig, "region")
    access_key: str = same_field(S3StoreConfig, "access_key")
    secret_key: SecretStr = same_field(S3StoreConfig, "secret_key")
    connect_timeout_s: float = same_field(S3StoreConfig, "connect_timeout_s")
    read_timeout_s: float = same_field(S3StoreConfig, "read_timeout_s")
    attempts: int = same_field(S3StoreConfig, "attempts")

    def config(self) -> FolderStoreConfig | S3StoreConfig:
        """Return the store's configuration; raises `SettingsError` when it does not fit."""
        data = {name: getattr(self, name) for name in type(self).model_fields}
        return store_of(BUCKET_BLOCK, self._block_document_name or "", data)
