"""The record of model files: what a scan finds, keeps and never loses."""

import json
import multiprocessing
import os
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from stablequeue.catalogue.engine import Database
from stablequeue.errors import CatalogueError, CatalogueTooNew, NotFound, Stopped
from stablequeue.models import hashing, scanning
from stablequeue.models.database import open_database
from stablequeue.models.families import Family
from stablequeue.models.folders import Root
from stablequeue.models.identities import identify
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from stablequeue.models.records import ScanProgress, ScanReport
from tests.models.making import model, of_shapes


@pytest.fixture
def loras(tmp_path: Path) -> Path:
    """A folder of LoRAs."""
    folder = tmp_path / "loras"
    folder.mkdir()
    return folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """An empty library."""
    return Library(tmp_path / "home")


def _roots(*folders: Path, kind: ModelType = ModelType.LORA) -> list[Root]:
    return [Root(folder, kind, "test") for folder in folders]


def _names(library: Library) -> list[str]:
    return [one.name for one in library.files()]


def test_a_scan_records_what_a_file_is_and_all_its_hashes(library: Library, loras: Path) -> None:
    key = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight"
    path = of_shapes(
        loras / "sub" / "crane.safetensors",
        {key: [4, 2048]},
        {"ss_output_name": "crane_style", "sshs_model_hash": "0x" + "ab" * 32},
    )
    path.with_suffix(".civitai.info").write_text(
        json.dumps({"id": 7, "modelId": 6, "baseModel": "Pony", "model": {"name": "Crane"}})
    )

    report = library.scan(_roots(loras))
    (found,) = library.files()

    wanted = identify(path)
    assert (report.files, report.hashed, report.added) == (1, 1, (str(path),))
    assert found.path == path
    assert (found.name, found.kind, found.root) == (
        "sub/crane.safetensors",
        ModelType.LORA,
        loras,
    )
    assert (found.sha256, found.autov3, found.crc32, found.blake3, found.size) == (
        wanted.sha256,
        wanted.autov3,
        wanted.crc32,
        wanted.blake3,
        wanted.size,
    )
    assert (found.family, found.shown_kind, found.alias) == (
        Family.SDXL,
        ModelType.LORA,
        "crane_style",
    )
    assert found.embedded == "ab" * 32
    assert (found.title, found.base_model, found.model_id, found.version_id) == (
        "Crane",
        "Pony",
        6,
        7,
    )
    assert json.dumps(found.to_json())


def test_the_hash_of_nothing_that_trainers_embed_is_not_kept(library: Library, loras: Path) -> None:
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    model(loras / "a.safetensors", metadata={"sshs_model_hash": nothing})

    library.scan(_roots(loras))

    assert library.files()[0].embedded == ""


def test_an_unchanged_library_is_neither_read_nor_written_again(
    library: Library, loras: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        model(loras / f"{number}.safetensors", str(number))
    library.scan(_roots(loras))

    def refuse(*_args: object, **_kwargs: object) -> None:
        raise AssertionError

    monkeypatch.setattr(scanning, "header_columns", refuse)
    monkeypatch.setattr(scanning, "sidecar_columns", refuse)
    monkeypatch.setattr(hashing, "identify", refuse)
    monkeypatch.setattr(Database, "write", refuse)

    assert library.scan(_roots(loras)) == ScanReport(files=5)


def test_a_changed_file_is_read_and_hashed_again(library: Library, loras: Path) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))
    before = library.files()[0]

    model(path, "two and more")
    report = library.scan(_roots(loras))

    assert (report.changed, report.hashed, report.added) == ((str(path),), 1, ())
    assert library.files()[0].sha256 == identify(path).sha256 != before.sha256


def test_a_changed_sidecar_is_noticed_without_hashing(library: Library, loras: Path) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))

    path.with_suffix(".civitai.info").write_text('{"baseModel": "Pony"}')
    report = library.scan(_roots(loras))

    assert (report.changed, report.hashed) == ((str(path),), 0)
    assert library.files()[0].base_model == "Pony"
    assert library.files()[0].sha256 == identify(path).sha256


