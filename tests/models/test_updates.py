"""Which models have newer versions: against the fake Civitai."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import SourceUnreachable
from stablequeue.models.kinds import ModelType
from stablequeue.models.records import ModelFile
from stablequeue.models.sources.asking import ApiTries
from stablequeue.models.sources.civitai import Civitai
from stablequeue.models.sources.civitai_answers import CivitaiModel
from stablequeue.models.updates import UpdateReport, check_updates, newer
from stablequeue.source_settings import CivitaiSettings
from tests.fakes.model_files import safetensors
from tests.models.conftest import CivitaiSite

DATA = safetensors(3_000, seed=1)


def here(name: str = "a", **known: Any) -> ModelFile:
    return ModelFile(
        path=Path("/m") / name, root=Path("/m"), name=name, kind=ModelType.LORA, **known
    )


async def checked(civitai: CivitaiSite, tmp_path: Path, *files: ModelFile) -> UpdateReport:
    settings = CivitaiSettings(
        base_url=civitai.url,
        fallback_url="",
        hosts=("127.0.0.1",),
        loopback=True,
        requests_per_s=1000,
        burst=1000,
        cache_s=0,
        missing_s=0,
    )
    tries = ApiTries(tries=1, most_failures=1, first_wait_s=0.001, patience_s=0.0)
    async with Civitai(settings, tmp_path, tries=tries) as client:
        return await check_updates(client, files)


def add(civitai: CivitaiSite, version_id: int, published: str, **version: Any) -> dict[str, Any]:
    """Put a version on the page of model 500 and return its file."""
    data = DATA if version_id == 600 else safetensors(3_000, seed=version_id)
    file = civitai.fake.add_file(data, version_id=version_id, file_id=version_id + 100)
    civitai.fake.models[500]["modelVersions"][0] |= {"publishedAt": published, **version}
    return file


async def test_a_newer_version_of_the_same_base_is_an_update(
    civitai: CivitaiSite, tmp_path: Path
) -> None:
    file = add(civitai, 600, "2026-02-02")
    add(civitai, 601, "2026-03-03", name="v2")
    add(civitai, 602, "2026-04-04", baseModel="Flux.1 D")
    add(civitai, 603, "2026-01-01", name="older")

    by_sidecar = here(model_id=500, version_id=600)
    by_bytes = here(sha256=file["hashes"]["SHA256"].lower())
    for known in (by_sidecar, by_bytes):
        report = await checked(civitai, tmp_path, known)

        told = [(one.version_id, one.have, one.same_base) for one in report.updates]
        assert told == [(602, 600, False), (601, 600, True)]
        assert report.updates[1].reference == "civitai:500@601"
        assert report.updates[1].to_json()["name"] == "v2"
        assert (report.checked, report.unknown, report.gone) == (1, (), ())


async def test_pony_and_sdxl_are_one_base_for_updates(civitai: CivitaiSite, tmp_path: Path) -> None:
    add(civitai, 600, "2026-02-02", baseModel="SDXL 1.0")
    add(civitai, 601, "2026-03-03", baseModel="Pony")

    [one] = (await checked(civitai, tmp_path, here(model_id=500, version_id=600))).updates

    assert one.same_base


async def test_the_newest_that_is_here_counts(civitai: CivitaiSite, tmp_path: Path) -> None:
    for version_id in (600, 601):
        add(civitai, version_id, f"2026-02-{version_id - 590}")
    both = (
        here("old", model_id=500, version_id=600),
        here("new", model_id=500, version_id=601),
    )

    report = await checked(civitai, tmp_path, *both)

    assert report.updates == ()
    assert report.checked == 1
    asked = [one for one in civitai.fake.seen if "/models/500" in str(one)]
    assert len(asked) == 1


async def test_unpublished_and_paid_versions_are_told_apart(
    civitai: CivitaiSite, tmp_path: Path
) -> None:
    add(civitai, 600, "2026-02-02")
    add(civitai, 601, "2026-03-03", status="Draft")
    add(civitai, 602, "2026-04-04", paidAccess={"permanent": True})

    [one] = (await checked(civitai, tmp_path, here(model_id=500, version_id=600))).updates

    assert (one.version_id, one.early_access) == (602, True)


async def test_what_civitai_does_not_know_or_no_longer_has_is_listed(
    civitai: CivitaiSite, tmp_path: Path
) -> None:
    gone = here("gone", model_id=404, version_id=1)
    unknown = here("unknown", sha256="ab" * 32)
    unhashed = here("unhashed")

    report = await checked(civitai, tmp_path, gone, unknown, unhashed, here("bad", problem="cut"))

    assert report.gone == (gone,)
    assert report.unknown == (unknown, unhashed)


async def test_a_refusal_of_one_model_does_not_end_the_check(
    civitai: CivitaiSite, tmp_path: Path
) -> None:
    add(civitai, 600, "2026-02-02")
    add(civitai, 601, "2026-03-03")
    civitai.fake.faults.append("region")

    report = await checked(
        civitai,
        tmp_path,
        here("first", model_id=404, version_id=1),
        here("second", model_id=500, version_id=600),
    )

    assert [ident for ident, _ in report.problems] == [404]
    assert [one.version_id for one in report.updates] == [601]


async def test_a_civitai_that_cannot_be_asked_ends_the_check(tmp_path: Path) -> None:
    settings = CivitaiSettings(
        base_url="http://127.0.0.1:9", fallback_url="", hosts=("127.0.0.1",), loopback=True
    )
    tries = ApiTries(tries=1, most_failures=1)
    async with Civitai(settings, tmp_path, tries=tries) as client:
        with pytest.raises(SourceUnreachable):
            await check_updates(client, [here(model_id=1, version_id=1)])


@given(
    st.lists(
        st.tuples(st.integers(1, 20), st.sampled_from(["", "2026-01-01", "2026-02-02"])),
        unique_by=lambda one: one[0],
        max_size=10,
    ),
    st.sets(st.integers(1, 25), min_size=1, max_size=4),
)
def test_no_update_is_here_or_told_twice(versions: list[tuple[int, str]], mine: set[int]) -> None:
    model = CivitaiModel.model_validate(
        {
            "id": 1,
            "name": "m",
            "modelVersions": [
                {"id": ident, "publishedAt": when, "status": "Published"}
                for ident, when in versions
            ],
        }
    )

    found = newer(model, [(here(str(one)), one) for one in mine])

    ids = [one.version_id for one in found]
    assert len(ids) == len(set(ids))
    assert not set(ids) & mine
    assert set(ids) <= {ident for ident, _ in versions}
    newest = max(versions, key=lambda one: (one[1], one[0]), default=(0, ""))[0]
    if newest in mine:
        assert found == []
