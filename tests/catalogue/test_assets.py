"""Assets, the blobs they share, and the trash."""

from collections.abc import Mapping
from typing import Any

import pytest

from stablequeue.catalogue import AttemptState, Catalogue
from stablequeue.engines.base import Kind
from stablequeue.errors import CatalogueBusy, NotFound, Refused
from tests.catalogue.making import accepted, begun, new_asset, stored

PARAMS: Mapping[str, Any] = {"Steps": 20, "nested": {"a": [1.5, None, True]}, "ü": "\ud800\0"}


def test_an_asset_reads_back_as_recorded(catalogue: Catalogue) -> None:
    job = accepted(catalogue, "a black cat", tags=["Demo", "x"])
    attempt = begun(catalogue, job.job_id, 2)
    new = new_asset(
        name="ComfyUI_00001_.png",
        infotext="a black cat\nNegative prompt: dog\nSteps: 20",
        params=PARAMS,
        models={"sdxl/Juggernaut XL.safetensors": "ab" * 32, "detail": ""},
        seed=2**53 - 1,
        engine_version="f2.0",
        gpu="NVIDIA GeForce RTX 3060",
        original_sha256="cd" * 32,
        warnings=("one", "two"),
    )

    (asset,) = catalogue.record_assets(attempt.id, [new])

    assert catalogue.assets(job.job_id) == [asset]
    assert catalogue.asset(asset.id) == asset
    for name in (
        *("ordinal", "kind", "mime", "sha256", "size", "width", "height", "store", "key", "name"),
        *("infotext", "params", "models", "seed", "engine", "engine_version", "gpu", "server"),
        *("original_sha256", "warnings"),
    ):
        assert getattr(asset, name) == getattr(new, name), name
    assert (asset.job_id, asset.index, asset.attempt_id) == (job.job_id, 2, attempt.id)
    assert (asset.prompt, asset.tags, asset.trashed_at) == ("a black cat", ("Demo", "x"), None)
    settled = catalogue.last_attempt(job.job_id, 2)
    assert settled is not None
    assert settled.state is AttemptState.STORED


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_of_asset_is_recorded(catalogue: Catalogue, kind: Kind) -> None:
    asset = stored(catalogue, kind=kind, mime="application/x")
    assert catalogue.search(kind=kind) == [asset]
    assert all(catalogue.search(kind=other) == [] for other in set(Kind) - {kind})