def test_a_renamed_file_keeps_everything_and_is_not_hashed_again(
    library: Library, loras: Path
) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))
    (file,) = library.files()
    library.record_use([file], at_ms=1000)
    library.pin(file)
    library.tag(file, add=["styles"])

    new = loras / "deep" / "b.safetensors"
    new.parent.mkdir()
    path.rename(new)
    report = library.scan(_roots(loras))

    assert (report.moved, report.hashed, report.added, report.missing) == (
        ((str(path), str(new)),),
        0,
        (),
        (),
    )
    (found,) = library.files()
    assert (found.name, found.sha256) == ("deep/b.safetensors", file.sha256)
    assert (found.uses, found.last_used_ms, found.pinned, found.tags) == (
        1,
        1000,
        True,
        ("styles",),
    )


def test_a_file_moved_to_another_disk_is_recognised_by_its_hash(
    library: Library, loras: Path
) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))
    library.record_use(library.files(), at_ms=1000)

    new = loras / "b.safetensors"
    shutil.copyfile(path, new)  # another inode and time
    path.unlink()
    report = library.scan(_roots(loras))

    assert report.moved == ((str(path), str(new)),)
    assert report.added == ()
    assert library.files()[0].uses == 1
    assert library.files(missing=True) == []


def test_use_before_the_hash_is_known_is_kept(library: Library, loras: Path) -> None:
    model(loras / "a.safetensors", "one")
    library.scan(_roots(loras), hashing=False)
    (file,) = library.files()
    assert file.sha256 == ""
    library.record_use([file, file], at_ms=5)
    library.pin(file)
    library.tag(file, add=["a", "b", " "], remove=["b"])

    library.scan(_roots(loras))

    (found,) = library.files()
    assert found.sha256
    assert (found.uses, found.last_used_ms, found.pinned, found.tags) == (1, 5, True, ("a", "b"))
    library.tag(found, remove=["a"])
    library.pin(found, pinned=False)
    library.record_use([found], at_ms=3)
    (found,) = library.files()
    assert (found.uses, found.last_used_ms, found.pinned, found.tags) == (2, 5, False, ("b",))


def test_a_file_that_went_missing_is_kept_in_case_it_comes_back(
    library: Library, loras: Path
) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))
    aside = loras.parent / "aside"
    loras.rename(aside)

    assert library.scan(_roots(loras)).missing == ()  # the folder itself cannot be read
    loras.mkdir()
    assert library.scan(_roots(loras)).missing == (str(path),)
    assert library.files() == []
    assert [one.name for one in library.files(missing=True)] == ["a.safetensors"]

    loras.rmdir()
    aside.rename(loras)
    report = library.scan(_roots(loras))

    assert (report.hashed, report.added, report.missing) == (0, (), ())
    assert _names(library) == ["a.safetensors"]


def test_what_is_being_downloaded_is_left_alone(library: Library, loras: Path) -> None:
    model(loras / "a.safetensors.part")
    model(loras / "b.safetensors")
    (loras / "b.safetensors.aria2").write_bytes(b"x")
    model(loras / ".hidden.safetensors")
    model(loras / ".cache" / "c.safetensors")
    (loras / "d.safetensors").mkdir()
    (loras / "readme.txt").write_text("x")

    assert library.scan(_roots(loras)) == ScanReport()


def test_a_truncated_file_is_a_problem_and_not_hashed(library: Library, loras: Path) -> None:
    path = model(loras / "a.safetensors", "something")
    path.write_bytes(path.read_bytes()[:-3])

    report = library.scan(_roots(loras))

    assert report.hashed == 0
    assert [(path_, "cut off" in why) for path_, why in report.problems] == [(str(path), True)]
    assert "cut off" in library.files()[0].problem


