"""Hashing what is not hashed yet: several files at once, each result written as it comes.

One process of a host hashes at a time; another that scans meanwhile waits, and finds it done. An
interruption loses the files in hand and nothing else.
"""

import os
import threading
from collections.abc import Callable, Collection
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.sqlite import insert
from sqlmodel import Session

from stablequeue.catalogue.engine import Database
from stablequeue.errors import FileInUse, NotFound, Stopped, UnreadableFile
from stablequeue.models.identities import Identities, Stop, identify
from stablequeue.models.records import ScanProgress, ScanReport
from stablequeue.models.tables import CareRow, FileRow, TagRow

__all__ = ["Stop", "Tell", "hash_only", "hash_pending"]

_FILES: Any = FileRow.__table__  # type: ignore[attr-defined]
_CARE: Any = CareRow.__table__  # type: ignore[attr-defined]
_TAGS: Any = TagRow.__table__  # type: ignore[attr-defined]
_LOOK_EVERY_S = 0.25
_MOST_WORKERS = 4

Tell = Callable[[ScanProgress], None]


class _Pending(NamedTuple):
    path: str
    size: int
    mtime_ns: int


class _Progress:
    """Adds up what the threads tell."""

    def __init__(self, pending: list[_Pending], tell: Tell | None) -> None:
        self._tell = tell
        self._lock = threading.Lock()
        self._files, self._bytes = len(pending), sum(one.size for one in pending)
        self._done_files = 0
        self._done: dict[str, int] = {}

    def bytes_of(self, path: str) -> Callable[[int], None]:
        """Return what to call with the bytes done of one file."""

        def told(done: int) -> None:
            with self._lock:
                self._done[path] = done
                self._say(path)

        return told

    def finished(self, one: _Pending) -> None:
        """Note that a file is done, or given up."""
        with self._lock:
            self._done_files += 1
            self._done[one.path] = one.size
            self._say(one.path)

    def _say(self, path: str) -> None:
        if self._tell is not None:
            self._tell(
                ScanProgress(
                    files_done=self._done_files,
                    files=self._files,
                    bytes_done=sum(self._done.values()),
                    bytes=self._bytes,
                    name=os.path.basename(path),  # noqa: PTH119
                )
            )


def hash_pending(
    database: Database,
    report: ScanReport,
    *,
    workers: int = 0,
    progress: Tell | None = None,
    stop: Stop | None = None,
) -> ScanReport:
    """Hash every usable file that has no hash, small ones first; return the report completed.

    Raises:
        Stopped: As `stop` wished; what is hashed so far stays.
    """
    if not database.read(_pending):
        return report
    with _turn(database, stop):
        pending = database.read(_pending)
        run = _Run(database, _Progress(pending, progress), stop)
        run.hash(pending, workers or _workers())
    return replace(
        report,
        hashed=run.hashed,
        moved=(*report.moved, *run.moved),
        added=tuple(path for path in report.added if path not in {new for _, new in run.moved}),
        problems=(*report.problems, *run.problems),
    )


def hash_only(database: Database, paths: Collection[str]) -> None:
    """Hash those of these files that have no hash, without waiting for others' turn."""
    pending = [one for one in database.read(_pending) if one.path in paths]
    if pending:
        _Run(database, _Progress(pending, None), None).hash(pending, _workers())


class _turn:  # noqa: N801  # reads as what it does
    """Only one process of this host hashes: two would read every file twice."""

    def __init__(self, database: Database, stop: Stop | None) -> None:
        self._lock = FileLock(f"{database.path}.hashing")
        self._stop = stop

    def __enter__(self) -> None:
        while True:
            try:
                self._lock.acquire(timeout=_LOOK_EVERY_S)
            except Timeout:
                if self._stop is not None and self._stop():
                    raise Stopped("scanning was stopped while another process hashes") from None
            else:
                return

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()