def test_recording_twice_records_once(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    files = [new_asset("a"), new_asset("b", ordinal=1)]
    first = catalogue.record_assets(attempt.id, files)
    second = catalogue.record_assets(attempt.id, files)
    assert first == second == catalogue.assets(job.job_id)
    assert [asset.ordinal for asset in first] == [0, 1]
    assert_refs(catalogue, {"a": 1, "b": 1})


def test_a_picture_another_attempt_stored_is_not_stored_again(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    slow = begun(catalogue, job.job_id)
    catalogue.update_attempt(slow.id, AttemptState.CANCELLING, note="asked to stop")
    quick = begun(catalogue, job.job_id)
    first = catalogue.record_assets(quick.id, [new_asset("quick")])

    second = catalogue.record_assets(slow.id, [new_asset("slow")])

    assert second == first == catalogue.assets(job.job_id)
    assert catalogue.blob("pictures", new_asset("slow").sha256) is None
    late = catalogue.attempts(job.job_id)[0]
    assert late.state is AttemptState.STORED
    assert late.note == "asked to stop; another attempt had stored this picture"


def test_a_job_that_made_nothing_is_stored_all_the_same(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    assert catalogue.record_assets(attempt.id, []) == []
    with pytest.raises(Refused):
        begun(catalogue, job.job_id)


def test_files_that_contradict_each_other_are_not_recorded_at_all(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    with pytest.raises(ValueError, match="ordinal"):
        catalogue.record_assets(attempt.id, [new_asset("a"), new_asset("b")])
    assert catalogue.assets(job.job_id) == []
    assert catalogue.blob("pictures", new_asset("a").sha256) is None


def test_equal_bytes_of_two_jobs_are_one_blob_and_the_first_key_stays(catalogue: Catalogue) -> None:
    first = stored(catalogue, content="same", key="first.png")
    second = stored(catalogue, content="same", key="second.png")
    elsewhere = stored(catalogue, content="same", key="third.png", store="s3")

    assert (first.key, second.key, elsewhere.key) == ("first.png", "first.png", "third.png")
    blob = catalogue.blob("pictures", first.sha256)
    assert blob is not None
    assert (blob.key, blob.refs, blob.size, blob.mime) == ("first.png", 2, 4, "image/png")


def test_equal_bytes_within_one_picture_count_each(catalogue: Catalogue) -> None:
    job = accepted(catalogue)
    attempt = begun(catalogue, job.job_id)
    catalogue.record_assets(attempt.id, [new_asset("same"), new_asset("same", ordinal=1)])
    assert_refs(catalogue, {"same": 2})


def test_trash_hides_and_restore_brings_back(catalogue: Catalogue) -> None:
    kept, thrown = stored(catalogue, "one cat"), stored(catalogue, "two cat")

    gone = catalogue.trash(thrown.id)

    assert gone.trashed_at is not None
    assert catalogue.trash(thrown.id) == gone
    assert catalogue.search("cat") == catalogue.search() == [kept]
    assert catalogue.assets(thrown.job_id) == []
    assert catalogue.trashed() == [gone]
    assert catalogue.asset(thrown.id) == gone
    assert catalogue.restore(thrown.id) == thrown
    assert catalogue.restore(thrown.id) == thrown
    assert catalogue.search("cat") == catalogue.search() == [thrown, kept]
    assert catalogue.trashed() == []


def test_purging_deletes_rows_and_names_the_files_nobody_needs(catalogue: Catalogue) -> None:
    shared = [stored(catalogue, content="shared") for _ in range(2)]
    alone = stored(catalogue, content="alone")
    for asset in (shared[0], alone):
        catalogue.trash(asset.id)

    assert catalogue.purge_trash(older_than_s=3600) == []
    (unused,) = catalogue.purge_trash(older_than_s=0)

    assert (unused.sha256, unused.key, unused.refs) == (alone.sha256, alone.key, 0)
    assert catalogue.search() == [shared[1]]
    assert catalogue.blob("pictures", alone.sha256) is None
    assert_refs(catalogue, {"shared": 1})
    with pytest.raises(NotFound):
        catalogue.restore(alone.id)
    assert catalogue.purge_trash(older_than_s=0) == [unused], "until its file is deleted"
    assert catalogue.forget_blob(unused)
    assert not catalogue.forget_blob(unused)
    assert catalogue.purge_trash(older_than_s=0) == []


def test_the_id_of_a_purged_asset_is_never_given_again(catalogue: Catalogue) -> None:
    asset = stored(catalogue)
    catalogue.trash(asset.id)
    catalogue.purge_trash(older_than_s=0)
    assert stored(catalogue).id > asset.id


def test_a_file_about_to_be_deleted_is_not_relied_upon(catalogue: Catalogue) -> None:
    asset = stored(catalogue, content="same", key="old.png")
    blob = catalogue.blob("pictures", asset.sha256)
    assert blob is not None
    catalogue.trash(asset.id)
    (unused,) = catalogue.purge_trash(older_than_s=0)
    attempt = begun(catalogue, accepted(catalogue).job_id)

    with pytest.raises(CatalogueBusy, match="store it again"):  # its file was not written
        catalogue.record_assets(attempt.id, [new_asset("same", key="new.png", blob_id=blob.id)])
    with pytest.raises(CatalogueBusy, match="store it again"):  # its file is the one deleted
        catalogue.record_assets(attempt.id, [new_asset("same", key="old.png")])
    (again,) = catalogue.record_assets(attempt.id, [new_asset("same", key="new.png")])

    assert again.key == "new.png"
    assert not catalogue.forget_blob(unused), "it lives again, with another file"
    assert_refs(catalogue, {"same": 1})


def test_a_file_deleted_meanwhile_is_not_relied_upon(catalogue: Catalogue) -> None:
    asset = stored(catalogue, content="same")
    blob = catalogue.blob("pictures", asset.sha256)
    assert blob is not None
    catalogue.trash(asset.id)
    for unused in catalogue.purge_trash(older_than_s=0):
        catalogue.forget_blob(unused)
    attempt = begun(catalogue, accepted(catalogue).job_id)

    with pytest.raises(CatalogueBusy):
        catalogue.record_assets(attempt.id, [new_asset("same", blob_id=blob.id)])
    assert catalogue.record_assets(attempt.id, [new_asset("same")])


def test_a_file_that_is_there_may_be_relied_upon(catalogue: Catalogue) -> None:
    asset = stored(catalogue, content="same")
    blob = catalogue.blob("pictures", asset.sha256)
    assert blob is not None
    second = stored(catalogue, content="same", blob_id=blob.id)
    assert second.key == asset.key
    assert_refs(catalogue, {"same": 2})


def test_an_asset_is_found_by_the_beginning_of_its_hash(catalogue: Catalogue) -> None:
    first = stored(catalogue, content="x", sha256="abcdef01" + "0" * 56)
    second = stored(catalogue, content="y", sha256="abcdef02" + "0" * 56)
    digits = stored(catalogue, content="z", sha256="12345678" + "0" * 56)
    newest = stored(catalogue, content="x", sha256=first.sha256)

    assert catalogue.asset(first.sha256) == newest, "of equal bytes the newest"
    assert catalogue.asset("ABCDEF02") == second
    assert catalogue.asset("sha256:abcdef02") == second
    assert catalogue.asset("12345678") == digits
    assert catalogue.asset(str(first.id)) == first
    with pytest.raises(Refused, match="more than one"):
        catalogue.asset("abcdef")


def test_an_asset_that_is_not_there_is_not_found(catalogue: Catalogue) -> None:
    asset = stored(catalogue)
    for wanted in (10**6, 10**30, -1, "", "abc", "zz" * 32, asset.sha256 + "0", "%", "\0", "٣"):
        with pytest.raises(NotFound):
            catalogue.asset(wanted)
    for change in (catalogue.trash, catalogue.restore):
        with pytest.raises(NotFound):
            change(10**6)


def assert_refs(catalogue: Catalogue, expected: Mapping[str, int]) -> None:
    for content, refs in expected.items():
        blob = catalogue.blob("pictures", new_asset(content).sha256)
        assert blob is not None
        assert blob.refs == refs, content


def test_a_file_that_was_moved_is_found_where_it_lies_now(catalogue: Catalogue) -> None:
    first, second = stored(catalogue, content="same"), stored(catalogue, content="same")
    blob = catalogue.blob("pictures", first.sha256)
    assert blob

    assert catalogue.move_blob(blob, "2026-11-21/elsewhere.png")
    assert not catalogue.move_blob(blob, "2026-11-21/late.png"), "it is not there any more"

    for asset in (first, second):
        assert catalogue.asset(asset.id).key == "2026-11-21/elsewhere.png"