def test_a_file_that_changes_while_it_is_hashed_is_left_for_the_next_scan(
    library: Library, loras: Path
) -> None:
    path = model(loras / "a.safetensors", "one")
    touched: list[ScanProgress] = []

    def touch(progress: ScanProgress) -> None:
        if not touched:
            os.utime(path, ns=(1, 1))
        touched.append(progress)

    report = library.scan(_roots(loras), progress=touch)

    assert report.hashed == 0
    assert "changed" in report.problems[0][1]
    assert library.files()[0].sha256 == ""
    assert library.scan(_roots(loras)).hashed == 1


def test_stopping_loses_nothing_that_was_done(library: Library, loras: Path) -> None:
    for number in range(4):
        model(loras / f"{number}.safetensors", "x" * number)
    seen: list[ScanProgress] = []

    with pytest.raises(Stopped):
        library.scan(
            _roots(loras),
            workers=1,
            progress=seen.append,
            stop=lambda: bool(seen) and seen[-1].files_done == 2,
        )

    assert sum(1 for one in library.files() if one.sha256) == 2
    assert library.scan(_roots(loras)).hashed == 2


def test_progress_ends_at_all_files_and_all_bytes(library: Library, loras: Path) -> None:
    for number in range(6):
        model(loras / f"{number}.safetensors", "x" * number)
    seen: list[ScanProgress] = []

    library.scan(_roots(loras), workers=3, progress=seen.append)

    assert (seen[-1].files_done, seen[-1].files) == (6, 6)
    assert seen[-1].bytes_done == seen[-1].bytes > 0
    assert [one.bytes_done for one in seen] == sorted(one.bytes_done for one in seen)


def test_links_are_followed_and_loops_are_not(
    library: Library, loras: Path, tmp_path: Path
) -> None:
    elsewhere = model(tmp_path / "elsewhere" / "real.safetensors", "one")
    (loras / "linked.safetensors").symlink_to(elsewhere)
    (loras / "folder").symlink_to(elsewhere.parent)
    (loras / "loop").symlink_to(loras)
    (loras / "broken.safetensors").symlink_to(tmp_path / "nothing")

    library.scan(_roots(loras))

    assert _names(library) == ["folder/real.safetensors", "linked.safetensors"]
    assert library.duplicates() == []  # one file under two names takes room once


def test_a_link_made_later_is_not_hashed_again(library: Library, loras: Path) -> None:
    path = model(loras / "a.safetensors", "one")
    library.scan(_roots(loras))
    (loras / "b.safetensors").hardlink_to(path)

    report = library.scan(_roots(loras))

    assert report.hashed == 0
    assert {one.sha256 for one in library.files()} == {identify(path).sha256}
    assert _names(library) == ["a.safetensors", "b.safetensors"]


def test_duplicates_are_listed_with_the_largest_waste_first(library: Library, loras: Path) -> None:
    for name, content in (("a", "s"), ("b", "s"), ("c", "L" * 99), ("d", "L" * 99), ("e", "x")):
        model(loras / f"{name}.safetensors", content)
    library.scan(_roots(loras))

    found = [[one.name[0] for one in group] for group in library.duplicates()]

    assert found == [["c", "d"], ["a", "b"]]


def test_a_vae_among_checkpoints_is_no_checkpoint(library: Library, tmp_path: Path) -> None:
    model(tmp_path / "ckpt" / "a.safetensors", "one")
    model(tmp_path / "ckpt" / "a.vae.safetensors", "two")

    library.scan(_roots(tmp_path / "ckpt", kind=ModelType.CHECKPOINT))

    assert [one.name for one in library.files(kind=ModelType.VAE)] == ["a.vae.safetensors"]
    assert [one.name for one in library.files(kind=ModelType.CHECKPOINT)] == ["a.safetensors"]


def test_a_name_that_cannot_be_shown_is_left_out(library: Library, loras: Path) -> None:
    (loras / "a\nb.safetensors").write_bytes(b"x")
    (loras / os.fsdecode(b"bad\xff.safetensors")).write_bytes(b"x")

    assert library.scan(_roots(loras)) == ScanReport()


