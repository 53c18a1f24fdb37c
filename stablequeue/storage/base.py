"""What a store is: where finished pictures go, and how one is opened from its configuration.

A store keeps bytes under keys. A key is a relative path with forward slashes made by
`stablequeue.storage.naming`, the same on every system; bytes under a key never change. Every call
blocks (call it from a thread) and every failure is an error of `stablequeue.errors`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, BinaryIO, Literal, Protocol, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    TypeAdapter,
    field_validator,
    model_validator,
)

from stablequeue.servers import ALIAS_PATTERN
from stablequeue.settings import Settings

DEFAULT_STORE = "pictures"
"""Name of the store made of the settings."""

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """Bytes as they lie in a store.

    Attributes:
        store: Name of the store.
        key: The key they really have; differs from the one asked for when that was taken.
        sha256: Lower case hex of the whole content.
        size: Bytes.
        written: False when the store already had these bytes under this key.
    """

    store: str
    key: str
    sha256: str
    size: int
    written: bool


class Store(Protocol):
    """Where pictures go.

    Every method raises `StoreUnavailable` for a full disk, refused credentials or an outage, with
    advice, and `UnsafeName` for a key that is none of ours.
    """

    @property
    def name(self) -> str:
        """Name of the store, as the catalogue records it."""
        ...

    def put(self, source: Path, key: str, *, sha256: str, mime: str) -> StoredBlob:
        """Keep a copy of the file `source` under `key`; whole or not at all.

        Safe to repeat and to run in two processes at once: the same bytes under the same key are
        written once, other bytes get a numbered key (`name-2.png`) and overwrite nothing.

        Raises:
            NotFound: `source` does not exist.
            StoreError: `source` does not have the hash `sha256`.
        """
        ...

    def open(self, key: str) -> BinaryIO:
        """Return the bytes as a stream to read once and close.

        Raises:
            NotFound: Nothing lies there.
        """
        ...

    def exists(self, key: str, *, sha256: str = "") -> bool:
        """Say whether something lies there; with `sha256`, whether it is that."""
        ...

    def delete(self, key: str) -> None:
        """Remove what lies there; nothing there is fine."""
        ...

    def check(self) -> None:
        """Write, read back and remove a small file."""
        ...

    def locate(self, key: str) -> str:
        """Return where the bytes are, for people: a path or an s3:// URL, never a signed one."""
        ...


class _StoreConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(
        default=DEFAULT_STORE, pattern=ALIAS_PATTERN, description="Lower case, digits, hyphens."
    )


class FolderStoreConfig(_StoreConfig):
    """A folder on a disk or network share."""

    type: Literal["folder"] = "folder"
    folder: Path = Field(description="Folder for finished pictures.")
    must_exist: bool = Field(
        default=False,
        description="Never make the folder: for a disk or share that may not be mounted.",
    )
    keep_free_mib: int = Field(
        default=256, ge=0, description="Mebibytes of the disk that are left free."
    )


class S3StoreConfig(_StoreConfig):
    """A bucket of S3 or of anything that speaks it."""

    type: Literal["s3"] = "s3"
    bucket: str = Field(min_length=1)
    prefix: str = Field(default="", description="Put before every key, e.g. studio/pictures.")
    endpoint_url: str = Field(default="", description="For S3-compatible stores. Empty: AWS.")
    region: str = Field(default="", description="Empty: the SDK's own default.")
    access_key: str = Field(default="", description="Empty: the SDK's own credential chain.")
    secret_key: SecretStr = Field(default=SecretStr(""), description="Secret access key.")
    connect_timeout_s: float = Field(default=5.0, gt=0, le=300, description="Seconds.")
    read_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Seconds without a single byte."
    )
    attempts: int = Field(default=3, ge=1, le=10, description="Tries of one call, the first too.")

    @field_validator("endpoint_url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        if not url:
            return url
        if not url.startswith(("http://", "https://")):
            msg = "must begin with http:// or https://"
            raise ValueError(msg)
        if "@" in url or "?" in url or "#" in url:
            msg = "give the plain URL; credentials have their own fields"
            raise ValueError(msg)
        return url.rstrip("/")

    @field_validator("prefix")
    @classmethod
    def _clean_prefix(cls, prefix: str) -> str:
        parts = [part for part in prefix.split("/") if part]
        if any(part in {".", ".."} for part in parts):
            msg = "must not contain . or .. as a part"
            raise ValueError(msg)
        return "/".join(parts)

    @model_validator(mode="after")
    def _whole_credentials(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key.get_secret_value()):
            msg = "access_key and secret_key: give both, or neither"
            raise ValueError(msg)
        return self


StoreConfig = Annotated[FolderStoreConfig | S3StoreConfig, Field(discriminator="type")]
"""Any store's configuration; the block documents of stores have the same fields."""

STORE_CONFIG: TypeAdapter[FolderStoreConfig | S3StoreConfig] = TypeAdapter(StoreConfig)
"""Validates plain data into the right kind of configuration."""


def store_config(settings: Settings) -> FolderStoreConfig | S3StoreConfig:
    """Return the configuration of the store the settings describe.

    Raises:
        pydantic.ValidationError: The S3 settings do not fit together.
    """
    s3 = settings.s3
    if not s3.bucket:
        return FolderStoreConfig(folder=settings.pictures_folder)
    return S3StoreConfig(
        bucket=s3.bucket,
        prefix=s3.prefix,
        endpoint_url=s3.endpoint_url,
        region=s3.region,
        access_key=s3.access_key,
        secret_key=s3.secret_key,
    )


def open_store(config: FolderStoreConfig | S3StoreConfig | Settings) -> Store:
    """Return the store; nothing is touched before its first use."""
    if isinstance(config, Settings):
        config = store_config(config)
    if isinstance(config, S3StoreConfig):
        # boto3 takes a third of a second to import; only those with a bucket pay for it.
        from stablequeue.storage.s3 import S3Store  # noqa: PLC0415

        return S3Store(config)
    from stablequeue.storage.folder import FolderStore  # noqa: PLC0415 - it imports this module

    return FolderStore(config)
