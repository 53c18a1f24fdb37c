"""Storing: what lies in the spool becomes pictures, once; what cannot be kept now stays there."""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from stablequeue.catalogue import Asset, Attempt, AttemptState
from stablequeue.engines.base import (
    Kind,
    LoraUse,
    RawAsset,
    RawResult,
    Resolution,
    ServerInfo,
    Ticket,
)
from stablequeue.errors import CatalogueBusy, JobFailed, ResultLost, StoreUnavailable
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.spool import attempt_folder, prepare, write_result
from stablequeue.pipeline.storing import store, used_models
from stablequeue.storage import FolderStoreConfig, open_store
from tests.pipeline.conftest import Bench
from tests.pipeline.scripted import picture
from tests.support.drawing import simple

Make = Callable[[Path], RawAsset]


def spooled(bench: Bench, job: Job, *make: Make, index: int = 0, **more: Any) -> Attempt:
    """Leave a picture's result complete in the spool, as `generate` does."""
    fields = {"server": "gpu-a", "engine": "comfyui"}
    fields |= {name: more.pop(name) for name in ("server", "engine") if name in more}
    attempt = bench.catalogue.begin_attempt(
        job.id,
        index,
        server=fields["server"],
        engine=fields["engine"],
        make_ticket=lambda number: Ticket(engine="comfyui", remote_id=f"{index}-{number}"),
    )
    folder = attempt_folder(job.spool, index, attempt.attempt)
    prepare(folder)
    write_result(folder, RawResult(assets=tuple(one(folder) for one in make), **more))
    assert bench.catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
    return attempt


def painted(name: str = "0.png", colour: str = "teal", **more: Any) -> Make:
    return lambda folder: picture(folder, name, colour, **more)


def files(bench: Bench) -> list[Path]:
    """Every file of the store."""
    folder = bench.settings.pictures_folder
    return [path for path in folder.rglob("*") if path.is_file()]


def content(bench: Bench, asset: Asset) -> bytes:
    """What the store gives for an asset."""
    with open_store(bench.settings).open(asset.key) as stream:
        return stream.read()


async def test_a_picture_is_stored_with_everything_known_about_it(bench: Bench) -> None:
    bench.engine.info = ServerInfo(
        app_type="comfyui", flavour="ComfyUI", version="0.9", gpu="A card", sandbox=True
    )
    job = bench.job(count=2, seed=40, prompt="a harbour at night", tags=["night"])
    effective = {"models": ["base.safetensors"], "seed": 41}
    first = spooled(bench, job, painted(colour="red"))
    spooled(bench, job, painted(), index=1, effective=effective)

    done = await store(job)

    assert [(one.index, one.ordinal, one.seed) for one in done.assets] == [(0, 0, 40), (1, 0, 41)]
    asset = done.assets[1]
    assert hashlib.sha256(content(bench, asset)).hexdigest() == asset.sha256
    assert asset.original_sha256 == asset.sha256
    assert (asset.width, asset.height, asset.mime) == (64, 48, "image/png")
    assert (asset.engine, asset.engine_version, asset.gpu) == ("comfyui", "0.9", "A card")
    assert (asset.server, asset.name, asset.tags) == ("gpu-a", "theirs/0.png", ("night",))
    assert asset.models == {"base.safetensors": ""}
    assert asset.params["request"]["seed"] == 41
    assert asset.params["effective"] == effective
    assert asset.params["resolution"]["checkpoint"] == "base.safetensors"
    assert asset.params["sandbox"] is True
    thumbnail = bench.settings.thumbnails / asset.sha256[:2] / f"{asset.sha256}.webp"
    with Image.open(thumbnail) as image:
        assert image.format == "WEBP"
    assert (done.warnings, done.censored) == ((), False)
    assert not job.spool.exists()
    assert bench.states(job) == ["0-1 stored", "1-1 stored"]
    assert bench.catalogue.attempts(job.id)[0].id == first.id

    again = await store(bench.job(job.id))
    assert again == done
    assert len(files(bench)) == 2


async def test_a_picture_of_a_template_is_found_by_the_prompt_of_what_was_run(bench: Bench) -> None:
    template = simple(prompt="a harbour at night")
    job = bench.job(prompt="", mode="workflow", workflow=template)
    spooled(bench, job, painted())
    text = {"class_type": "CLIPTextEncode", "inputs": {"text": "a harbour at night"}}
    job.resolution = replace(job.resolution or Resolution(), graph={"2": text})

    done = await store(job)

    assert done.assets[0].params["request"]["workflow"] == template
    assert "graph" not in done.assets[0].params["resolution"]
    assert [one.prompt for one in bench.catalogue.assets(job.id)] == ["a harbour at night"]


