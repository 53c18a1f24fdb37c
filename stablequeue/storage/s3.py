"""S3, and whatever speaks it, as a store.

One `PutObject` a file: it appears whole or not at all. `If-None-Match: *` keeps two processes from
overwriting each other; services that do not know it are used without. The whole file's SHA-256
travels as metadata of the object and is what tells equal bytes from other bytes; the bytes on the
wire are guarded by Content-MD5, which every service checks. No URL is ever signed, and no text of
ours carries a credential.
"""

import base64
import hashlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast
from uuid import uuid4

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from stablequeue.errors import NotFound, StoreError, StoreUnavailable
from stablequeue.storage.base import S3StoreConfig, StoredBlob
from stablequeue.storage.hashing import BLOCK
from stablequeue.storage.naming import check_key, numbered
from stablequeue.storage.s3_errors import ABSENT, NO_CONDITIONS, TAKEN, code_of, s3_faults

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

LARGEST_OBJECT = 5 * 1024**3
"""Bytes one PutObject may carry."""

_NAMES_TRIED = 1000
_SHA256 = "sha256"


class S3Store:
    """Pictures in one bucket; safe to use from several threads and processes.

    No connection is made before the first call, so it may be made before a process forks.
    """

    def __init__(self, config: S3StoreConfig) -> None:
        self._config = config
        self._conditions = True

    @property
    def name(self) -> str:
        """Name of the store."""
        return self._config.name

    def put(self, source: Path, key: str, *, sha256: str, mime: str) -> StoredBlob:
        """See `Store.put`."""
        check_key(self.name, key)
        size, md5 = self._measure(source, sha256)
        for candidate in numbered(key, _NAMES_TRIED):
            found = self._sha256_of(candidate)
            if found is None:
                sent = self._send(source, candidate, sha256=sha256, mime=mime, md5=md5)
                # Somebody else may have taken the name between our look and now; a service
                # without conditional writes even lets the last of two win.
                found = self._sha256_of(candidate)
                if sent and found == sha256:
                    return self._blob(candidate, sha256, size, written=True)
            if found == sha256:
                return self._blob(candidate, sha256, size, written=False)
        raise StoreError(
            self.name, f"{_NAMES_TRIED} objects are named like {key}; move some of them away"
        )

    def open(self, key: str) -> BinaryIO:
        """See `Store.open`; the stream comes straight from the service."""
        with self._faults():
            try:
                answer = self._client.get_object(Bucket=self._config.bucket, Key=self._full(key))
            except ClientError as error:
                if code_of(error) in ABSENT:
                    raise NotFound(f"store {self.name}: there is no {self.locate(key)}") from error
                raise
        return cast("BinaryIO", _Body(answer["Body"], self._faults))

    def exists(self, key: str, *, sha256: str = "") -> bool:
        """See `Store.exists`; `sha256` is compared with what was recorded when it was stored."""
        found = self._sha256_of(key)
        return found is not None and (not sha256 or found == sha256)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        with self._faults():
            self._client.delete_object(Bucket=self._config.bucket, Key=self._full(key))

    def check(self) -> None:
        """See `Store.check`."""
        content = uuid4().hex.encode("ascii")
        bucket, key = self._config.bucket, self._full(f"check-{uuid4().hex}.txt")
        with self._faults():
            self._client.put_object(
                Bucket=bucket, Key=key, Body=content, ContentMD5=_md5_text(content)
            )
            try:
                found = self._client.get_object(Bucket=bucket, Key=key)["Body"].read()
            finally:
                self._client.delete_object(Bucket=bucket, Key=key)
        if found != content:
            raise StoreUnavailable(self.name, f"bucket {self._config.bucket} gave other bytes back")

    def locate(self, key: str) -> str:
        """See `Store.locate`."""
        return f"s3://{self._config.bucket}/{self._full(key)}"

    @cached_property
    def _client(self) -> "S3Client":
        config = self._config
        options: dict[str, Any] = {}
        if config.access_key:
            options["aws_access_key_id"] = config.access_key
            options["aws_secret_access_key"] = config.secret_key.get_secret_value()
        # A session of its own: the module's default one must not be used by several threads.
        session = boto3.session.Session(region_name=config.region or None, **options)
        return session.client(
            "s3",
            endpoint_url=config.endpoint_url or None,
            config=Config(
                connect_timeout=config.connect_timeout_s,
                read_timeout=config.read_timeout_s,
                retries={"mode": "standard", "total_max_attempts": config.attempts},
                s3={"addressing_style": "path" if config.endpoint_url else "auto"},
                # The SDK's own CRC trailers are refused by many S3-compatible services.
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    def _full(self, key: str) -> str:
        check_key(self.name, key)
        return f"{self._config.prefix}/{key}" if self._config.prefix else key

    def _measure(self, source: Path, sha256: str) -> tuple[int, str]:
        """Return (size, Content-MD5) of the file, having compared its SHA-256."""
        digest, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        size = 0
        try:
            with source.open("rb", buffering=0) as stream:
                while block := stream.read(BLOCK):
                    digest.update(block)
                    md5.update(block)
                    size += len(block)
        except OSError as error:
            raise NotFound(
                f"{source.name} cannot be read before it is stored: {error.strerror}"
            ) from error
        if digest.hexdigest() != sha256:
            raise StoreError(
                self.name, f"{source.name} changed while it was being stored; try again"
            )
        if size > LARGEST_OBJECT:
            raise StoreError(
                self.name, f"{source.name} has {size} bytes; the largest possible is 5 GiB"
            )
        return size, base64.b64encode(md5.digest()).decode("ascii")

    def _sha256_of(self, key: str) -> str | None:
        """Return the recorded hash, an empty text if none was recorded, None if no object."""
        with self._faults():
            try:
                head = self._client.head_object(Bucket=self._config.bucket, Key=self._full(key))
            except ClientError as error:
                if code_of(error) in ABSENT:
                    return None
                raise
        return head.get("Metadata", {}).get(_SHA256, "")

    def _send(self, source: Path, key: str, *, sha256: str, mime: str, md5: str) -> bool:
        """Upload; False when the name was taken meanwhile."""
        options: dict[str, Any] = {
            "Bucket": self._config.bucket,
            "Key": self._full(key),
            "ContentType": mime,
            "ContentMD5": md5,
            "Metadata": {_SHA256: sha256},
        }
        with self._faults(), source.open("rb") as stream:
            if self._conditions:
                try:
                    self._client.put_object(Body=stream, IfNoneMatch="*", **options)
                except ClientError as error:
                    if code_of(error) in TAKEN:
                        return False
                    if code_of(error) not in NO_CONDITIONS:
                        raise
                    stream.seek(0)
                else:
                    return True
            self._client.put_object(Body=stream, **options)
            self._conditions = False  # only now is it sure that the condition was the trouble
        return True

    def _blob(self, key: str, sha256: str, size: int, *, written: bool) -> StoredBlob:
        return StoredBlob(store=self.name, key=key, sha256=sha256, size=size, written=written)

    def _faults(self) -> AbstractContextManager[None]:
        at = f" at {self._config.endpoint_url}" if self._config.endpoint_url else ""
        return s3_faults(self.name, f"bucket {self._config.bucket}{at}")


class _Body:
    """The stream of one object, with the SDK's read errors translated."""

    def __init__(self, body: Any, faults: Callable[[], AbstractContextManager[None]]) -> None:
        self._body, self._faults = body, faults

    def read(self, size: int = -1) -> bytes:
        """Return up to `size` bytes; all that is left for -1."""
        with self._faults():
            data: bytes = self._body.read(None if size < 0 else size)
        return data

    def close(self) -> None:
        """Give the connection back."""
        self._body.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _md5_text(content: bytes) -> str:
    digest = hashlib.md5(content, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")