def test_a_file_not_in_the_record_is_not_found(library: Library, loras: Path) -> None:
    path = model(loras / "a.safetensors")
    with pytest.raises(NotFound, match="models scan"):
        library.file(path)
    library.scan(_roots(loras))
    assert library.file(path).path == path


def _scan_elsewhere(home: Path, loras: Path, number: int) -> None:
    library = Library(home)
    for _ in range(5):
        library.scan(_roots(loras))
        model(loras / f"of-{number}.safetensors", f"of {number}")
    library.scan(_roots(loras))


def test_processes_that_scan_at_once_do_not_harm_each_other(tmp_path: Path, loras: Path) -> None:
    for number in range(30):
        model(loras / f"{number}.safetensors", str(number))
    context = multiprocessing.get_context("spawn")
    others = [
        context.Process(target=_scan_elsewhere, args=(tmp_path / "home", loras, number))
        for number in range(3)
    ]
    for one in others:
        one.start()
    for one in others:
        one.join(50)

    assert [one.exitcode for one in others] == [0, 0, 0]
    library = Library(tmp_path / "home")
    library.scan(_roots(loras))
    assert len(library.files()) == 33
    assert all(one.sha256 == identify(one.path).sha256 for one in library.files())


def test_threads_may_share_a_library(library: Library, loras: Path) -> None:
    for number in range(10):
        model(loras / f"{number}.safetensors", str(number))
    errors: list[BaseException] = []

    def work() -> None:
        try:
            library.scan(_roots(loras))
            library.record_use(library.files())
        except BaseException as error:  # noqa: BLE001  # shown by the assertion
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()

    assert errors == []
    assert {one.uses for one in library.files()} == {4}


def test_the_record_may_be_deleted(tmp_path: Path, loras: Path) -> None:
    model(loras / "a.safetensors")
    Library(tmp_path / "home").scan(_roots(loras))
    shutil.rmtree(tmp_path / "home")

    again = Library(tmp_path / "home")

    assert again.scan(_roots(loras)).hashed == 1


def test_a_damaged_record_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "models.db").write_bytes(b"no database at all" * 100)

    with pytest.raises(CatalogueError, match="move the file away and run: stablequeue models scan"):
        Library(tmp_path)


def test_a_record_of_a_newer_release_is_refused(tmp_path: Path) -> None:
    Library(tmp_path)
    with closing(sqlite3.connect(tmp_path / "models.db")) as raw:
        raw.execute("PRAGMA user_version = 99")

    with pytest.raises(CatalogueTooNew, match="update StableQueue"):
        Library(tmp_path)


def test_an_older_record_is_brought_up_to_date_and_a_copy_kept(tmp_path: Path) -> None:
    Library(tmp_path)
    path = tmp_path / "models.db"

    def step(raw: sqlite3.Connection) -> None:
        raw.execute("ALTER TABLE care ADD COLUMN stars INTEGER NOT NULL DEFAULT 0")

    open_database(path, [step])
    open_database(path, [step])

    with closing(sqlite3.connect(path)) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (2,)
        assert raw.execute("SELECT count(stars) FROM care").fetchone() == (0,)
        assert raw.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    with closing(sqlite3.connect(tmp_path / "models-version-1.db")) as raw:
        assert raw.execute("PRAGMA user_version").fetchone() == (1,)


def test_a_step_that_fails_changes_nothing(tmp_path: Path) -> None:
    Library(tmp_path)

    def step(raw: sqlite3.Connection) -> None:
        raw.execute("DROP TABLE care")
        raw.execute("nonsense")

    with pytest.raises(CatalogueError):
        open_database(tmp_path / "models.db", [step])

    assert Library(tmp_path).files() == []


def test_everything_told_of_a_file_is_plain_data(library: Library, loras: Path) -> None:
    model(loras / "a.safetensors")
    library.scan(_roots(loras))

    data: dict[str, Any] = json.loads(json.dumps(library.files()[0].to_json()))

    assert data["kind"] == "lora"
    assert data["autov2"] == data["sha256"][:10]
