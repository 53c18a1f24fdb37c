"""What every kind of store promises."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stablequeue.errors import NotFound, StoreError, UnsafeName
from stablequeue.storage import Store

KEY = "2026-11-21/143502-a-cat-s7-1a2b3c4d-0.png"


def put(store: Store, path: Path, key: str = KEY, mime: str = "image/png") -> str:
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return store.put(path, key, sha256=digest, mime=mime).key


def read(store: Store, key: str) -> bytes:
    with store.open(key) as stream:
        return stream.read()


def file(folder: Path, content: bytes) -> Path:
    path = folder / hashlib.sha256(content).hexdigest()[:12]
    path.write_bytes(content)
    return path


def test_bytes_come_back_as_they_were_put(store: Store, picture: Path) -> None:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    blob = store.put(picture, KEY, sha256=digest, mime="image/png")
    assert (blob.store, blob.key, blob.sha256, blob.written) == (store.name, KEY, digest, True)
    assert blob.size == picture.stat().st_size
    assert read(store, KEY) == picture.read_bytes()
    assert store.exists(KEY)
    assert store.exists(KEY, sha256=digest)
    assert not store.exists(KEY, sha256="0" * 64)


def test_putting_twice_stores_once(store: Store, picture: Path) -> None:
    digest = hashlib.sha256(picture.read_bytes()).hexdigest()
    first = store.put(picture, KEY, sha256=digest, mime="image/png")
    second = store.put(picture, KEY, sha256=digest, mime="image/png")
    assert second.key == first.key
    assert not second.written
    assert not store.exists(KEY.replace(".png", "-2.png"))


def test_other_bytes_under_a_taken_name_get_a_number(store: Store, tmp_path: Path) -> None:
    contents = [f"content {number}".encode() for number in range(3)]
    keys = [put(store, file(tmp_path, content)) for content in contents]
    stem = KEY.removesuffix(".png")
    assert keys == [KEY, f"{stem}-2.png", f"{stem}-3.png"]
    assert [read(store, key) for key in keys] == contents
    assert put(store, file(tmp_path, contents[2])) == keys[2]


def test_an_empty_file_is_stored_too(store: Store, tmp_path: Path) -> None:
    key = put(store, file(tmp_path, b""))
    assert store.exists(key)
    assert read(store, key) == b""


def test_many_writers_of_one_name_lose_nothing(store: Store, tmp_path: Path) -> None:
    contents = [f"content {number % 4}".encode() for number in range(12)]
    files = [file(tmp_path, content) for content in contents]
    with ThreadPoolExecutor(6) as pool:
        keys = list(pool.map(put, [store] * len(files), files))
    assert [read(store, key) for key in keys] == contents
    assert len(set(keys)) == 4


def test_a_file_that_is_not_what_was_said_is_refused(store: Store, picture: Path) -> None:
    with pytest.raises(StoreError, match="changed while it was being stored"):
        store.put(picture, KEY, sha256="0" * 64, mime="image/png")
    assert not store.exists(KEY)


def test_a_missing_source_is_not_the_stores_fault(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"gone\.png"):
        store.put(tmp_path / "gone.png", KEY, sha256="0" * 64, mime="image/png")


def test_deleting_is_repeatable(store: Store, picture: Path) -> None:
    put(store, picture)
    store.delete(KEY)
    store.delete(KEY)
    assert not store.exists(KEY)
    with pytest.raises(NotFound):
        store.open(KEY)


def test_a_deleted_name_can_be_used_again(store: Store, picture: Path) -> None:
    put(store, picture)
    store.delete(KEY)
    assert put(store, picture) == KEY


@pytest.mark.parametrize(
    "key",
    [
        "",
        "/etc/passwd",
        "../outside.png",
        "a/../../outside.png",
        "a//b.png",
        "a\\..\\b.png",
        "c:/windows.png",
        "a/b.png:stream",
        "nul.png",
        "a/COM1",
        "a/b\0.png",
        "a/b.png.",
        "~/x.png",
        ".hidden",
        "a/" + "x" * 300,
        "a/\u202epng.exe",
    ],
)
def test_no_foreign_name_is_followed(store: Store, picture: Path, key: str) -> None:
    for use in (
        lambda: put(store, picture, key),
        lambda: store.open(key),
        lambda: store.exists(key),
        lambda: store.delete(key),
        lambda: store.locate(key),
    ):
        with pytest.raises(UnsafeName):
            use()


def test_the_check_leaves_nothing_behind(store: Store) -> None:
    store.check()
    store.check()


def test_a_place_for_people_is_never_signed(store: Store, picture: Path) -> None:
    key = put(store, picture)
    place = store.locate(key)
    assert place.endswith(key)
    assert "?" not in place
    assert "Signature" not in place
