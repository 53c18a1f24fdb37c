"""The folder store's own dangers: full disks, missing mounts, links, crashes, many processes."""

import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from stablequeue.errors import StoreUnavailable, UnsafeName
from stablequeue.storage import FolderStoreConfig
from stablequeue.storage.folder import FolderStore

NOBODY = 65534
KEY = "2026-11-21/143502-a-cat-s7-1a2b3c4d-0.png"


class Usage(NamedTuple):
    """What `shutil.disk_usage` answers, in bytes."""

    total: int
    used: int
    free: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pictures"


@pytest.fixture
def store(folder: Path) -> FolderStore:
    return FolderStore(FolderStoreConfig(folder=folder, name="shelf"))


def put(store: FolderStore, picture: Path, key: str = KEY) -> str:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    return store.put(picture, key, sha256=digest, mime="image/png").key


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_nothing_but_the_picture_lies_in_the_folder(
    store: FolderStore, folder: Path, picture: Path
) -> None:
    put(store, picture)
    assert files(folder) == [os.path.normpath(KEY)]


def test_a_nearly_full_disk_is_refused_before_writing(
    store: FolderStore, folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nearly_full(_: Path) -> Usage:
        return Usage(10**12, 10**12, 5 * 1024 * 1024)

    monkeypatch.setattr(shutil, "disk_usage", nearly_full)
    with pytest.raises(StoreUnavailable, match="5 MiB free and 257 are needed"):
        put(store, picture)
    with pytest.raises(StoreUnavailable, match="Free some space"):
        store.check()
    assert files(folder) == []


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "is full"),
        (errno.EDQUOT, "is full"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "mounted"),
        (errno.ENOTCONN, "mounted"),
        (errno.ELOOP, "Look at that disk"),
    ],
)
def test_what_the_system_says_becomes_advice(
    store: FolderStore, picture: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str
) -> None:
    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    folder = Path(store.locate("x")).parent
    folder.mkdir()
    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnavailable, match=advice) as caught:
        put(store, picture)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert files(folder) == []


def test_a_missing_mount_is_not_replaced_by_a_folder_of_ours(folder: Path, picture: Path) -> None:
    store = FolderStore(FolderStoreConfig(folder=folder, must_exist=True))
    with pytest.raises(StoreUnavailable, match="mounted"):
        store.check()
    with pytest.raises(StoreUnavailable, match="mounted"):
        put(store, picture)
    assert not folder.exists()


def test_a_file_in_the_folders_place_is_an_outage(folder: Path, picture: Path) -> None:
    folder.write_text("not a folder", encoding="utf-8")
    with pytest.raises(StoreUnavailable):
        put(FolderStore(FolderStoreConfig(folder=folder)), picture)


@contextmanager
def unprivileged(picture: Path) -> Generator[None]:
    """Be nobody for a while where the tests run as root, who may write everywhere."""
    if os.geteuid() != 0:
        yield
        return
    temporary = [path for path in picture.parents if path.is_relative_to(tempfile.gettempdir())]
    modes = {path: path.stat().st_mode for path in temporary}
    for path, mode in modes.items():
        path.chmod(mode | 0o011)  # to be passed through
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for path, mode in modes.items():
            path.chmod(mode)


@pytest.mark.skipif(os.name == "nt", reason="permissions are others there")
def test_a_folder_without_permission_is_an_outage(
    store: FolderStore, folder: Path, picture: Path
) -> None:
    folder.mkdir(mode=0o555)
    with unprivileged(picture), pytest.raises(StoreUnavailable, match="permission"):
        put(store, picture)
    assert files(folder) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_out_of_the_folder_is_not_followed(
    store: FolderStore, folder: Path, tmp_path: Path, picture: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    folder.mkdir()
    (folder / "2026-11-21").symlink_to(outside, target_is_directory=True)
    with pytest.raises(UnsafeName, match="link"):
        put(store, picture)
    assert files(outside) == []


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_in_a_files_place_is_neither_read_nor_written(
    store: FolderStore, folder: Path, tmp_path: Path, picture: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret", encoding="utf-8")
    put(store, picture)
    target = folder / KEY
    target.unlink()
    target.symlink_to(secret)
    with pytest.raises(UnsafeName):
        store.open(KEY)
    with pytest.raises(UnsafeName):
        put(store, picture)
    assert secret.read_text(encoding="utf-8") == "secret"


def test_the_folder_itself_may_be_a_link(tmp_path: Path, picture: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    link = tmp_path / "link"
    try:
        link.symlink_to(real, target_is_directory=True)
    except OSError:
        pytest.skip("no right to make links")
    put(FolderStore(FolderStoreConfig(folder=link)), picture)
    assert files(real) == [os.path.normpath(KEY)]


def test_a_disk_without_hard_links_works_too(
    store: FolderStore, folder: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    assert put(store, picture) == KEY
    other = picture.with_name("other")
    other.write_bytes(b"other")
    assert put(store, other) == KEY.replace(".png", "-2.png")
    assert len(files(folder)) == 2


def test_empty_folders_go_with_their_last_file(
    store: FolderStore, folder: Path, picture: Path
) -> None:
    put(store, picture)
    put(store, picture, "2026-11-21/b.png")
    store.delete(KEY)
    assert (folder / "2026-11-21").is_dir()
    store.delete("2026-11-21/b.png")
    assert list(folder.iterdir()) == []


def test_what_a_dead_process_left_is_removed_after_a_day(
    store: FolderStore, folder: Path, picture: Path
) -> None:
    put(store, picture)
    day = folder / "2026-11-21"
    old, fresh = day / ".stablequeue-old", day / ".stablequeue-fresh"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    two_days_ago = time.time() - 2 * 86400
    os.utime(old, (two_days_ago, two_days_ago))
    assert store.remove_leftovers() == 1
    assert fresh.exists()
    assert store.exists(KEY)


_WRITER = """
import sys
from pathlib import Path
from stablequeue.storage import FolderStoreConfig, file_sha256, open_store
store = open_store(FolderStoreConfig(folder=Path(sys.argv[1])))
for path in map(Path, sys.argv[2:]):
    print(store.put(path, "day/same-name.png", sha256=file_sha256(path), mime="image/png").key)
"""


def test_processes_at_once_never_overwrite_each_other(folder: Path, tmp_path: Path) -> None:
    sources = [tmp_path / f"source-{number}" for number in range(8)]
    for number, source in enumerate(sources):
        source.write_bytes(f"content {number}".encode() * 1000)
    command = [sys.executable, "-c", _WRITER, str(folder)]
    orders = [sources, sources[::-1], sources[3:] + sources[:3]]
    processes = [
        subprocess.Popen([*command, *map(str, order)], stdout=subprocess.PIPE, text=True)
        for order in orders
    ]
    answers = [process.communicate(timeout=50)[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    for order, keys in zip(orders, answers, strict=True):
        for source, key in zip(order, keys, strict=True):
            assert (folder / key).read_bytes() == source.read_bytes()
    assert len(files(folder)) == len(sources)
