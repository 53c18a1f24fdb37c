"""Finding stored bytes that changed or went away."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from stablequeue.errors import StoreUnavailable
from stablequeue.storage import Condition, FolderStoreConfig, Store, open_store, verify


@dataclass(frozen=True)
class Kept:
    """What a catalogue knows of a file."""

    key: str
    sha256: str


def keep(store: Store, folder: Path, name: str) -> Kept:
    path = folder / name
    path.write_bytes(name.encode() * 1000)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Kept(store.put(path, name, sha256=digest, mime="text/plain").key, digest)


def test_whole_missing_and_damaged_files_are_told_apart(store: Store, tmp_path: Path) -> None:
    whole, gone = keep(store, tmp_path, "whole"), keep(store, tmp_path, "gone")
    other = Kept(keep(store, tmp_path, "other").key, whole.sha256)
    store.delete(gone.key)
    verdicts = list(verify(store, [whole, gone, other]))
    assert [verdict.condition for verdict in verdicts] == [
        Condition.WHOLE,
        Condition.MISSING,
        Condition.DAMAGED,
    ]
    assert [verdict.asset for verdict in verdicts] == [whole, gone, other]
    assert verdicts[2].found == hashlib.sha256(b"other" * 1000).hexdigest()


def test_a_changed_file_is_damaged(tmp_path: Path) -> None:
    store = open_store(FolderStoreConfig(folder=tmp_path / "pictures"))
    kept = keep(store, tmp_path, "a")
    Path(store.locate(kept.key)).write_bytes(b"changed")
    assert next(verify(store, [kept])).condition is Condition.DAMAGED


def test_a_store_that_is_away_gives_no_verdicts(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("not a folder", encoding="utf-8")
    store = open_store(FolderStoreConfig(folder=tmp_path / "pictures"))
    with pytest.raises(StoreUnavailable):
        next(verify(store, [Kept("a", "0" * 64)]))
