"""Input pictures: kept by hash, taken only from where they may be taken."""

import hashlib
import io
import os
from pathlib import Path

import pytest
from PIL import Image

from stablequeue.errors import BadRequest, NotFound, StoreUnavailable
from stablequeue.storage import InputStore


@pytest.fixture
def inputs(tmp_path: Path) -> InputStore:
    return InputStore(tmp_path / "inputs")


@pytest.fixture
def allowed(tmp_path: Path) -> Path:
    folder = tmp_path / "allowed"
    folder.mkdir()
    return folder


def paint(path: Path, form: str = "PNG") -> Path:
    Image.new("RGB", (20, 10), (1, 2, 3)).save(path, form)
    return path


def link(place: Path, to: Path) -> Path:
    try:
        place.symlink_to(to, target_is_directory=to.is_dir())
    except OSError:
        pytest.skip("no right to make links")
    return place


def test_a_picture_is_kept_by_its_hash_byte_for_byte(inputs: InputStore, picture: Path) -> None:
    content = picture.read_bytes()
    reference = inputs.ingest(picture)
    assert reference == "sha256:" + hashlib.sha256(content).hexdigest()
    picture.unlink()
    assert inputs.path(reference).read_bytes() == content
    assert inputs.path(reference).suffix == ".png"
    inputs.check(reference)


def test_keeping_the_same_picture_twice_is_one_file(
    inputs: InputStore, picture: Path, tmp_path: Path
) -> None:
    assert inputs.ingest(picture) == inputs.ingest(picture.read_bytes())
    assert len([path for path in (tmp_path / "inputs").rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", ".jpg"), ("WEBP", ".webp"), ("GIF", ".gif")])
def test_the_suffix_follows_the_bytes(
    inputs: InputStore, tmp_path: Path, form: str, suffix: str
) -> None:
    assert inputs.path(inputs.ingest(paint(tmp_path / "named.png", form))).suffix == suffix


def test_a_file_in_an_allowed_folder_is_taken(inputs: InputStore, allowed: Path) -> None:
    (allowed / "deep").mkdir()
    picture = paint(allowed / "deep" / "a.png")
    assert inputs.ingest(picture, allowed=[allowed.parent / "other", allowed])


@pytest.mark.parametrize("place", ["../outside.png", "../allowed2/a.png", "deep/../../outside.png"])
def test_a_file_outside_the_allowed_folders_is_refused(
    inputs: InputStore, allowed: Path, place: str
) -> None:
    (allowed / "deep").mkdir()
    (allowed.parent / "allowed2").mkdir()
    path = allowed / place
    paint(path.resolve())
    with pytest.raises(BadRequest, match="outside the folders") as caught:
        inputs.ingest(path, allowed=[allowed], field="mask_image")
    assert caught.value.field == "mask_image"
    assert caught.value.allowed == (str(allowed),)


def test_no_folder_allowed_means_nothing_is(inputs: InputStore, picture: Path) -> None:
    with pytest.raises(BadRequest, match="outside"):
        inputs.ingest(picture, allowed=[])


def test_a_link_out_of_an_allowed_folder_is_refused(
    inputs: InputStore, allowed: Path, picture: Path
) -> None:
    file_link = link(allowed / "link.png", picture)
    folder_link = link(allowed / "folder", picture.parent)
    for path in (file_link, folder_link / picture.name):
        with pytest.raises(BadRequest, match="outside"):
            inputs.ingest(path, allowed=[allowed])


def test_an_allowed_folder_may_itself_be_a_link(
    inputs: InputStore, allowed: Path, tmp_path: Path
) -> None:
    other_name = link(tmp_path / "other-name", allowed)
    paint(allowed / "a.png")
    assert inputs.ingest(other_name / "a.png", allowed=[other_name])
    assert inputs.ingest(allowed / "a.png", allowed=[other_name])


def test_a_link_swapped_in_after_the_look_is_noticed(
    inputs: InputStore, allowed: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = paint(allowed / "a.png")
    open_file = os.open

    def swap(name: Path, flags: int) -> int:
        path.unlink()
        link(path, picture)
        return open_file(name, flags & ~getattr(os, "O_NOFOLLOW", 0))

    monkeypatch.setattr(os, "open", swap)
    with pytest.raises(BadRequest, match="changed while"):
        inputs.ingest(path, allowed=[allowed])


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_does_not_block(inputs: InputStore, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.png"
    os.mkfifo(pipe)
    with pytest.raises(BadRequest, match="not a file"):
        inputs.ingest(pipe)


@pytest.mark.parametrize("name", ["none.png", ".", "a\0b.png", "x" * 5000])
def test_what_cannot_be_read_is_refused_in_one_line(
    inputs: InputStore, tmp_path: Path, name: str
) -> None:
    with pytest.raises(BadRequest) as caught:
        inputs.ingest(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_picture_is_refused(inputs: InputStore, tmp_path: Path) -> None:
    for content in (b"", b"just text", b"fLaC\0\0\0\x22", b"\0\1\2"):
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(BadRequest):
            inputs.ingest(path)
    assert not (tmp_path / "inputs").exists()


def test_a_cut_off_picture_is_refused(inputs: InputStore) -> None:
    stream = io.BytesIO()
    Image.effect_noise((64, 64), 90).save(stream, "PNG")
    with pytest.raises(BadRequest, match="damaged, cut off"):
        inputs.ingest(stream.getvalue()[:-200])


def test_a_picture_of_too_many_bytes_is_refused(tmp_path: Path, picture: Path) -> None:
    small = InputStore(tmp_path / "inputs", largest=picture.stat().st_size - 1)
    for source in (picture, picture.read_bytes()):
        with pytest.raises(BadRequest, match="larger than"):
            small.ingest(source)


def test_a_decompression_bomb_is_refused_unopened(inputs: InputStore) -> None:
    stream = io.BytesIO()
    Image.new("1", (16_384, 8_200)).save(stream, "PNG")
    assert len(stream.getvalue()) < 100_000
    with pytest.raises(BadRequest, match="too many"):
        inputs.ingest(stream.getvalue())


@pytest.mark.parametrize(
    "reference", ["", "sha256:", "sha256:../../etc/passwd", "sha256:" + "g" * 64, "a" * 64]
)
def test_a_broken_reference_finds_nothing(inputs: InputStore, reference: str) -> None:
    with pytest.raises(NotFound):
        inputs.path(reference)
    with pytest.raises(BadRequest, match="submit the job with the file again"):
        inputs.check(reference, field="mask_image")


def test_a_full_disk_is_an_outage_not_a_bad_request(tmp_path: Path, picture: Path) -> None:
    (tmp_path / "inputs").write_text("a file in the folder's place", encoding="utf-8")
    with pytest.raises(StoreUnavailable, match="Look at that disk"):
        InputStore(tmp_path / "inputs").ingest(picture)
