"""The client of Civitai's API against the fake, one test a trap of the reference."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from pydantic import SecretStr

from stablequeue.errors import (
    AccessDenied,
    DownloadDisabled,
    LoginNeeded,
    ModelGone,
    NoSuitableFile,
    RateLimited,
    RegionBlocked,
    SourceUnreachable,
)
from stablequeue.models.sources import Civitai, Search, Wanted
from stablequeue.models.sources.asking import ApiTries
from stablequeue.models.sources.civitai_answers import (
    EMPTY_SHA256,
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
)
from stablequeue.models.sources.pace import Pace
from stablequeue.source_settings import CivitaiSettings
from tests.fakes.civitai import TOKEN, fixture
from tests.fakes.model_files import safetensors
from tests.models.conftest import CivitaiSite

TINY = safetensors(300)


class Clock:
    """Waits that take no time, and are remembered."""

    def __init__(self) -> None:
        self.waited: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.waited.append(seconds)


def settings_of(site: CivitaiSite, **changes: Any) -> CivitaiSettings:
    plain = CivitaiSettings(
        base_url=site.url,
        fallback_url="",
        hosts=("127.0.0.1", "localhost"),
        token_hosts=("127.0.0.1",),
        loopback=True,
        requests_per_s=1000.0,
        burst=1000,
    )
    return plain.model_copy(update=changes)


Opener = Callable[..., Civitai]


@pytest.fixture
async def opened(civitai: CivitaiSite, tmp_path: Path) -> AsyncIterator[Opener]:
    clients: list[Civitai] = []
    clock = Clock()

    def make(**changes: Any) -> Civitai:
        client = Civitai(
            settings_of(civitai, **changes),
            tmp_path / "cache",
            tries=ApiTries(first_wait_s=0.001, longest_wait_s=0.001),
            pause=clock.pause,
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.__aexit__(None, None, None)


async def test_a_model_is_read_with_its_versions_and_files(opened: Opener) -> None:
    model = await opened().model(9900101)

    assert model is not None
    assert (model.name, model.type, model.creator["username"]) == (
        "Lantern Fish XL",
        "Checkpoint",
        "testmaker",
    )
    newest = model.version()
    assert newest is not None
    assert (newest.id, newest.model_id, newest.model.type) == (9910202, 9900101, "Checkpoint")
    assert newest.files[0].size == 6938040680
    assert newest.files[0].sha256.startswith("11563a038d")
    assert model.raw["nsfwLevel"] == 5


async def test_two_files_of_one_version_may_have_one_name(opened: Opener) -> None:
    version = await opened().version(9910202)

    assert version is not None
    assert len({file.name for file in version.files[:2]}) == 1
    assert version.files[0].id != version.files[1].id


async def test_what_does_not_exist_is_none_not_an_error(opened: Opener) -> None:
    client = opened()

    assert await client.model(1) is None
    assert await client.version(1) is None
    assert await client.version_by_hash("ab" * 32) is None


@pytest.mark.parametrize("name", ["SHA256", "AutoV2", "AutoV3", "CRC32"])
async def test_a_version_is_found_by_any_hash_and_the_file_by_the_same(
    civitai: CivitaiSite, opened: Opener, name: str
) -> None:
    file = civitai.fake.add_file(TINY)

    version = await opened().version_by_hash(file["hashes"][name].lower())

    assert version is not None
    assert version.id == 600
    assert version.files[0].has_hash(file["hashes"][name].lower())


async def test_the_hash_of_nothing_is_never_asked_for(civitai: CivitaiSite, opened: Opener) -> None:
    client = opened()

    assert await client.version_by_hash(EMPTY_SHA256) is None
    assert await client.version_by_hash(EMPTY_SHA256[:12]) is None
    assert await client.versions_by_hashes([EMPTY_SHA256, "short", ""]) == []
    assert civitai.fake.seen == []


async def test_many_hashes_are_asked_for_in_batches_and_nulls_and_repetitions_are_dropped(
    civitai: CivitaiSite, opened: Opener
) -> None:
    first = civitai.fake.add_file(TINY)["hashes"]["SHA256"]
    second = civitai.fake.add_file(safetensors(301), file_id=701)["hashes"]["SHA256"]
    asked = [first, second, *(f"{number:064x}" for number in range(150))]

    versions = await opened().versions_by_hashes(asked)

    assert [version.id for version in versions] == [600]
    assert len(civitai.fake.seen) == 2


async def test_ids_of_a_whole_library_come_in_one_request(
    civitai: CivitaiSite, opened: Opener
) -> None:
    sha256 = civitai.fake.add_file(TINY)["hashes"]["SHA256"].lower()

    found = await opened().ids_by_hashes([sha256, *(f"{n:064x}" for n in range(5000))])

    assert [(one.model_id, one.model_version_id, one.hash) for one in found] == [(500, 600, sha256)]
    assert len(civitai.fake.seen) == 1


async def test_the_key_goes_as_a_header_and_never_into_an_address(
    civitai: CivitaiSite, opened: Opener
) -> None:
    me = await opened(token=SecretStr(TOKEN)).me()

    assert (me.username, me.status) == ("testmaker", "active")
    assert civitai.fake.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert civitai.fake.seen[0].headers["user-agent"].startswith("StableQueue/")


async def test_a_bad_key_is_found_out_by_asking_who_it_is(opened: Opener) -> None:
    with pytest.raises(LoginNeeded):
        await opened(token=SecretStr("expired-key")).me()
    with pytest.raises(LoginNeeded, match="no API key"):
        await opened().me()


async def test_an_answer_is_not_asked_for_twice(civitai: CivitaiSite, opened: Opener) -> None:
    await opened().model(9900101)
    await opened().model(9900101)

    assert len(civitai.fake.seen) == 1


async def test_an_old_answer_is_asked_for_again_with_its_etag(
    civitai: CivitaiSite, opened: Opener
) -> None:
    client = opened(cache_s=0.0)
    first = await client.model(9900101)

    again = await client.model(9900101)

    assert again == first
    assert civitai.fake.seen[1].headers["if-none-match"].startswith('W/"')


async def test_not_found_is_believed_for_a_while_only(civitai: CivitaiSite, opened: Opener) -> None:
    client = opened(missing_s=3600.0)
    assert await client.version(600) is None
    civitai.fake.add_file(TINY)
    assert await client.version(600) is None
    assert len(civitai.fake.seen) == 1

    later = opened(missing_s=0.0)
    assert await later.version(600) is not None


async def test_clearing_the_cache_forgets_what_was_not_found(
    civitai: CivitaiSite, opened: Opener
) -> None:
    client = opened()
    assert await client.version(600) is None
    civitai.fake.add_file(TINY)

    assert client.cache.clear() == 1
    assert await client.version(600) is not None


async def test_a_damaged_cache_is_as_good_as_none(
    civitai: CivitaiSite, opened: Opener, tmp_path: Path
) -> None:
    client = opened()
    await client.model(9900101)
    for path in (tmp_path / "cache").iterdir():
        path.write_text('{"key": 3')

    assert await client.model(9900101) is not None
    assert len(civitai.fake.seen) == 2


async def test_what_the_first_host_does_not_have_is_asked_of_the_second(
    civitai: CivitaiSite, opened: Opener
) -> None:
    civitai.fake.add_file(TINY)
    civitai.fake.faults.append("by-hash")  # the first says 404

    version = await opened(fallback_url=civitai.url).version(600)

    assert version is not None
    assert len(civitai.fake.seen) == 2


async def test_a_file_is_downloaded_from_the_host_that_knew_its_version(
    civitai: CivitaiSite, opened: Opener
) -> None:
    civitai.fake.add_file(TINY)
    second = civitai.url.replace("127.0.0.1", "localhost")
    client = opened(fallback_url=second)
    for address in ("model-versions/600", "models/500"):
        civitai.fake.faults.append("by-hash")  # the first says 404

        offer = await client.offer(Wanted(url=f"https://civitai.com/{address}"))

        assert offer.url.startswith(f"{second}/api/download/models/600")


def test_an_answer_cannot_say_where_it_came_from() -> None:
    read = CivitaiVersion.model_validate({"id": 1, "foundAt": "https://evil.example"})

    assert read.found_at == ""


@pytest.mark.parametrize("fault", ["busy", "broken", "search overloaded"])
async def test_what_passes_is_asked_again(civitai: CivitaiSite, opened: Opener, fault: str) -> None:
    civitai.fake.faults.extend([fault] * 2)

    assert await opened().model(9900101) is not None
    assert len(civitai.fake.seen) == 3


async def test_it_does_not_ask_for_ever(civitai: CivitaiSite, opened: Opener) -> None:
    civitai.fake.faults.extend(["broken"] * 20)

    with pytest.raises(SourceUnreachable):
        await opened().model(9900101)

    assert len(civitai.fake.seen) == 5


@pytest.mark.parametrize(
    ("case", "kind"),
    [("region", RegionBlocked), ("cloudflare", AccessDenied), ("download: no grant", AccessDenied)],
)
async def test_refusals_are_not_asked_again(
    civitai: CivitaiSite, opened: Opener, case: str, kind: type[Exception]
) -> None:
    civitai.fake.faults.append(case)

    with pytest.raises(kind):
        await opened().model(9900101)

    assert len(civitai.fake.seen) == 1


async def test_retry_after_is_waited_for_unless_it_is_too_long(
    civitai: CivitaiSite, tmp_path: Path
) -> None:
    clock = Clock()
    async with Civitai(settings_of(civitai), tmp_path / "c", pause=clock.pause) as client:
        civitai.fake.faults.append("search overloaded")
        assert await client.model(9900101) is not None
        assert 1.0 < clock.waited[0] <= 2.0

        civitai.fake.faults.append("download: too many")
        with pytest.raises(RateLimited, match="Again at"):
            await client.version(9910202)


async def test_a_search_follows_cursors_through_empty_pages_and_never_a_whole_url(
    civitai: CivitaiSite, opened: Opener
) -> None:
    search = Search(query="Item 3", types=("LORA", "LoCon", "TextualInversion"), page_size=1)

    found = [model.name async for model in opened().search(search)]

    assert found == ["Test Item 3"]
    assert len(civitai.fake.seen) >= 3


def test_search_parameters_repeat_lists_and_leave_false_out() -> None:
    found = Search(types=("LORA", "LoCon"), nsfw=False).parameters()

    assert [value for name, value in found if name == "types"] == ["LORA", "LoCon"]
    assert "nsfw" not in dict(found)


async def test_a_picture_tells_its_data_in_either_shape(opened: Opener) -> None:
    client = opened()

    flat, wrapped = await client.image(9930001), await client.image(9930002)

    assert flat is not None
    assert wrapped is not None
    assert flat.generation["Model hash"] == "11563a038d"
    assert flat.model_version_ids == [9910202, 9910301]
    assert wrapped.generation["civitaiResources"][1]["modelVersionId"] == 9910301
    assert await client.image(5) is None


async def test_an_offer_is_built_of_ids_not_of_the_answers_own_addresses(
    civitai: CivitaiSite, opened: Opener
) -> None:
    offer = await opened().offer(
        Wanted(
            url="https://civitai.com/models/9900101/some-slug-123?modelVersionId=9910202&token=x"
        )
    )

    assert offer.url == f"{civitai.url}/api/download/models/9910202?fileId=9920001"
    assert offer.ident == "civitai:9910202/9920001"
    assert (offer.kind, offer.size) == ("checkpoint", 6938040680)
    assert offer.facts["version"]["id"] == 9910202


async def test_a_models_page_means_its_newest_version(opened: Opener) -> None:
    offer = await opened().offer(Wanted(url="http://www.civitai.com/models/9900101"))

    assert offer.ident.startswith("civitai:9910202/")


async def test_what_may_not_be_downloaded_is_said_before_trying(
    civitai: CivitaiSite, opened: Opener
) -> None:
    civitai.fake.add_file(TINY)
    version = civitai.fake.models[500]["modelVersions"][0]
    wanted = Wanted(url="https://civitai.com/model-versions/600")
    version["usageControl"] = "Generation"
    with pytest.raises(DownloadDisabled):
        await opened(cache_s=0).offer(wanted)
    version["usageControl"] = "Download"
    civitai.fake.models[500]["mode"] = "Archived"
    with pytest.raises(ModelGone, match="archived"):
        await opened(cache_s=0).offer(wanted)
    with pytest.raises(ModelGone, match="no version 601"):
        await opened().offer(Wanted(url="https://civitai.com/model-versions/601"))
    with pytest.raises(NoSuitableFile):
        await opened().offer(Wanted(url="https://civitai.com/images/5"))


@pytest.mark.parametrize(
    "name", ["model", "model_version_by_hash", "model_version_early_access", "models_page"]
)
def test_every_field_may_be_missing_or_null(name: str) -> None:
    def holed(data: Any, hole: Any) -> Any:
        if isinstance(data, dict):
            pairs = cast("dict[str, Any]", data).items()
            return {key: holed(value, hole) for key, value in pairs}
        return [hole, *cast("list[Any]", data)] if isinstance(data, list) else hole

    holes: list[Any] = [None, [], {}, "text", -1]
    for hole in holes:
        data = holed(fixture(name), hole)
        each = [{**fixture(name), key: hole} for key in fixture(name)]
        for kind in (CivitaiModel, CivitaiVersion, CivitaiImage):
            for one in (data, *each):
                kind.model_validate(one)


def test_a_postgres_list_is_a_list_and_early_access_has_two_shapes() -> None:
    item = fixture("models_page")["items"][0]
    assert CivitaiModel.model_validate(item).allow_commercial_use == ["Image", "RentCivit"]

    early = fixture("model_version_early_access")
    early["paidAccess"]["endsAt"] = "2099-01-01T00:00:00.000Z"
    newer = CivitaiVersion.model_validate(early)
    older = CivitaiVersion.model_validate(
        {**early, "paidAccess": None, "earlyAccessEndsAt": "2099-01-01T00:00:00.000Z"}
    )
    assert newer.early_until == older.early_until
    assert newer.for_sale
    past = {**early, "paidAccess": {"permanent": False, "endsAt": "2020-01-01T00:00:00Z"}}
    assert not CivitaiVersion.model_validate(past).for_sale


def test_the_bulk_answers_of_the_reference_are_read() -> None:
    entries = fixture("by_hash_bulk")["response"]

    read = [CivitaiVersion.model_validate(one) for one in entries if one]

    assert read[0].id == read[1].id == 9910202
    assert None in entries


async def test_requests_keep_their_pace() -> None:
    now, waited = 0.0, list[float]()

    async def pause(seconds: float) -> None:
        waited.append(seconds)

    pace = Pace(1.0, 2, clock=lambda: now, pause=pause)
    for _ in range(4):
        await pace.turn()

    assert waited == [1.0, 2.0]


async def test_a_key_does_not_show_in_what_is_raised_or_cached(
    civitai: CivitaiSite, opened: Opener, tmp_path: Path
) -> None:
    client = opened(token=SecretStr(TOKEN))
    await client.model(9900101)
    civitai.fake.faults.append("download: no grant")
    with pytest.raises(AccessDenied) as caught:
        await client.version(9910202)

    assert TOKEN not in str(caught.value)
    assert TOKEN not in repr(client.access)
    kept = [path.read_text() + path.name for path in (tmp_path / "cache").iterdir()]
    assert kept
    assert all(TOKEN not in text for text in kept)
