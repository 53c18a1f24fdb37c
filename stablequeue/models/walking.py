"""Finding model files below the roots, quickly: one `scandir` a folder, one `stat` a model.

Links are followed, as Forge and ComfyUI do, to files and folders anywhere; a folder that is reached
again through a link into itself is not entered twice. Hidden files and folders are left out, and
so is what is still being downloaded.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stablequeue.model_names import SUFFIXES
from stablequeue.models.folders import Root
from stablequeue.models.kinds import ModelType

_UNFINISHED = (".aria2", ".part", ".downloading", ".tmp", ".crdownload")
_SIDECARS = (
    ".json",
    ".civitai.info",
    ".api_info.json",
    ".metadata.json",
    ".cm-info.json",
    ".txt",
    ".description.txt",
)
_DEEPEST = 32


@dataclass(frozen=True, slots=True)
class Found:
    """A model file as it is on the disk.

    Attributes:
        name: Relative to the root, with slashes.
        beside: Names, sizes and times of its sidecars, to see whether one changed.
    """

    path: str
    root: str
    name: str
    kind: ModelType
    size: int
    mtime_ns: int
    inode: str
    device: str
    beside: str


@dataclass(slots=True)
class Walk:
    """The result of a walk.

    Attributes:
        files: Each path once, though roots may overlap.
        unreadable: Roots and folders that could not be listed; what they hold is not missing.
    """

    files: list[Found]
    unreadable: list[str]


def walk(roots: Iterable[Root]) -> Walk:
    """Find the model files of all roots."""
    result = Walk([], [])
    seen: set[str] = set()
    for root in roots:
        top = str(root.path)
        for found in _folder(root, top, "", frozenset(), result.unreadable):
            if found.path not in seen:
                seen.add(found.path)
                result.files.append(found)
    return result


def _folder(
    root: Root, folder: str, prefix: str, above: frozenset[tuple[int, int]], unreadable: list[str]
) -> Iterator[Found]:
    try:
        here = os.stat(folder)  # noqa: PTH116  # a Path each costs as much as the call
        with os.scandir(folder) as listing:
            entries = {entry.name: entry for entry in listing if not entry.name.startswith(".")}
    except OSError:
        unreadable.append(folder)
        return
    identity = (here.st_dev, here.st_ino)
    if identity in above or len(above) > _DEEPEST:
        return
    for name in sorted(entries):
        entry = entries[name]
        if name.casefold().endswith(SUFFIXES):
            found = _file(root, entry, prefix, entries)
            if found is not None:
                yield found
                continue
        if _is_folder(entry):
            yield from _folder(root, entry.path, f"{prefix}{name}/", above | {identity}, unreadable)


def _file(
    root: Root, entry: os.DirEntry[str], prefix: str, entries: dict[str, os.DirEntry[str]]
) -> Found | None:
    name = entry.name
    if any(name + suffix in entries for suffix in _UNFINISHED) or not name.isprintable():
        return None
    try:
        if not entry.is_file():
            return None
        status = entry.stat()
    except OSError:  # a link to nothing, or gone meanwhile
        return None
    stem = Path(name).stem if "." in name else name
    kind = root.kind
    if kind is ModelType.CHECKPOINT and stem.casefold().endswith(".vae"):
        kind = ModelType.VAE
    return Found(
        path=entry.path,
        root=str(root.path),
        name=prefix + name,
        kind=kind,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        inode=str(status.st_ino),
        device=str(status.st_dev),
        beside=_beside(stem, entries),
    )


def _beside(stem: str, entries: dict[str, os.DirEntry[str]]) -> str:
    stamps: list[str] = []
    for suffix in _SIDECARS:
        entry = entries.get(stem + suffix)
        if entry is None:
            continue
        try:
            status = entry.stat()
        except OSError:
            continue
        stamps.append(f"{suffix}:{status.st_size}:{status.st_mtime_ns}")
    return " ".join(stamps)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
