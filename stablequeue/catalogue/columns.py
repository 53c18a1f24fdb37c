"""Column types that read back what was written, on SQLite and PostgreSQL alike."""

import json
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import BigInteger, DateTime, Dialect, Integer, String, Text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.types import TypeDecorator, TypeEngine

from stablequeue.catalogue.texts import clean
from stablequeue.catalogue.words import SearchDocument

RowId = BigInteger().with_variant(Integer(), "sqlite")
"""64 bits; on SQLite only a column typed INTEGER is the row id itself."""


def Digits(length: int) -> String:  # noqa: N802  # reads as a type where it is used
    """Return a text type ordered byte by byte, so that a prefix is a range."""
    return String(length).with_variant(String(length, collation="C"), "postgresql")


class CleanText(TypeDecorator[str]):
    """Text from servers and users, made storable by `clean`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Clean a value on its way in."""
        del dialect
        return None if value is None else clean(value)


class Json(TypeDecorator[Any]):
    """JSON data as ASCII text, because PostgreSQL's own types refuse some of it (NUL, NaN)."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """Write JSON."""
        del dialect
        return json.dumps(value, separators=(",", ":"))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read JSON."""
        del dialect
        return None if value is None else json.loads(value)


class UtcDateTime(TypeDecorator[datetime]):
    """Aware datetimes; SQLite keeps the UTC time as text that sorts."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times: they mean something else on every machine."""
        if value is None:
            return None
        if value.tzinfo is None:
            message = "a datetime without a time zone cannot be stored"
            raise ValueError(message)
        value = value.astimezone(UTC)
        return value.replace(tzinfo=None) if dialect.name == "sqlite" else value

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Give the time its zone back."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if dialect.name == "sqlite" else value.astimezone(UTC)


class SearchVector(TypeDecorator[SearchDocument]):
    """Words and facets of an asset: text for FTS5 to index, a tsvector on PostgreSQL.

    It goes in and is never read back.
    """

    impl = Text
    cache_ok = True

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Choose the type of the database at hand."""
        return dialect.type_descriptor(TSVECTOR() if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: SearchDocument | None, dialect: Dialect) -> str | None:
        """Write the form the database indexes."""
        if value is None:
            return None
        return value.tsvector() if dialect.name == "postgresql" else value.fts5()