async def test_a_workflow_s_own_seed_is_the_one_recorded(bench: Bench) -> None:
    workflow = {"3": {"class_type": "KSampler", "inputs": {"seed": 11}}}
    job = bench.job(mode="workflow", workflow=workflow, prompt="")
    spooled(bench, job, painted(), effective={"seed": 11})

    (asset,) = (await store(job)).assets

    assert asset.seed == 11
    assert "-s11-" in asset.key
    assert "seed" not in asset.params["request"], "asked for, it would replace every seed there is"


async def test_a_seed_too_large_for_the_catalogue_is_no_reason_to_lose_a_picture(
    bench: Bench,
) -> None:
    job = bench.job(mode="workflow", workflow={"3": {"class_type": "KSampler", "inputs": {}}})
    spooled(bench, job, painted(), effective={"seed": 2**64 - 1})

    (asset,) = (await store(job)).assets

    assert asset.seed == -1
    assert asset.params["effective"]["seed"] == 2**64 - 1


async def test_pictures_not_collected_yet_are_left_alone(bench: Bench) -> None:
    job = bench.job(count=3)
    spooled(bench, job, painted())
    bench.catalogue.begin_attempt(
        job.id,
        1,
        server="gpu-a",
        engine="comfyui",
        make_ticket=lambda _: Ticket(engine="comfyui", remote_id="1-1"),
    )

    done = await store(job)

    assert [one.index for one in done.assets] == [0]
    assert bench.states(job) == ["0-1 stored", "1-1 open"]


async def test_leftovers_of_a_picture_stored_before_a_crash_are_removed(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job, painted())
    await store(job)
    picture(attempt_folder(job.spool, 0, 1))

    await store(job)

    assert not job.spool.exists()


async def test_a_result_that_is_not_here_any_more_is_lost_and_may_be_looked_for_again(
    bench: Bench,
) -> None:
    job = bench.job()
    spooled(bench, job, painted())
    shutil.rmtree(job.spool)

    with pytest.raises(ResultLost, match=r"picture 1 is not in .*stablequeue retry") as lost:
        await store(job)

    assert lost.value.retryable
    assert bench.states(job) == ["0-1 collected"], "the server may have it yet"


async def test_what_a_server_withheld_is_censored_also_when_it_is_stored_by_a_later_run(
    bench: Bench,
) -> None:
    job = bench.job(count=2)
    spooled(bench, job, censored=True)
    spooled(bench, job, painted(), index=1)

    done = await store(job)
    assert (done.censored, len(done.assets)) == (True, 1)

    again = await store(bench.job(job.id))
    assert again.censored
    assert bench.states(job) == ["0-1 stored", "1-1 stored"]


async def test_a_picture_left_blank_is_kept_and_censored(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job, painted(colour="black"), censored=True)

    done = await store(job)

    assert done.censored
    assert len(done.assets) == 1


async def test_a_result_without_any_file_is_a_failure(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job)

    with pytest.raises(JobFailed, match="it made no file at all"):
        await store(job)

    (attempt,) = bench.catalogue.attempts(job.id)
    assert (attempt.state, attempt.error) == (AttemptState.FAILED, "job_failed")


