"""The tables of `models.db`. Rows never leave the library; `stablequeue.models.records` does.

`files` can always be made again from the disk. `care` and `tags` hold what people would miss; their
key is the SHA-256 of a file's bytes, so that they follow it wherever it is moved, and the path
(`path:/...`) only until the file is hashed.
"""

from typing import Any, ClassVar

from sqlalchemy import BigInteger, Column, Index, MetaData, Text
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from stablequeue.catalogue.columns import CleanText


def _text(*, key: bool = False) -> Any:
    return Column(Text, primary_key=key, nullable=False)


class Table(SQLModel, registry=registry(metadata=MetaData())):
    """Base of our tables, apart from any other user of SQLModel in the process."""


class FileRow(Table, table=True):
    """One model file of this host, there or missing."""

    __tablename__: ClassVar[Any] = "files"
    __table_args__ = (
        Index("ix_files_sha256", "sha256"),
        Index("ix_files_tensors", "tensors_sha256"),
        Index("ix_files_inode", "inode"),
    )

    id: int | None = Field(default=None, primary_key=True)
    path: str = Field(sa_column=Column(Text, unique=True, nullable=False))
    root: str = Field(sa_column=_text())
    name: str = Field(sa_column=_text())
    kind: str = Field(sa_column=_text())
    size: int = Field(sa_column=Column(BigInteger, nullable=False))
    mtime_ns: int = Field(sa_column=Column(BigInteger, nullable=False))
    # Both are up to 64 bits without sign, which SQLite has not: kept as text.
    inode: str = Field(sa_column=_text())
    device: str = Field(sa_column=_text())
    beside: str = Field(default="", sa_column=_text())
    missing: bool = False
    problem: str = Field(default="", sa_column=Column(CleanText, nullable=False))

    sha256: str = Field(default="", sa_column=_text())
    tensors_sha256: str = Field(default="", sa_column=_text())
    autov1: str = Field(default="", sa_column=_text())
    crc32: str = Field(default="", sa_column=_text())
    blake3: str = Field(default="", sa_column=_text())
    embedded: str = Field(default="", sa_column=_text())

    format: str = Field(default="", sa_column=_text())
    shown_kind: str = Field(default="", sa_column=_text())
    family: str = Field(default="", sa_column=_text())
    variant: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    prediction: str = Field(default="", sa_column=_text())
    latent_channels: int = 0
    alias: str = Field(default="", sa_column=Column(CleanText, nullable=False))

    title: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    base_model: str = Field(default="", sa_column=Column(CleanText, nullable=False))
    model_id: int = 0
    version_id: int = 0


class CareRow(Table, table=True):
    """Use of one model, and whether it must be kept."""

    __tablename__: ClassVar[Any] = "care"

    key: str = Field(sa_column=_text(key=True))
    uses: int = 0
    last_used_ms: int = Field(default=0, sa_column=Column(BigInteger, nullable=False))
    pinned: bool = False


class TagRow(Table, table=True):
    """One tag of one model; a collection is all models of a tag."""

    __tablename__: ClassVar[Any] = "tags"

    key: str = Field(sa_column=_text(key=True))
    tag: str = Field(sa_column=Column(CleanText, primary_key=True, nullable=False))
