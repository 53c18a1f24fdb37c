"""Keeping the library in order: what to evict, renaming and deleting with everything beside a file.

Planning is pure; nothing is removed but by `delete`, which a person or a confirmed plan asks for.
"""

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from stablequeue.errors import BadRequest, NotFound, Refused
from stablequeue.model_names import SUFFIXES, without_suffix
from stablequeue.models.beside import sidecar_files, stem_of
from stablequeue.models.folders import Root, target_in
from stablequeue.models.library import Library
from stablequeue.models.records import ModelFile

_DAY_MS = 24 * 60 * 60 * 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionPlan:
    """What to delete to come below a size.

    Attributes:
        evict: In this order.
        freed: Bytes that gives back.
        size: Bytes of the library before.
        remaining: Bytes after.
        limit: Bytes it was to come below.
        kept: (file, why) of what would have been next but is safe.
    """

    evict: tuple[ModelFile, ...]
    freed: int
    size: int
    remaining: int
    limit: int
    kept: tuple[tuple[ModelFile, str], ...]

    @property
    def enough(self) -> bool:
        """Whether the limit is reached; what is safe alone may be larger."""
        return self.remaining <= self.limit


def plan_eviction(
    files: Iterable[ModelFile],
    limit: int,
    *,
    needed: Collection[str] = (),
    now_ms: int = 0,
    rest_days: float = 0.0,
) -> EvictionPlan:
    """Choose the least used files to delete until the rest is at most `limit` bytes. Pure.

    Fewest uses first, then the longest unused, then the largest, then by path. Copies of the same
    bytes share their count, so the second copy of a used model is as safe as the first.

    Args:
        files: Of the library, hashed or not.
        limit: In bytes.
        needed: SHA-256 or paths of what a waiting job needs: never evicted.
        now_ms: The time, in milliseconds since 1970.
        rest_days: A file used, or changed, within so many days is safe.
    """
    every = list(files)
    size = remaining = sum(one.size for one in every)
    evict: list[ModelFile] = []
    kept: list[tuple[ModelFile, str]] = []
    for one in sorted(every, key=_worth):
        if remaining <= limit:
            break
        why = _safe(one, needed, now_ms - int(rest_days * _DAY_MS) if rest_days else None)
        if why:
            kept.append((one, why))
        else:
            evict.append(one)
            remaining -= one.size
    return EvictionPlan(
        evict=tuple(evict),
        freed=size - remaining,
        size=size,
        remaining=remaining,
        limit=limit,
        kept=tuple(kept),
    )


def _worth(one: ModelFile) -> tuple[int, int, int, str]:
    return one.uses, one.last_used_ms, -one.size, str(one.path)


def _safe(one: ModelFile, needed: Collection[str], since_ms: int | None) -> str:
    if one.pinned:
        return "pinned"
    if one.sha256 in needed or str(one.path) in needed:
        return "a waiting job needs it"
    if since_ms is not None and max(one.last_used_ms, one.mtime_ns // 1_000_000) > since_ms:
        return "used or new lately"
    return ""


def rename(library: Library, file: ModelFile, name: str) -> Path:
    """Rename a model within its root, with everything beside it; return its new path.

    Args:
        library: Whose record follows.
        file: The model.
        name: Relative to the root, with slashes; its suffix may be left out, never changed.

    Raises:
        BadRequest: The name is not possible.
        NotFound: The file is gone.
        Refused: Something of that name is there already.
    """
    suffix = file.path.suffix
    if without_suffix(name) == name or not name.casefold().endswith(SUFFIXES):
        name += suffix
    if Path(name).suffix.casefold() != suffix.casefold():
        raise BadRequest("name", f"the suffix {suffix} tells the file's format and must stay")
    target = target_in(Root(file.root, file.kind, ""), name)
    moves = [(file.path, target)]
    before, after = stem_of(file.path).name, stem_of(target).name
    moves += [
        (one, target.parent / (after + one.name[len(before) :])) for one in sidecar_files(file.path)
    ]
    if not file.path.exists():
        raise NotFound(f"{file.name} is gone; run: stablequeue models scan")
    for old, new in moves:
        if os.path.lexists(new) and not _same_file(old, new):
            raise Refused(f"{new.name} is there already; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    done: list[tuple[Path, Path]] = []
    try:
        for old, new in moves:
            old.rename(new)
            done.append((old, new))
    except OSError:
        for old, new in reversed(done):
            new.rename(old)
        raise
    library.note_renamed(file.path, target, target.relative_to(file.root).as_posix())
    return target


def delete(library: Library, file: ModelFile) -> list[Path]:
    """Delete a model and everything beside it; return what was deleted.

    A link is deleted, not what it leads to. Usage, pins and tags stay in the record, in case the
    same bytes come back.

    Raises:
        Refused: It is pinned.
        OSError: It cannot be deleted.
    """
    if file.pinned:
        raise Refused(f"{file.name} is pinned; unpin it first")
    beside = sidecar_files(file.path)
    # The model first: if that fails, what tells about it must not be lost.
    file.path.unlink(missing_ok=True)
    for one in beside:
        one.unlink(missing_ok=True)
    library.forget([file.path])
    return [file.path, *beside]


def _same_file(one: Path, other: Path) -> bool:
    """Say whether a name is another spelling of the same file, where case does not matter."""
    try:
        return one.name != other.name and one.samefile(other) and one.parent.samefile(other.parent)
    except OSError:
        return False