def broken(folder: Path) -> RawAsset:
    asset = picture(folder, "0.png", "teal")
    whole = asset.path.read_bytes()
    asset.path.write_bytes(whole[: len(whole) * 2 // 3])
    return asset


def empty(folder: Path) -> RawAsset:
    asset = picture(folder, "0.png", "teal")
    asset.path.write_bytes(b"")
    return asset


@pytest.mark.parametrize("make", [broken, empty])
@pytest.mark.parametrize("output", ["original", "webp"])
async def test_a_damaged_picture_is_a_failure_and_nothing_of_it_is_stored(
    bench: Bench, make: Make, output: str
) -> None:
    job = bench.job(output={"format": output})
    spooled(bench, job, make)

    with pytest.raises(JobFailed, match=r"picture 1: the file it made is damaged: ") as failed:
        await store(job)

    (attempt,) = bench.catalogue.attempts(job.id)
    assert (attempt.state, attempt.note) == (AttemptState.FAILED, str(failed.value))
    assert bench.catalogue.assets(job.id) == []
    assert not bench.settings.pictures_folder.exists()


async def test_warnings_of_server_and_job_are_told_once_each(bench: Bench) -> None:
    job = bench.job(count=2)
    job.warnings.append("the job's own")
    for index in range(2):
        spooled(bench, job, painted(), index=index, warnings=("a script was left out", "slow"))

    done = await store(job)

    assert done.warnings == ("the job's own", "a script was left out", "slow")
    assert done.assets[0].warnings == ("a script was left out", "slow")


async def test_jobs_with_equal_bytes_share_one_file(bench: Bench) -> None:
    jobs = [bench.job(), bench.job()]
    for job in jobs:
        spooled(bench, job, painted())

    (first,), (second,) = [(await store(job)).assets for job in jobs]

    assert (first.sha256, first.key) == (second.sha256, second.key)
    assert len(files(bench)) == 1
    blob = bench.catalogue.blob("pictures", first.sha256)
    assert blob
    assert blob.refs == 2


async def test_equal_files_of_one_picture_share_one_file(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job, painted("0.png"), painted("1.png"), painted("2.png", "red"))

    done = await store(job)

    assert [one.ordinal for one in done.assets] == [0, 1, 2]
    assert done.assets[0].key == done.assets[1].key
    assert {path.name for path in files(bench)} == {Path(one.key).name for one in done.assets}
    assert len(files(bench)) == 2


async def test_bytes_whose_file_somebody_deleted_are_written_again_for_both(bench: Bench) -> None:
    jobs = [bench.job(), bench.job()]
    for job in jobs:
        spooled(bench, job, painted())
    (first,) = (await store(jobs[0])).assets
    (path,) = files(bench)
    path.unlink()

    (second,) = (await store(jobs[1])).assets

    for asset in (first, bench.catalogue.asset(second.id)):
        assert hashlib.sha256(content(bench, asset)).hexdigest() == asset.sha256
    assert len(files(bench)) == 1


async def test_bytes_whose_file_somebody_changed_are_written_beside_it(bench: Bench) -> None:
    jobs = [bench.job(), bench.job()]
    for job in jobs:
        spooled(bench, job, painted())
    (first,) = (await store(jobs[0])).assets
    (path,) = files(bench)
    path.write_bytes(b"edited")

    (second,) = (await store(jobs[1])).assets

    for asset in (bench.catalogue.asset(first.id), second):
        assert hashlib.sha256(content(bench, asset)).hexdigest() == asset.sha256
    assert path.read_bytes() == b"edited", "what somebody made of it is left alone"
    assert len(files(bench)) == 2


async def test_an_empty_thumbnail_a_power_cut_left_is_made_anew(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job, painted())
    digest = hashlib.sha256((job.spool / "0-1" / "0.png").read_bytes()).hexdigest()
    thumbnail = bench.settings.thumbnails / digest[:2] / f"{digest}.webp"
    thumbnail.parent.mkdir(parents=True)
    thumbnail.touch()

    await store(job)

    assert thumbnail.stat().st_size > 0


@pytest.mark.parametrize("wanted", ["webp", "jpeg"])
async def test_a_picture_is_encoded_as_wanted_and_keeps_its_text(bench: Bench, wanted: str) -> None:
    job = bench.job(output={"format": wanted, "quality": 70})
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a harbour\nSteps: 2, Seed: 7")
    spooled(bench, job, painted(pnginfo=info))
    original = hashlib.sha256((job.spool / "0-1" / "0.png").read_bytes()).hexdigest()

    (asset,) = (await store(job)).assets

    assert asset.mime == f"image/{wanted}"
    assert asset.key.endswith(".webp" if wanted == "webp" else ".jpg")
    assert asset.original_sha256 == original != asset.sha256
    assert asset.infotext == "a harbour\nSteps: 2, Seed: 7"
    assert hashlib.sha256(content(bench, asset)).hexdigest() == asset.sha256


async def test_text_too_long_for_a_jpeg_is_left_out_with_a_warning(bench: Bench) -> None:
    job = bench.job(output={"format": "jpeg"})
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", '{"a": "' + "x" * 70_000 + '"}')
    spooled(bench, job, painted(pnginfo=info))

    done = await store(job)

    (warning,) = done.warnings
    assert warning == "not kept in the jpeg, for lack of room: workflow"


async def test_what_cannot_be_encoded_so_is_kept_as_it_is(bench: Bench) -> None:
    def moving(folder: Path) -> RawAsset:
        frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
        frames[0].save(folder / "0.gif", save_all=True, append_images=frames[1:])
        return RawAsset(path=folder / "0.gif", kind=Kind.IMAGE, mime="image/gif")

    job = bench.job(output={"format": "webp"})
    spooled(bench, job, moving)

    (asset,) = (await store(job)).assets

    assert asset.mime == "image/gif"


async def test_what_the_server_told_about_a_file_goes_before_what_is_in_it(bench: Bench) -> None:
    def told(folder: Path) -> RawAsset:
        asset = picture(folder)
        return replace(asset, name="x" * 900, infotext="Steps: 9", meta={"node": "9"})

    job = bench.job()
    spooled(bench, job, told)

    (asset,) = (await store(job)).assets

    assert (asset.infotext, asset.params["meta"]) == ("Steps: 9", {"node": "9"})
    assert len(asset.name) == 300


async def test_a_result_an_earlier_run_fetched_elsewhere_is_not_said_to_be_of_this_server(
    bench: Bench,
) -> None:
    job = bench.job()
    spooled(bench, job, painted(), server="gpu-b", engine="forge")

    (asset,) = (await store(job)).assets

    assert (asset.server, asset.engine, asset.engine_version) == ("gpu-b", "forge", "")
    assert asset.params["resolution"] == {}
    assert asset.models == {}


async def test_a_server_may_say_itself_what_it_ran_on(bench: Bench) -> None:
    job = bench.job()
    spooled(bench, job, painted(), effective={"version": "f2", "gpu": "theirs"})

    (asset,) = (await store(job)).assets

    assert (asset.engine_version, asset.gpu) == ("f2", "theirs")


async def test_a_full_store_parks_and_the_spool_keeps_the_picture_until_there_is_room(
    bench: Bench,
) -> None:
    full = FolderStoreConfig(folder=bench.settings.pictures_folder, keep_free_mib=2**40)
    job = bench.job(store=open_store(full))
    spooled(bench, job, painted())

    with pytest.raises(StoreUnavailable, match="Free some space"):
        await store(job)
    assert bench.states(job) == ["0-1 collected"]
    assert files(bench) == []

    done = await store(bench.job(job.id))
    assert len(done.assets) == 1
    assert bench.engine.calls == []


@pytest.mark.parametrize("folder", ["thumbnails", "locks"])
async def test_a_folder_of_ours_that_cannot_be_written_parks_and_fails_nothing(
    bench: Bench, folder: str
) -> None:
    job = bench.job()
    spooled(bench, job, painted())
    in_the_way = bench.settings.home / folder
    in_the_way.write_text("a file")

    with pytest.raises(StoreUnavailable, match="cannot write there"):
        await store(job)
    assert bench.states(job) == ["0-1 collected"]

    in_the_way.unlink()
    assert len((await store(job)).assets) == 1


async def test_a_catalogue_that_is_busy_leaves_everything_for_the_next_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = bench.job()
    spooled(bench, job, painted())

    def busy(*_arguments: Any) -> Any:
        raise CatalogueBusy("locked")

    with monkeypatch.context() as held:
        held.setattr(bench.catalogue, "record_assets", busy)
        with pytest.raises(CatalogueBusy):
            await store(job)
    assert bench.states(job) == ["0-1 collected"]

    assert len((await store(job)).assets) == 1
    assert len(files(bench)) == 1


RESOLUTION = Resolution(
    checkpoint="sd/base.safetensors [abcdef12]",
    vae="v.pt",
    loras=(LoraUse(name="ink", weight=1.0, text_weight=1.0),),
)


@pytest.mark.parametrize(
    ("told", "models"),
    [
        ({"base": "abc", "ink": ""}, {"base": "abc", "ink": "", "v.pt": ""}),
        (["base", "V.safetensors"], {"base": "", "V.safetensors": "", "ink": ""}),
        (["other.v2"], {"other.v2": "", RESOLUTION.checkpoint: "", "v.pt": "", "ink": ""}),
        (None, {RESOLUTION.checkpoint: "", "v.pt": "", "ink": ""}),
        ("nonsense", {RESOLUTION.checkpoint: "", "v.pt": "", "ink": ""}),
    ],
)
def test_models_are_those_told_and_those_asked_for_each_once(
    told: Any, models: dict[str, str]
) -> None:
    assert used_models({"models": told}, RESOLUTION) == models


def test_models_of_another_server_are_only_those_told() -> None:
    assert used_models({"models": {"a": 1}}, None) == {"a": "1"}
    assert used_models({}, None) == {}
