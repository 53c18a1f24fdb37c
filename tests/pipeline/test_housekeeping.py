"""Tidying: the trash, files nobody counts, results nobody stored."""

import os
import time
from pathlib import Path

import pytest

from stablequeue.catalogue import Blob, JobState, Outcome
from stablequeue.errors import NotFound, Refused, StoreUnavailable
from stablequeue.ids import new_job_id
from stablequeue.pipeline.generate import generate
from stablequeue.pipeline.housekeeping import DAY_S, Tidied, tidy
from stablequeue.pipeline.job import Job, check_job_id
from stablequeue.pipeline.storing import store
from stablequeue.storage import Store, open_store
from tests.pipeline.conftest import Bench
from tests.pipeline.scripted import picture


def tidied(bench: Bench, **settings: float) -> Tidied:
    """Tidy once, with these settings."""
    changed = bench.settings.model_copy(update=settings)

    def named(name: str) -> Store:
        assert name == "pictures"
        return open_store(bench.settings)

    return tidy(changed, bench.catalogue, named)


async def made(bench: Bench, colour: str = "teal") -> Job:
    """Make a picture."""
    job = bench.job()
    bench.engine.colours = {"0-1": colour}
    await generate(job)
    await store(job)
    bench.catalogue.finish(job.id, Outcome(state=JobState.COMPLETED))
    return job


def there(bench: Bench) -> list[Path]:
    """Every stored file and thumbnail."""
    folders = (bench.settings.pictures_folder, bench.settings.thumbnails)
    return [path for folder in folders for path in folder.rglob("*") if path.is_file()]


async def test_what_lay_in_the_trash_long_enough_goes_with_its_file_and_thumbnail(
    bench: Bench,
) -> None:
    job = await made(bench)
    kept = await made(bench, "red")
    (asset,) = bench.catalogue.assets(job.id)
    bench.catalogue.trash(asset.id)

    assert tidied(bench, keep_trash_days=1) == Tidied(files=0, spooled=0)
    assert len(there(bench)) == 4, "it can be brought back"
    assert tidied(bench, keep_trash_days=0) == Tidied(files=1, spooled=0)

    (left,) = bench.catalogue.assets(kept.id)
    assert {path.stem for path in there(bench)} == {Path(left.key).stem, left.sha256}
    with pytest.raises(NotFound):
        bench.catalogue.asset(asset.id)
    assert tidied(bench, keep_trash_days=0) == Tidied(files=0, spooled=0)


async def test_a_file_another_picture_shares_stays(bench: Bench) -> None:
    first, second = await made(bench), await made(bench)
    (asset,) = bench.catalogue.assets(first.id)
    bench.catalogue.trash(asset.id)

    assert tidied(bench, keep_trash_days=0).files == 0

    (left,) = bench.catalogue.assets(second.id)
    assert open_store(bench.settings).exists(left.key, sha256=left.sha256)


async def test_a_store_that_does_not_answer_keeps_its_files_for_the_next_round(
    bench: Bench,
) -> None:
    (asset,) = bench.catalogue.assets((await made(bench)).id)
    bench.catalogue.trash(asset.id)

    def away(name: str) -> Store:
        raise StoreUnavailable(name, "it is away")

    with pytest.raises(StoreUnavailable):
        tidy(bench.settings.model_copy(update={"keep_trash_days": 0}), bench.catalogue, away)
    assert len(there(bench)) == 2

    assert tidied(bench).files == 1, "however long the trash is kept: it has left it"
    assert there(bench) == []


async def test_bytes_stored_again_before_their_file_was_deleted_stay(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    (asset,) = bench.catalogue.assets((await made(bench)).id)
    bench.catalogue.trash(asset.id)
    (unused,) = bench.catalogue.purge_trash(older_than_s=0)
    again = await made(bench)
    purge = bench.catalogue.purge_trash

    def late(*, older_than_s: float) -> list[Blob]:
        assert purge(older_than_s=older_than_s) == []
        return [unused]

    monkeypatch.setattr(bench.catalogue, "purge_trash", late)  # as seen just before
    assert tidied(bench).files == 0

    (left,) = bench.catalogue.assets(again.id)
    assert open_store(bench.settings).exists(left.key, sha256=left.sha256)


def spooled(bench: Bench, name: str, days: float) -> Path:
    """Leave a spool folder of this name, last changed so many days ago."""
    folder = bench.settings.spool / name
    picture(folder / "0-1")
    old = time.time() - days * DAY_S
    os.utime(folder, (old, old))
    return folder


async def test_old_results_of_jobs_that_are_over_go_and_no_others(bench: Bench) -> None:
    over, young, waiting = bench.job(), bench.job(), bench.job()
    for job in (over, young):
        bench.catalogue.finish(job.id, Outcome(state=JobState.FAILED))
    old = [spooled(bench, over.id, 40), spooled(bench, new_job_id(), 40)]
    kept = [
        spooled(bench, young.id, 2),
        spooled(bench, waiting.id, 40),
        spooled(bench, "somebody-elses", 40),
    ]
    (bench.settings.spool / "note.txt").write_text("a file")

    assert tidied(bench, keep_runs_days=30).spooled == 2

    assert not any(folder.exists() for folder in old)
    assert all(folder.exists() for folder in kept)


async def test_without_a_spool_there_is_nothing_to_do(bench: Bench) -> None:
    assert tidied(bench) == Tidied(files=0, spooled=0)


@pytest.mark.parametrize("job_id", ["", "..", "a/b", "ABCDEF", "{x}", "0" * 32, "x" * 500])
def test_only_a_uuid_in_its_usual_form_is_a_jobs_id(job_id: str) -> None:
    with pytest.raises(Refused, match="is not a job's id"):
        check_job_id(job_id)


def test_a_jobs_id_is_one() -> None:
    job_id = new_job_id()
    assert check_job_id(job_id) == job_id


async def test_pictures_have_seeds_in_a_row_and_the_inputs_as_kept(bench: Bench) -> None:
    source = bench.settings.input_folders[0] / "start.png"
    picture(source.parent, source.name)
    job = bench.job(mode="img2img", init_image=str(source), count=2, seed=5)

    (first, second) = (job.engine_job(index, 1) for index in range(2))

    assert (first.seed, second.seed) == (5, 6)
    assert first.inputs["init_image"].read_bytes() == source.read_bytes()
    assert set(first.inputs) == {"init_image"}
    assert first.key != second.key != job.engine_job(1, 2).key
