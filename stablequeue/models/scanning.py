"""Comparing the record with the disk: one walk, one SELECT, and writes only for what changed.

A file is the same while its size, time and inode are. One that appears with the inode, size and
time of another is that file under a new name (moved, or a link): what is known of it is taken over.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from stablequeue.catalogue.engine import Database
from stablequeue.errors import Stopped
from stablequeue.models.folders import Root
from stablequeue.models.identities import Stop
from stablequeue.models.inspecting import header_columns, sidecar_columns
from stablequeue.models.records import ScanReport
from stablequeue.models.tables import FileRow
from stablequeue.models.walking import Found, Walk, walk

_FILES: Any = FileRow.__table__  # type: ignore[attr-defined]
_BATCH = 200
"""Files written at once: an interruption costs at most so many headers."""

_IDENTITY = ("size", "mtime_ns", "inode")
_TAKEN_OVER = (
    *("problem", "sha256", "tensors_sha256", "autov1", "crc32", "blake3", "embedded", "format"),
    *("shown_kind", "family", "variant", "prediction", "latent_channels", "alias"),
)


class _Known(NamedTuple):
    """Of a row what comparing needs; the columns are selected in this order."""

    id: int
    path: str
    kind: str
    name: str
    size: int
    mtime_ns: int
    inode: str
    device: str
    beside: str
    missing: bool
    problem: str

    @property
    def bytes_key(self) -> tuple[str, str, int, int]:
        return self.device, self.inode, self.size, self.mtime_ns


@dataclass(slots=True)
class _Difference:
    new: list[Found] = field(default_factory=list[Found])
    changed: list[Found] = field(default_factory=list[Found])
    retold: list[tuple[int, Found]] = field(default_factory=list[tuple[int, Found]])
    back: list[int] = field(default_factory=list[int])
    gone: list[_Known] = field(default_factory=list[_Known])


def scan_folders(database: Database, roots: Sequence[Root], stop: Stop | None) -> ScanReport:
    """Bring files, headers and sidecars in the record up to date with the disk.

    Raises:
        Stopped: As `stop` wished; what was written stays.
    """
    seen = walk(roots)
    known = database.read(_known)
    difference = _compare(known, seen)
    gone = {one.id for one in difference.gone}
    by_bytes: dict[tuple[str, str, int, int], _Known] = {}
    for one in known:
        # A missing row is preferred: then the file was moved; else it is one more link to it.
        if one.bytes_key not in by_bytes or one.missing or one.id in gone:
            by_bytes[one.bytes_key] = one
    moved: list[tuple[str, str]] = []
    added: list[str] = []
    taken: set[int] = set()
    for batch in _batches([*difference.new, *difference.changed], stop):
        sources = {found.path: _source(found, by_bytes) for found in batch}
        _write_files(database, batch, sources, gone | taken)
        for found in batch:
            source = sources[found.path]
            if source is not None and (source.missing or source.id in gone):
                moved.append((source.path, found.path))
                taken.add(source.id)
        added += [found.path for found in batch if sources[found.path] is None]
    _write_rest(database, difference, taken)
    renamed = {new for _, new in moved}
    changed = [found.path for found in difference.changed if found.path not in renamed]
    problems = [
        (one.path, one.problem) for one in database.read(_known) if one.problem and not one.missing
    ]
    return ScanReport(
        files=len(seen.files),
        added=tuple(path for path in added if path not in set(changed)),
        changed=(*changed, *(found.path for _, found in difference.retold)),
        moved=tuple(moved),
        missing=tuple(one.path for one in difference.gone if one.id not in taken),
        problems=tuple(problems),
    )


def _known(session: Session) -> list[_Known]:
    columns = [_FILES.c[name] for name in _Known._fields]
    return [_Known(*row) for row in session.connection().execute(select(*columns))]


def _compare(known: list[_Known], seen: Walk) -> _Difference:
    rows = {one.path: one for one in known}
    found_paths: set[str] = set()
    difference = _Difference()
    for found in seen.files:
        found_paths.add(found.path)
        row = rows.get(found.path)
        if row is None:
            difference.new.append(found)
        elif (row.size, row.mtime_ns, row.inode) != (found.size, found.mtime_ns, found.inode):
            difference.changed.append(found)
        else:
            if row.missing:
                difference.back.append(row.id)
            if (row.beside, row.kind, row.name) != (found.beside, found.kind, found.name):
                difference.retold.append((row.id, found))
    hidden = tuple(f"{folder}/" for folder in seen.unreadable)
    difference.gone = [
        one
        for one in known
        if not one.missing and one.path not in found_paths and not one.path.startswith(hidden)
    ]
    return difference


def _source(found: Found, by_bytes: dict[tuple[str, str, int, int], _Known]) -> _Known | None:
    source = by_bytes.get((found.device, found.inode, found.size, found.mtime_ns))
    return source if source is not None and source.path != found.path else None


def _batches(files: list[Found], stop: Stop | None) -> Iterator[list[Found]]:
    for start in range(0, len(files), _BATCH):
        if stop is not None and stop():
            raise Stopped("scanning was stopped; what is done so far stays")
        yield files[start : start + _BATCH]


def _write_files(
    database: Database, batch: list[Found], sources: dict[str, _Known | None], gone: set[int]
) -> None:
    read = [
        {**_columns(found), **sidecar_columns(Path(found.path), found.beside)}
        | ({} if sources[found.path] else header_columns(Path(found.path)))
        for found in batch
    ]

    def write(session: Session) -> None:
        for values in map(dict, read):
            source = sources[values["path"]]
            if source is not None:
                values.update(_known_bytes(session, source))
                if source.missing or source.id in gone:
                    session.connection().execute(delete(_FILES).where(_FILES.c.id == source.id))
            new = insert(_FILES).values({**_UNHASHED, **values})
            # Another process may have written, and hashed, the same file meanwhile.
            differs = _FILES.c.size != new.excluded.size
            for name in _IDENTITY[1:]:
                differs |= _FILES.c[name] != new.excluded[name]
            session.connection().execute(
                new.on_conflict_do_update(
                    index_elements=["path"],
                    set_={name: new.excluded[name] for name in {**_UNHASHED, **values}},
                    where=differs,
                )
            )

    database.write(write)


_UNHASHED: dict[str, Any] = {
    **dict.fromkeys(_TAKEN_OVER, ""),
    "latent_channels": 0,
    "missing": False,
}


def _known_bytes(session: Session, source: _Known) -> dict[str, Any]:
    query = select(*(_FILES.c[name] for name in _TAKEN_OVER)).where(_FILES.c.id == source.id)
    row = session.connection().execute(query).mappings().one_or_none()
    return dict(row) if row is not None else header_columns(Path(source.path))


def _columns(found: Found) -> dict[str, Any]:
    return {
        "path": found.path,
        "root": found.root,
        "name": found.name,
        "kind": found.kind.value,
        "size": found.size,
        "mtime_ns": found.mtime_ns,
        "inode": found.inode,
        "device": found.device,
        "beside": found.beside,
        "missing": False,
    }


def _write_rest(database: Database, difference: _Difference, taken: set[int]) -> None:
    """Write what costs no reading of model files; nothing at all when nothing changed."""
    gone = [one.id for one in difference.gone if one.id not in taken]
    retold = [
        (number, {**_columns(found), **sidecar_columns(Path(found.path), found.beside)})
        for number, found in difference.retold
    ]
    if not (gone or retold or difference.back):
        return

    def write(session: Session) -> None:
        for numbers, missing in ((gone, True), (difference.back, False)):
            for start in range(0, len(numbers), _BATCH):
                part = numbers[start : start + _BATCH]
                session.connection().execute(
                    update(_FILES).where(_FILES.c.id.in_(part)).values(missing=missing)
                )
        for number, values in retold:
            session.connection().execute(
                update(_FILES).where(_FILES.c.id == number).values(**values)
            )

    database.write(write)
