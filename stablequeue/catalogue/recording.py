"""Rows of assets: writing them together with what finds them, and reading them."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from sqlalchemy import ColumnElement, RowMapping
from sqlalchemy import select as sa_select
from sqlmodel import Session, col, select

from stablequeue.catalogue.facets import (
    Facet,
    asset_facets,
    asset_prompt,
    asset_words,
    tokens_of,
)
from stablequeue.catalogue.part import now
from stablequeue.catalogue.records import Asset, Blob, NewAsset, StoredRequest
from stablequeue.catalogue.tables import AssetHourRow, AssetRow, AttemptRow, BlobRow
from stablequeue.catalogue.words import SearchDocument
from stablequeue.engines.base import Kind
from stablequeue.errors import CatalogueBusy

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

ASSETS = AssetRow.metadata.tables["assets"]
BLOBS = AssetRow.metadata.tables["blobs"]
COLUMNS = [
    *(column for column in ASSETS.c if column.name != "search"),
    *(BLOBS.c[name] for name in ("sha256", "size", "store", "key")),
]
"""What `asset_record` needs; never the search column, which is large and of no use here."""


@dataclass(frozen=True)
class Prepared:
    """An asset with all that is computed from it, before the transaction begins."""

    new: NewAsset
    prompt: str
    tags: tuple[str, ...]
    words: list[str]
    facets: list[Facet]

    @classmethod
    def of(cls, new: NewAsset, request: StoredRequest) -> Self:
        """Cut the texts into words, which takes a while when they are long."""
        prompt = asset_prompt(new, request.data)
        return cls(
            new=new,
            prompt=prompt,
            tags=request.tags,
            words=asset_words(new, prompt, request.tags),
            facets=asset_facets(new, request.tags),
        )


def insert_assets(session: Session, attempt: AttemptRow, prepared: Sequence[Prepared]) -> None:
    """Add the assets of an attempt.

    Facets first, then blobs, then the hour, each in order, so that two writers never wait for each
    other.
    """
    facets = {facet for one in prepared for facet in one.facets}
    tokens = dict(zip(sorted(facets), tokens_of(session, sorted(facets)), strict=True))
    blobs = {
        position: _take_blob(session, one.new)
        for position, one in sorted(enumerate(prepared), key=lambda item: item[1].new.sha256)
    }
    for position, one in enumerate(prepared):
        new = one.new
        row = AssetRow(
            job_id=attempt.job_id,
            idx=attempt.idx,
            ordinal=new.ordinal,
            attempt_id=attempt.id or 0,
            blob_id=blobs[position],
            kind=str(new.kind),
            mime=new.mime,
            width=new.width,
            height=new.height,
            name=new.name,
            prompt=one.prompt,
            infotext=new.infotext,
            params=dict(new.params),
            models=dict(new.models),
            tags=list(one.tags),
            seed=new.seed,
            engine=new.engine,
            engine_version=new.engine_version,
            gpu=new.gpu,
            server=new.server,
            original_sha256=new.original_sha256,
            warnings=list(new.warnings),
            created_at=now(),
            search=SearchDocument(one.words, [tokens[facet] for facet in one.facets]),
        )
        session.add(row)
        session.flush()
        _note_hour(session, row)


def read_assets(
    session: Session,
    condition: ColumnElement[bool],
    *,
    order: Sequence[ColumnElement[Any]] = (ASSETS.c.idx, ASSETS.c.ordinal, ASSETS.c.id),
    limit: int | None = None,
) -> list[Asset]:
    """Return the assets that meet a condition on `assets` and `blobs`."""
    query = (
        sa_select(*COLUMNS)
        .join_from(ASSETS, BLOBS, BLOBS.c.id == ASSETS.c.blob_id)
        .where(condition)
        .order_by(*order)
        .limit(limit)
    )
    return [asset_record(row) for row in session.connection().execute(query).mappings()]


def hour_of(moment: datetime) -> int:
    """Return in which hour since 1970 (UTC) a moment is."""
    return (moment - EPOCH) // timedelta(hours=1)


def asset_record(row: RowMapping) -> Asset:
    """Return the record of a row with `COLUMNS`."""
    values = dict(row)
    del values["blob_id"]
    index, kind = values.pop("idx"), Kind(values.pop("kind"))
    tags, warnings = tuple(values.pop("tags")), tuple(values.pop("warnings"))
    return Asset(index=index, kind=kind, tags=tags, warnings=warnings, **values)


def blob_record(row: BlobRow) -> Blob:
    """Return the record of a row that is in the database."""
    return Blob(
        id=row.id or 0,
        store=row.store,
        sha256=row.sha256,
        key=row.key,
        size=row.size,
        mime=row.mime,
        refs=row.refs,
    )


def _take_blob(session: Session, new: NewAsset) -> int:
    """Count one more asset of a file and return the blob's id.

    A blob nobody refers to is about to be deleted with its file. It may live again under another
    key, whose file the deleter does not touch; never under the same.
    """
    query = select(BlobRow).where(
        col(BlobRow.sha256) == new.sha256, col(BlobRow.store) == new.store
    )
    row = session.exec(query.with_for_update()).one_or_none()
    relied_upon = bool(new.blob_id)
    doomed = row is not None and row.refs == 0
    if (relied_upon and (row is None or doomed)) or (doomed and row and row.key == new.key):
        message = f"{new.key[:200]!r} in store {new.store} is being deleted; store it again"
        raise CatalogueBusy(message)
    if row is None:
        row = BlobRow(
            sha256=new.sha256,
            store=new.store,
            key=new.key,
            size=new.size,
            mime=new.mime,
            refs=0,
            created_at=now(),
        )
        session.add(row)
    elif doomed:
        row.key, row.size, row.mime = new.key, new.size, new.mime
    row.refs += 1
    session.flush()
    return row.id or 0


def _note_hour(session: Session, row: AssetRow) -> None:
    hour, asset_id = hour_of(row.created_at), row.id or 0
    seen = session.get(AssetHourRow, hour, with_for_update=True)
    if seen is None:
        session.add(AssetHourRow(hour=hour, first_id=asset_id, last_id=asset_id))
    else:
        seen.first_id = min(seen.first_id, asset_id)
        seen.last_id = max(seen.last_id, asset_id)
    session.flush()