class _Run:
    """One run over the files that are not hashed yet."""

    def __init__(self, database: Database, progress: _Progress, stop: Stop | None) -> None:
        self._database = database
        self._progress = progress
        self._stop = stop
        self._ended = threading.Event()
        self.hashed = 0
        self.moved: list[tuple[str, str]] = []
        self.problems: list[tuple[str, str]] = []

    def hash(self, pending: list[_Pending], workers: int) -> None:
        with ThreadPoolExecutor(workers, thread_name_prefix="hash-file") as pool:
            waiting = iter(pending)
            running: dict[Future[Identities], _Pending] = {}
            try:
                while True:
                    while len(running) < workers and (one := next(waiting, None)) is not None:
                        running[pool.submit(self._identify, one)] = one
                    if not running:
                        return
                    done, _ = wait(running, return_when=FIRST_COMPLETED)
                    for future in done:
                        self._take(running.pop(future), future)
            finally:
                self._ended.set()

    def _identify(self, one: _Pending) -> Identities:
        path = Path(one.path)
        found = identify(path, progress=self._progress.bytes_of(one.path), stop=self._stopping)
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) != (one.size, one.mtime_ns):
            raise FileInUse(f"{path.name} changed since it was found; it is left for the next scan")
        return found

    def _stopping(self) -> bool:
        return self._ended.is_set() or (self._stop is not None and self._stop())

    def _take(self, one: _Pending, future: Future[Identities]) -> None:
        try:
            found = future.result()
        except (FileInUse, NotFound, UnreadableFile, OSError) as error:
            self.problems.append((one.path, str(error)))
        else:
            self.moved += self._database.write(lambda session: _store(session, one, found))
            self.hashed += 1
        self._progress.finished(one)


def _workers() -> int:
    # A file keeps about two cores busy by itself.
    return min(_MOST_WORKERS, max(1, (os.cpu_count() or 1) // 2))


def _pending(session: Session) -> list[_Pending]:
    query = (
        select(_FILES.c.path, _FILES.c.size, _FILES.c.mtime_ns)
        .where(_FILES.c.sha256 == "")
        .where(_FILES.c.missing == False)  # noqa: E712
        .where(_FILES.c.problem == "")
        .order_by(_FILES.c.size)
    )
    return [_Pending(*row) for row in session.connection().execute(query)]


def _store(session: Session, one: _Pending, found: Identities) -> list[tuple[str, str]]:
    """Write a file's hashes; return what it turns out to be a moved copy of."""
    session.connection().execute(
        update(_FILES)
        .where(_FILES.c.path == one.path)
        .where(_FILES.c.size == one.size)
        .where(_FILES.c.mtime_ns == one.mtime_ns)
        .values(
            sha256=found.sha256,
            tensors_sha256=found.tensors_sha256,
            autov1=found.autov1,
            crc32=found.crc32,
            blake3=found.blake3,
        )
    )
    _adopt(session, f"path:{one.path}", found.sha256)
    same = (_FILES.c.sha256 == found.sha256) & (_FILES.c.missing == True)  # noqa: E712
    old = list(session.connection().execute(select(_FILES.c.path).where(same)).scalars())
    session.connection().execute(delete(_FILES).where(same))
    return [(path, one.path) for path in old[:1]]


def _adopt(session: Session, old: str, new: str) -> None:
    """Keep under the hash what was kept under the path."""
    row = (
        session.connection()
        .execute(select(_CARE).where(_CARE.c.key == old))
        .mappings()
        .one_or_none()
    )
    if row is not None:
        put = insert(_CARE).values({**row, "key": new})
        session.connection().execute(
            put.on_conflict_do_update(
                index_elements=["key"],
                set_={
                    "uses": _CARE.c.uses + row["uses"],
                    "last_used_ms": func.max(_CARE.c.last_used_ms, row["last_used_ms"]),
                    "pinned": func.max(_CARE.c.pinned, row["pinned"]),
                },
            )
        )
        session.connection().execute(delete(_CARE).where(_CARE.c.key == old))
    tags = list(
        session.connection().execute(select(_TAGS.c.tag).where(_TAGS.c.key == old)).scalars()
    )
    for tag in tags:
        session.connection().execute(
            insert(_TAGS).values(key=new, tag=tag).on_conflict_do_nothing()
        )
    session.connection().execute(delete(_TAGS).where(_TAGS.c.key == old))
