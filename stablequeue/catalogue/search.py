"""Searching a million assets: newest first, page by page.

Both databases keep one inverted index of words and facets (`stablequeue.catalogue.words`). FTS5
yields row ids in descending order without sorting, also of a conjunction, and can begin anywhere,
so the newest matches come at once however many there are. A range of dates becomes a range of ids
(`AssetHourRow`), because ids are what the index is ordered by.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Executable,
    and_,
    bindparam,
    case,
    cast,
    false,
    func,
    true,
)
from sqlalchemy import select as sa_select
from sqlalchemy import text as sql_text
from sqlalchemy.dialects.postgresql import TSQUERY
from sqlmodel import Session, col

from stablequeue.catalogue.columns import UtcDateTime
from stablequeue.catalogue.facets import find_facet, model_spellings
from stablequeue.catalogue.part import Part
from stablequeue.catalogue.recording import ASSETS, BLOBS, COLUMNS, asset_record, hour_of
from stablequeue.catalogue.records import Asset
from stablequeue.catalogue.tables import AssetHourRow
from stablequeue.catalogue.texts import folded_tag
from stablequeue.catalogue.words import Query, facet_token, parse_query
from stablequeue.engines.base import Kind
from stablequeue.errors import BadRequest

MOST_FOUND = 1000
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True)
class Filters:
    """What is asked besides the text; empty or None: everything.

    Attributes:
        model: Name (with or without folder and suffix) or hash of a model used.
        since: First moment.
        until: First moment no longer asked for.
        before: Only ids smaller than this: the last one of the page before.
    """

    model: str = ""
    server: str = ""
    kind: Kind | None = None
    since: datetime | None = None
    until: datetime | None = None
    tag: str = ""
    before: int | None = None

    def __post_init__(self) -> None:
        for name, moment in (("since", self.since), ("until", self.until)):
            if moment is None:
                continue
            if moment.tzinfo is None:
                raise BadRequest(name, "a time zone is missing", ["2026-11-21T10:00:00+01:00"])
            try:
                moment.astimezone(UTC)
            except OverflowError:
                raise BadRequest(name, "too far away") from None


class SearchPart(Part):
    """Full-text search."""

    def search(
        self,
        text: str = "",
        *,
        model: str = "",
        server: str = "",
        kind: Kind | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        tag: str = "",
        limit: int = 50,
        before: int | None = None,
    ) -> list[Asset]:
        """Return assets that are not in the trash, newest first.

        Args:
            text: Words that all occur in the prompt, the models' names or the tags; `cat*` for
                words that begin so, `"black cat"` for words in this order. Any text is allowed.
            model: Name (with or without folder and suffix) or hash of a model used.
            server: Alias of the server that made it.
            kind: Image, video, text or audio.
            since: First moment; with a time zone.
            until: First moment no longer asked for; with a time zone.
            tag: In any case.
            limit: At most 1000.
            before: Only ids smaller than this: the `id` of the last one on the page before.

        Raises:
            BadRequest: A date without a time zone.
        """
        filters = Filters(model, server, kind, since, until, tag, before)
        limit = max(0, min(limit, MOST_FOUND))

        def work(session: Session) -> list[Asset]:
            statement = search_statement(session, text, filters, limit)
            if statement is None:
                return []
            return [asset_record(row) for row in session.connection().execute(statement).mappings()]

        return self._db.read(work)


def search_statement(
    session: Session, text: str, filters: Filters, limit: int
) -> Executable | None:
    """Return the query for a search, None when nothing can match."""
    query = _query(session, text, filters)
    ids = None if query is None else _id_range(session, filters)
    if query is None or ids is None:
        return None
    if not (query.phrases or query.facets):
        return _statement(true(), ids, filters, limit)
    if session.get_bind().dialect.name == "postgresql":
        matches = ASSETS.c.search.op("@@")(cast(query.tsquery(), TSQUERY))
        return _statement(matches, ids, filters, limit)
    return _fts5_statement(query, ids, filters, limit)


def _statement(
    matches: ColumnElement[bool], ids: tuple[int, int], filters: Filters, limit: int
) -> Executable:
    statement = (
        sa_select(*COLUMNS)
        .join_from(ASSETS, BLOBS, BLOBS.c.id == ASSETS.c.blob_id)
        .where(matches, ASSETS.c.id.between(*ids), ASSETS.c.trashed_at.is_(None))
        .order_by(ASSETS.c.id.desc())
        .limit(limit)
    )
    dates: list[ColumnElement[bool]] = []
    if filters.since is not None:
        dates.append(ASSETS.c.created_at >= filters.since)
    if filters.until is not None:
        dates.append(ASSETS.c.created_at < filters.until)
    if dates:
        # As a CASE, because the range of ids says the same: taking the two for independent,
        # PostgreSQL expects next to nothing and sorts everything instead of walking the ids.
        statement = statement.where(case((and_(*dates), true()), else_=false()))
    return statement


def _fts5_statement(query: Query, ids: tuple[int, int], filters: Filters, limit: int) -> Executable:
    # Written out because the order of the joins is fixed (CROSS JOIN): the index leads, and its
    # order is the result's. It holds no asset that is in the trash.
    binds: list[BindParameter[Any]] = [
        bindparam("match", query.fts5()),
        bindparam("low", ids[0]),
        bindparam("high", ids[1]),
        bindparam("count", limit),
    ]
    dates = ""
    for name, sign, moment in (("since", ">=", filters.since), ("until", "<", filters.until)):
        if moment is not None:
            dates += f" AND assets.created_at {sign} :{name}"
            binds.append(bindparam(name, moment, UtcDateTime))
    columns = ", ".join(f"{column.table.name}.{column.name}" for column in COLUMNS)
    sql = (
        f"SELECT {columns} FROM asset_search"  # noqa: S608  # names of ours only; values are bound
        " CROSS JOIN assets ON assets.id = asset_search.rowid"
        " CROSS JOIN blobs ON blobs.id = assets.blob_id"
        " WHERE asset_search MATCH :match AND asset_search.rowid BETWEEN :low AND :high"
        f"{dates} ORDER BY asset_search.rowid DESC LIMIT :count"
    )
    return sql_text(sql).bindparams(*binds).columns(*COLUMNS)


def _query(session: Session, text: str, filters: Filters) -> Query | None:
    asked = [
        ("model", model_spellings(filters.model) if filters.model else []),
        ("server", [filters.server] if filters.server else []),
        ("kind", [str(filters.kind)] if filters.kind else []),
        ("tag", [folded_tag(filters.tag)] if filters.tag else []),
    ]
    tokens: list[str] = []
    for kind, spellings in asked:
        rows = (find_facet(session, kind, spelling) for spelling in spellings)
        row = next((row for row in rows if row is not None), None)
        if row is not None:
            tokens.append(facet_token(row.id or 0))
        elif spellings:
            return None
    return parse_query(text, tokens)


def _id_range(session: Session, filters: Filters) -> tuple[int, int] | None:
    """Return the least and greatest id that can be asked for, None when there is none."""
    low, high = 1, LARGEST_ID
    if filters.before is not None:
        high = min(high, filters.before - 1)
    if filters.since is not None:
        first = func.min(AssetHourRow.first_id)
        query = sa_select(first).where(col(AssetHourRow.hour) >= hour_of(filters.since))
        low = session.connection().execute(query).scalar() or LARGEST_ID
    if filters.until is not None:
        last = func.max(AssetHourRow.last_id)
        query = sa_select(last).where(col(AssetHourRow.hour) <= hour_of(filters.until))
        high = min(high, session.connection().execute(query).scalar() or 0)
    return (low, high) if low <= high else None
