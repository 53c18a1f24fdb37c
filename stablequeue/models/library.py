"""The record of this host's model files: scanned quickly, hashed once, never lost by a move.

It is an SQLite file, a cache over the disk that may be deleted and is made again; usage, pins and
tags in it are kept by the hash of a model's bytes. Any number of processes may use it at once.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from stablequeue.catalogue.engine import Database
from stablequeue.errors import NotFound
from stablequeue.models.database import open_database
from stablequeue.models.families import Family
from stablequeue.models.folders import Root
from stablequeue.models.hashing import Stop, Tell, hash_only, hash_pending
from stablequeue.models.kinds import ModelType
from stablequeue.models.records import ModelFile, ScanReport
from stablequeue.models.scanning import scan_folders
from stablequeue.models.tables import CareRow, FileRow, TagRow

FILE_NAME = "models.db"

_FILES: Any = FileRow.__table__  # type: ignore[attr-defined]
_CARE: Any = CareRow.__table__  # type: ignore[attr-defined]
_TAGS: Any = TagRow.__table__  # type: ignore[attr-defined]


class Library:
    """The models of this host.

    Every method may raise `CatalogueBusy` (retryable) and `CatalogueError`.

    Args:
        home: The folder that has, or gets, `models.db`.
    """

    def __init__(self, home: Path) -> None:
        self._db: Database = open_database(home / FILE_NAME)

    def close(self) -> None:
        """Close this process's connections; a later call opens new ones."""
        self._db.close()

    def scan(
        self,
        roots: Sequence[Root],
        *,
        hashing: bool = True,
        workers: int = 0,
        progress: Tell | None = None,
        stop: Stop | None = None,
    ) -> ScanReport:
        """Bring the record up to date with the disk.

        Args:
            roots: All folders of models; what lies in others counts as missing.
            hashing: Also hash what is not hashed yet; other processes that scan wait for it.
            workers: Files hashed at once; 0: half as many as there are cores, at most 4.
            progress: Told how far hashing is, from any thread, one at a time.
            stop: Asked often whether to stop; what is done so far stays.

        Raises:
            Stopped: As `stop` wished.
        """
        report = scan_folders(self._db, roots, stop)
        if not hashing:
            return report
        return hash_pending(self._db, report, workers=workers, progress=progress, stop=stop)

    def hash_files(self, paths: Iterable[Path]) -> None:
        """Hash these files of the record now, if they are not hashed yet; no others."""
        hash_only(self._db, {str(path) for path in paths})

    def files(self, *, kind: ModelType | None = None, missing: bool = False) -> list[ModelFile]:
        """Return the files of a type (None: all), sorted by root and name.

        Args:
            kind: In whose folders they lie.
            missing: Those that are gone, instead of those that are there.
        """

        def read(session: Session) -> list[ModelFile]:
            query = select(_FILES).where(_FILES.c.missing == missing)
            if kind is not None:
                query = query.where(_FILES.c.kind == kind.value)
            rows = (
                session.connection()
                .execute(query.order_by(_FILES.c.root, _FILES.c.name))
                .mappings()
                .all()
            )
            care = {
                row["key"]: row for row in session.connection().execute(select(_CARE)).mappings()
            }
            tags: dict[str, list[str]] = defaultdict(list)
            for key, tag in session.connection().execute(select(_TAGS.c.key, _TAGS.c.tag)):
                tags[key].append(tag)
            return [_file(row, care, tags) for row in rows]

        return self._db.read(read)

    def file(self, path: Path) -> ModelFile:
        """Return the record of one file.

        Raises:
            NotFound: It is not in the record.
        """
        wanted = str(path)
        for one in self.files():
            if str(one.path) == wanted:
                return one
        raise NotFound(f"{path} is no model of the library; run: stablequeue models scan")

    def duplicates(self) -> list[list[ModelFile]]:
        """Return groups of files with the same bytes, the largest waste first.

        Links to one file are not duplicates; they take no room.
        """
        groups: dict[str, list[ModelFile]] = defaultdict(list)
        inodes: set[tuple[str, str]] = set()

        def read(session: Session) -> dict[str, tuple[str, str]]:
            query = select(_FILES.c.path, _FILES.c.device, _FILES.c.inode)
            return {
                path: (device, inode) for path, device, inode in session.connection().execute(query)
            }

        where = self._db.read(read)
        for one in self.files():
            inode = where.get(str(one.path))
            if one.sha256 and inode not in inodes:
                groups[one.sha256].append(one)
                if inode is not None:
                    inodes.add(inode)
        found = [group for group in groups.values() if len(group) > 1]
        return sorted(found, key=lambda group: group[0].size * (len(group) - 1), reverse=True)

    def record_use(self, files: Iterable[ModelFile], *, at_ms: int = 0) -> None:
        """Count one use of each model, now or at a time (milliseconds since 1970)."""
        at = at_ms or time.time_ns() // 1_000_000
        keys = sorted({key_of(one) for one in files})

        def write(session: Session) -> None:
            for key in keys:
                new = insert(_CARE).values(key=key, uses=1, last_used_ms=at, pinned=False)
                session.connection().execute(
                    new.on_conflict_do_update(
                        index_elements=["key"],
                        set_={
                            "uses": _CARE.c.uses + 1,
                            "last_used_ms": func.max(_CARE.c.last_used_ms, at),
                        },
                    )
                )

        if keys:
            self._db.write(write)

    def pin(self, file: ModelFile, *, pinned: bool = True) -> None:
        """Keep a model whatever eviction wants, or no longer."""

        def write(session: Session) -> None:
            new = insert(_CARE).values(key=key_of(file), uses=0, last_used_ms=0, pinned=pinned)
            session.connection().execute(
                new.on_conflict_do_update(index_elements=["key"], set_={"pinned": pinned})
            )

        self._db.write(write)

    def tag(self, file: ModelFile, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Put a model into collections and take it out of others."""
        key = key_of(file)
        added = sorted({tag.strip() for tag in add if tag.strip()})
        removed = sorted({tag.strip() for tag in remove})

        def write(session: Session) -> None:
            session.connection().execute(
                delete(_TAGS).where(_TAGS.c.key == key).where(_TAGS.c.tag.in_(removed))
            )
            for tag in added:
                session.connection().execute(
                    insert(_TAGS).values(key=key, tag=tag).on_conflict_do_nothing()
                )

        self._db.write(write)

    def note_renamed(self, old: Path, new: Path, name: str) -> None:
        """Note that a file has a new path, its bytes unchanged."""

        def write(session: Session) -> None:
            session.connection().execute(delete(_FILES).where(_FILES.c.path == str(new)))
            session.connection().execute(
                update(_FILES).where(_FILES.c.path == str(old)).values(path=str(new), name=name)
            )
            for table in (_CARE, _TAGS):
                session.connection().execute(
                    update(table).where(table.c.key == f"path:{old}").values(key=f"path:{new}")
                )

        self._db.write(write)

    def forget(self, paths: Iterable[Path]) -> None:
        """Remove files from the record; usage, pins and tags of their bytes stay."""
        wanted = [str(path) for path in paths]

        def write(session: Session) -> None:
            for path in wanted:
                session.connection().execute(delete(_FILES).where(_FILES.c.path == path))

        self._db.write(write)


def key_of(file: ModelFile) -> str:
    """Return what usage, pins and tags of a model are kept under."""
    return file.sha256 or f"path:{file.path}"


def _file(
    row: Mapping[Any, Any], care: Mapping[str, Any], tags: Mapping[str, list[str]]
) -> ModelFile:
    key = row["sha256"] or f"path:{row['path']}"
    cared = care.get(key)
    same = (
        *("name", "size", "mtime_ns", "sha256", "tensors_sha256", "autov1", "crc32", "blake3"),
        *("embedded", "format", "variant", "prediction", "latent_channels", "alias", "title"),
        *("base_model", "model_id", "version_id", "problem"),
    )
    return ModelFile(
        path=Path(row["path"]),
        root=Path(row["root"]),
        kind=ModelType(row["kind"]),
        shown_kind=ModelType(row["shown_kind"]) if row["shown_kind"] else None,
        family=Family(row["family"]) if row["family"] else None,
        uses=cared["uses"] if cared else 0,
        last_used_ms=cared["last_used_ms"] if cared else 0,
        pinned=bool(cared["pinned"]) if cared else False,
        tags=tuple(sorted(tags.get(key, ()))),
        **{name: row[name] for name in same},
    )
