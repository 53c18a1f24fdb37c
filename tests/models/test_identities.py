"""All identities of a file against the vectors, and what happens when it cannot be read whole."""

import hashlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import FileInUse, NotFound, Stopped, UnreadableFile
from stablequeue.models.identities import BLOCK, Identities, identify, is_nothing, sha256_of
from tests.models.making import pattern, safetensors

VECTORS_FOLDER = Path(__file__).parents[1] / "recordings" / "civitai" / "hashes"
VECTORS: dict[str, Any] = json.loads((VECTORS_FOLDER / "vectors.json").read_text())
BIG = safetensors({"w": ("U8", [0x210000], pattern(0x210000))}, {"format": "pt"})


def _vector(name: str, tmp_path: Path) -> Path:
    path = VECTORS_FOLDER / name
    if path.exists():
        return path
    path = tmp_path / name
    path.write_bytes(BIG)
    return path


@pytest.mark.parametrize("name", sorted(VECTORS))
def test_every_vector_holds(name: str, tmp_path: Path) -> None:
    wanted = VECTORS[name]

    found = identify(_vector(name, tmp_path))

    assert found.size == wanted["size"]
    assert found.sha256 == wanted["SHA256"].lower()
    assert found.autov1 == (wanted["AutoV1"] or "").lower()
    assert found.autov2 == wanted["AutoV2"].lower()
    assert found.autov3 == wanted["AutoV3"].lower()
    assert found.crc32 == wanted["CRC32"].lower()
    assert found.blake3 == wanted["BLAKE3"].lower()
    assert found.tensors_sha256 == wanted["addnet_full"]


def test_changing_the_header_keeps_autov3_only() -> None:
    plain, retagged = (
        identify(VECTORS_FOLDER / name)
        for name in ("tiny.safetensors", "tiny_retagged.safetensors")
    )

    assert plain.autov3 == retagged.autov3
    assert plain.sha256 != retagged.sha256
    assert plain.crc32 != retagged.crc32


def test_hello_world_has_the_hashes_of_civitais_own_test(tmp_path: Path) -> None:
    path = tmp_path / "hello.txt"
    path.write_bytes(b"hello world")

    found = identify(path)

    assert found.autov2 == "b94d27b993"
    assert found.crc32 == "85114a0d"
    assert found.blake3.startswith("d74981ef")
    # The first 8 bytes are no plausible length, so what follows them is hashed.
    assert found.tensors_sha256 == hashlib.sha256(b"rld").hexdigest()


@pytest.mark.parametrize(
    "size",
    [0, 1, 7, 8, 9, BLOCK - 1, BLOCK, BLOCK + 1, 0x110000, 0x200000 - 1, 0x200000, 5 * BLOCK + 3],
)
def test_sizes_at_every_edge_agree_with_the_plain_way(size: int, tmp_path: Path) -> None:
    data = pattern(size)
    path = tmp_path / "file.bin"
    path.write_bytes(data)

    found = identify(path)

    assert found == _plainly(data)
    assert sha256_of(path) == found.sha256


@given(header=st.integers(0, 3 * BLOCK), size=st.integers(0, 5 * BLOCK))
def test_a_header_may_end_anywhere(
    header: int, size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = (header.to_bytes(8, "little") + pattern(size))[: max(size, 1)]
    path = tmp_path_factory.getbasetemp() / "anywhere.bin"
    path.write_bytes(data)

    assert identify(path) == _plainly(data)


def _plainly(data: bytes) -> Identities:
    from blake3 import blake3  # noqa: PLC0415

    length = int.from_bytes(data[:8], "little")
    tail = data[8 + length :] if length + 8 <= len(data) else data[8:]
    return Identities(
        size=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        autov1=hashlib.sha256(data[0x100000:0x110000]).hexdigest()[:8]
        if len(data) >= 0x200000
        else "",
        tensors_sha256=hashlib.sha256(tail).hexdigest() if tail else "",
        crc32=zlib.crc32(data).to_bytes(4, "little").hex(),
        blake3=blake3(data).hexdigest(),
    )


def test_a_file_without_tensors_has_no_hash_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "empty.safetensors"
    path.write_bytes(safetensors({}, {"a": "b"}))

    assert identify(path).autov3 == ""


@pytest.mark.parametrize("digits", ["e3b0c44298fc", "E3B0C442", "e3b0c44298fc1c149afbf4c8996fb924"])
def test_the_hash_of_no_bytes_identifies_nothing(digits: str) -> None:
    assert is_nothing(digits)


@pytest.mark.parametrize("digits", ["", "a6339bcf8f7b", "e3b0c44299"])
def test_other_hashes_identify_something(digits: str) -> None:
    assert not is_nothing(digits)


@pytest.mark.parametrize("size", [2 * BLOCK, 9 * BLOCK + 5])
def test_progress_rises_to_the_size(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(pattern(size))
    seen: list[int] = []

    identify(path, progress=seen.append)

    assert seen == sorted(seen)
    assert seen[-1] == size
    assert len(seen) >= size // BLOCK


@pytest.mark.parametrize("work", [identify, sha256_of])
@pytest.mark.parametrize("size", [3 * BLOCK, 30 * BLOCK])
def test_hashing_stops_within_a_block_of_being_told(work: Any, size: int, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(pattern(size))
    seen: list[int] = []

    with pytest.raises(Stopped, match="was stopped"):
        work(path, progress=seen.append, stop=lambda: len(seen) == 2)

    assert seen == [BLOCK, 2 * BLOCK]


@pytest.mark.parametrize("size", [3 * BLOCK, 30 * BLOCK])
def test_a_file_that_grows_while_it_is_read_has_no_identity_yet(size: int, tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(pattern(size))

    def grow(done: int) -> None:
        if done == BLOCK:
            with path.open("ab") as file:
                file.write(b"more")

    with pytest.raises(FileInUse, match="changed while it was read"):
        identify(path, progress=grow)


def test_a_file_replaced_while_it_is_read_has_no_identity_yet(tmp_path: Path) -> None:
    path, other = tmp_path / "file.bin", tmp_path / "other.bin"
    path.write_bytes(pattern(2 * BLOCK))
    other.write_bytes(pattern(2 * BLOCK))

    def replace(_done: int) -> None:
        if other.exists():
            other.replace(path)

    with pytest.raises(FileInUse):
        identify(path, progress=replace)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="missing"):
        identify(tmp_path / "missing")
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    with pytest.raises(UnreadableFile, match="no file"):
        identify(fifo)
    with pytest.raises((UnreadableFile, NotFound)):
        identify(tmp_path)
