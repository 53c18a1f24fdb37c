"""Downloads from a fake Civitai over real sockets: what goes right, what goes wrong, what stays."""

import asyncio
import errno
import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from stablequeue.errors import (
    AccessDenied,
    DiskFull,
    DownloadBusy,
    DownloadDisabled,
    DownloadError,
    EarlyAccess,
    LoginNeeded,
    ModelGone,
    NotAModelFile,
    RateLimited,
    RegionBlocked,
    SourceUnreachable,
    TargetTaken,
    UnsafeAddress,
    WrongBytes,
)
from stablequeue.models.downloads import Downloaded, Limits, Progress, download, give_up, sweep
from stablequeue.models.downloads.parts import Part
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.network import Reach
from stablequeue.models.sources.offer import Offer
from tests.fakes.civitai import TOKEN
from tests.fakes.model_files import safetensors
from tests.fakes.serving import serve
from tests.fakes.storage import Fault, FaultKind
from tests.models.conftest import LOOPBACK, QUICK, CivitaiSite

SIZE = 100_000
DATA = safetensors(SIZE)


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def telling(event: asyncio.Event) -> Callable[[Progress], None]:
    """Return a progress callback that sets `event`."""

    def tell(_: Progress) -> None:
        event.set()

    return tell


class Fetcher:
    """Downloads into one folder."""

    def __init__(self, civitai: CivitaiSite, folder: Path, locks: Path) -> None:
        self.civitai, self.folder, self.locks = civitai, folder, locks
        self.target = folder / "model.safetensors"
        self.waited: list[float] = []

    async def pause(self, seconds: float) -> None:
        self.waited.append(seconds)

    async def get(
        self, offer: Offer, *, limits: Limits = QUICK, access: Access | None = None, **more: Any
    ) -> Downloaded:
        options: dict[str, Any] = {"pause": self.pause, "locks": self.locks, **more}
        way = access or self.civitai.access()
        return await download(offer, self.target, way, limits=limits, **options)

    def streams(self, count: int) -> Limits:
        return replace(QUICK, streams=count)


@pytest.fixture
def fetcher(civitai: CivitaiSite, tmp_path: Path, locks: Path) -> Fetcher:
    return Fetcher(civitai, tmp_path / "models", locks)


@pytest.mark.parametrize("streams", [1, 3, 4])
async def test_a_file_is_fetched_verified_and_named(fetcher: Fetcher, streams: int) -> None:
    offer = fetcher.civitai.offer(DATA)

    done = await fetcher.get(offer, limits=fetcher.streams(streams))

    assert fetcher.target.read_bytes() == DATA
    assert done == Downloaded(
        path=fetcher.target, size=SIZE, sha256=hashlib.sha256(DATA).hexdigest(), fetched=True
    )
    assert left_in(fetcher.folder) == ["model.safetensors"]


async def test_several_streams_each_fetch_a_part_of_their_own(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("stall", 20_000))  # the others do the rest

    await fetcher.get(offer, limits=fetcher.streams(4))

    asked = {seen.headers["range"] for seen in fetcher.civitai.fake.storage.seen}
    assert len(asked) >= 4
    assert len(fetcher.civitai.fake.seen) == 1  # the signed address serves them all


async def test_the_key_goes_to_civitai_and_not_to_its_storage(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.login_needed = {600}

    await fetcher.get(offer, access=fetcher.civitai.access(TOKEN))

    assert fetcher.civitai.fake.seen[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert all("authorization" not in seen.headers for seen in fetcher.civitai.fake.storage.seen)


async def test_neither_key_nor_signed_address_is_logged_or_kept_in_a_file(
    fetcher: Fetcher, caplog: pytest.LogCaptureFixture
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 40_000))
    fetcher.civitai.fake.storage.faults.extend([Fault("broken")] * 20)

    with caplog.at_level("DEBUG"), pytest.raises(SourceUnreachable) as caught:
        await fetcher.get(offer, access=fetcher.civitai.access(TOKEN))

    kept = (fetcher.folder / "model.safetensors.part.json").read_text()
    for text in (caplog.text, str(caught.value), kept, repr(fetcher.civitai.access(TOKEN))):
        assert TOKEN not in text
        assert all(
            f"Signature={number}" not in text for number in fetcher.civitai.fake.storage.valid
        )
    assert "Signature=***" in caplog.text


async def test_nothing_is_asked_with_head_or_compressed_or_by_a_librarys_name(
    fetcher: Fetcher,
) -> None:
    await fetcher.get(fetcher.civitai.offer(DATA))

    for seen in [*fetcher.civitai.fake.seen, *fetcher.civitai.fake.storage.seen]:
        assert seen.method == "GET"
        assert seen.headers["accept-encoding"] == "identity"
        assert seen.headers["user-agent"].startswith("StableQueue/")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("cut", 0),
        Fault("cut", 10),
        Fault("cut", 50_000),
        Fault("stall", 0),
        Fault("stall", 30_000),
        Fault("drip", 30_000),
        Fault("whole"),
        Fault("expired"),
        Fault("busy"),
        Fault("broken"),
        Fault("long"),
        Fault("short"),
        Fault("shifted"),
        Fault("tagless"),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.after}",
)
@pytest.mark.parametrize("streams", [1, 4])
async def test_what_passes_is_overcome(fetcher: Fetcher, fault: Fault, streams: int) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.extend([Fault("cut", 20_000), fault])

    await fetcher.get(offer, limits=fetcher.streams(streams))

    assert fetcher.target.read_bytes() == DATA
    assert left_in(fetcher.folder) == ["model.safetensors"]


async def test_a_cut_transfer_continues_where_it_ended_if_the_file_is_still_the_same(
    fetcher: Fetcher,
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 60_000))

    await fetcher.get(offer)

    second = fetcher.civitai.fake.storage.seen[1].headers
    assert int(second["range"].removeprefix("bytes=").split("-")[0]) > 0
    assert second["if-range"].startswith('"')


async def test_an_expired_address_is_renewed_and_the_transfer_continued(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.extend([Fault("cut", 60_000), Fault("expired")])

    await fetcher.get(offer)

    assert len(fetcher.civitai.fake.seen) == 2
    assert fetcher.civitai.fake.storage.seen[-1].headers["range"] != "bytes=0-"
    assert fetcher.target.read_bytes() == DATA


async def test_a_replaced_file_is_fetched_anew_and_refused_by_its_hash(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.extend([Fault("cut", 60_000), Fault("replaced")])

    with pytest.raises(WrongBytes, match="SHA-256"):
        await fetcher.get(offer)

    assert left_in(fetcher.folder) == []


async def test_a_replaced_file_without_promised_hash_is_the_new_one_from_its_first_byte(
    fetcher: Fetcher,
) -> None:
    offer = Offer.from_json({**fetcher.civitai.offer(DATA).to_json(), "sha256": ""})
    fetcher.civitai.fake.storage.faults.extend([Fault("cut", 60_000), Fault("replaced")])

    await fetcher.get(offer, limits=fetcher.streams(4))

    assert (
        fetcher.target.read_bytes()
        == fetcher.civitai.fake.storage.files["model/700/model.safetensors"].data
    )


@pytest.mark.parametrize(
    ("case", "kind"),
    [
        ("download: login", LoginNeeded),
        ("download: disabled", DownloadDisabled),
        ("download: early access (current", EarlyAccess),
        ("download: early access (as 401", EarlyAccess),
        ("download: no grant", AccessDenied),
        ("download: archived", ModelGone),
        ("download: too many", RateLimited),
        ("region", RegionBlocked),
        ("cloudflare", AccessDenied),
        ("sign-in page", NotAModelFile),
    ],
)
async def test_each_refusal_of_civitai_is_an_error_of_its_own_and_leaves_nothing(
    fetcher: Fetcher, case: str, kind: type[DownloadError]
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.faults.append(case)

    with pytest.raises(kind) as caught:
        await fetcher.get(offer)

    await give_up(fetcher.target, locks=fetcher.locks)
    assert left_in(fetcher.folder) == []
    assert len(fetcher.civitai.fake.seen) == 1  # and is not asked again
    assert "<" not in str(caught.value)


async def test_a_refusal_tells_the_one_thing_that_helps(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.login_needed = {600}

    with pytest.raises(LoginNeeded, match="make an API key"):
        await fetcher.get(offer)
    with pytest.raises(LoginNeeded, match="not accepted"):
        await fetcher.get(offer, access=fetcher.civitai.access("a-key-that-has-expired"))
    fetcher.civitai.fake.login_needed = set()
    fetcher.civitai.fake.early_until = {600: "2031-06-01T00:00:00.000Z"}
    with pytest.raises(EarlyAccess, match="2031-06-01 00:00 UTC") as early:
        await fetcher.get(offer)
    assert early.value.until is not None


async def test_too_many_downloads_names_a_time_and_is_worth_retrying_then(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.faults.append("download: too many")

    with pytest.raises(RateLimited, match="Again at") as caught:
        await fetcher.get(offer)

    assert caught.value.retryable
    assert caught.value.retry_at is not None
    assert fetcher.waited == []


async def test_not_found_may_be_a_passing_fault_and_is_asked_again_twice(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.faults.extend(["download: not found"] * 2)
    await fetcher.get(offer)
    fetcher.target.unlink()

    fetcher.civitai.fake.faults.extend(["download: not found"] * 3)
    with pytest.raises(ModelGone):
        await fetcher.get(offer)


@pytest.mark.parametrize("kind", ["html", "json"])
async def test_a_page_or_an_error_instead_of_the_file_is_refused(
    fetcher: Fetcher, kind: FaultKind
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault(kind))

    with pytest.raises(NotAModelFile):
        await fetcher.get(offer)

    assert left_in(fetcher.folder) == []


async def test_a_page_that_calls_itself_binary_is_found_out_by_its_first_bytes(
    fetcher: Fetcher,
) -> None:
    offer = fetcher.civitai.offer(b"<!DOCTYPE html><html>".ljust(SIZE))

    with pytest.raises(NotAModelFile, match="web page"):
        await fetcher.get(offer)

    assert left_in(fetcher.folder) == []


async def test_wrong_bytes_are_never_kept(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("corrupt"))

    with pytest.raises(WrongBytes, match="SHA-256"):
        await fetcher.get(offer)

    assert left_in(fetcher.folder) == []


async def test_a_size_other_than_promised_is_refused_before_the_file_is_fetched(
    fetcher: Fetcher,
) -> None:
    offer = Offer.from_json({**fetcher.civitai.offer(DATA).to_json(), "size": SIZE + 5})

    with pytest.raises(WrongBytes, match="were promised"):
        await fetcher.get(offer)

    assert left_in(fetcher.folder) == []


async def test_a_store_without_ranges_is_read_with_one_stream_from_the_start(
    fetcher: Fetcher,
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.ranges = False
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 30_000))

    await fetcher.get(offer, limits=fetcher.streams(4))

    assert fetcher.target.read_bytes() == DATA
    assert len(fetcher.civitai.fake.storage.seen) == 2


async def test_a_stream_that_hardly_sends_anything_counts_as_stalled(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("drip", 30_000))

    await fetcher.get(offer)

    second = fetcher.civitai.fake.storage.seen[1].headers["range"]
    assert 30_000 < int(second.removeprefix("bytes=").split("-")[0]) < 30_090


async def test_streams_the_server_does_not_want_retire_and_the_others_finish(
    fetcher: Fetcher,
) -> None:
    offer = fetcher.civitai.offer(DATA)
    storage = fetcher.civitai.fake.storage
    storage.pace_s = 0.05  # the first stream is busy while the others are refused
    storage.most_at_once = 1
    storage.faults.append(Fault("tagless"))

    limits = replace(
        QUICK, streams=4, least_split=20_000, first_wait_s=0.05, longest_wait_s=0.4
    )  # it waits in truth: the storage counts a request a moment longer than its reader does
    await fetcher.get(offer, limits=limits, pause=asyncio.sleep)

    assert fetcher.target.read_bytes() == DATA
    assert 2 < len(storage.seen) < 30  # they tried, and stopped trying


async def test_after_too_many_failures_it_gives_up_and_keeps_what_came(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 40_000))
    fetcher.civitai.fake.storage.faults.extend([Fault("broken")] * 20)

    with pytest.raises(SourceUnreachable) as caught:
        await fetcher.get(offer)

    assert caught.value.retryable
    assert left_in(fetcher.folder) == ["model.safetensors.part", "model.safetensors.part.json"]
    fetcher.civitai.fake.storage.reset()
    await fetcher.get(offer)
    assert fetcher.civitai.fake.storage.seen[0].headers["range"] != "bytes=0-"
    assert fetcher.target.read_bytes() == DATA


async def test_giving_up_removes_what_came(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 40_000))
    fetcher.civitai.fake.storage.faults.extend([Fault("broken")] * 20)
    with pytest.raises(SourceUnreachable):
        await fetcher.get(offer)

    await give_up(fetcher.target, locks=fetcher.locks)

    assert left_in(fetcher.folder) == []


async def test_a_resumed_part_of_another_file_is_not_used(fetcher: Fetcher) -> None:
    other = fetcher.civitai.offer(safetensors(SIZE, seed=9), file_id=701)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 40_000))
    fetcher.civitai.fake.storage.faults.extend([Fault("broken")] * 20)
    with pytest.raises(SourceUnreachable):
        await fetcher.get(other)
    fetcher.civitai.fake.storage.reset()

    await fetcher.get(fetcher.civitai.offer(DATA))

    assert fetcher.civitai.fake.storage.seen[0].headers["range"] == "bytes=0-"
    assert fetcher.target.read_bytes() == DATA


async def test_a_part_that_was_damaged_meanwhile_is_fetched_once_more_as_a_whole(
    fetcher: Fetcher,
) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("cut", 40_000))
    fetcher.civitai.fake.storage.faults.extend([Fault("broken")] * 20)
    with pytest.raises(SourceUnreachable):
        await fetcher.get(offer)
    part = Part(fetcher.target).path
    damaged = bytearray(part.read_bytes())
    damaged[500] ^= 1
    part.write_bytes(damaged)
    fetcher.civitai.fake.storage.reset()

    await fetcher.get(offer)

    assert fetcher.target.read_bytes() == DATA


async def test_cancelling_keeps_the_part_and_frees_the_target(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("stall", 50_000))
    begun = asyncio.Event()
    limits = replace(QUICK, stall_s=60.0)
    task = asyncio.create_task(fetcher.get(offer, limits=limits, progress=telling(begun)))
    await begun.wait()

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert "model.safetensors" not in left_in(fetcher.folder)
    done = await fetcher.get(offer, wait_s=0)
    assert done.fetched
    assert fetcher.target.read_bytes() == DATA


async def test_a_file_that_is_there_already_is_not_fetched_again(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    await fetcher.get(offer)
    fetcher.civitai.fake.reset()

    done = await fetcher.get(offer)

    assert not done.fetched
    assert done.sha256 == offer.sha256
    assert fetcher.civitai.fake.seen == []


async def test_another_file_of_that_name_is_never_touched(fetcher: Fetcher) -> None:
    fetcher.folder.mkdir()
    fetcher.target.write_bytes(b"the user's own")

    with pytest.raises(TargetTaken, match="another file"):
        await fetcher.get(fetcher.civitai.offer(DATA))

    assert fetcher.target.read_bytes() == b"the user's own"


async def test_two_that_want_one_file_fetch_it_once(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)

    both = await asyncio.gather(fetcher.get(offer), fetcher.get(offer))

    assert sorted(done.fetched for done in both) == [False, True]
    assert len(fetcher.civitai.fake.seen) == 1


async def test_who_will_not_wait_for_the_other_is_told(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.append(Fault("stall", 50_000))
    begun = asyncio.Event()
    limits = replace(QUICK, stall_s=60.0)
    first = asyncio.create_task(fetcher.get(offer, limits=limits, progress=telling(begun)))
    await begun.wait()

    with pytest.raises(DownloadBusy) as caught:
        await fetcher.get(offer, wait_s=0)

    assert caught.value.retryable
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_progress_tells_bytes_total_and_speed_up_to_the_end(fetcher: Fetcher) -> None:
    told: list[Progress] = []

    await fetcher.get(fetcher.civitai.offer(DATA), progress=told.append)

    assert told[-1].received == told[-1].total == SIZE
    assert [one.received for one in told] == sorted(one.received for one in told)
    assert told[-1].bytes_per_s > 0


async def test_without_room_nothing_is_fetched(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)

    with pytest.raises(DiskFull, match="free"):
        await fetcher.get(offer, limits=replace(QUICK, margin=1 << 60))

    assert left_in(fetcher.folder) == []
    assert fetcher.civitai.fake.seen == []


async def test_a_disk_that_fills_up_meanwhile_is_said_and_nothing_stays(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stablequeue.models.downloads.writing.Writer._put", full)

    with pytest.raises(DiskFull, match="is full"):
        await fetcher.get(fetcher.civitai.offer(DATA))

    assert left_in(fetcher.folder) == []


async def test_a_redirect_to_a_host_that_is_not_allowed_is_not_followed(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    access = Access(source="civitai", reach=Reach(("127.0.0.1",), loopback=True))

    with pytest.raises(UnsafeAddress, match="localhost"):
        await fetcher.get(offer, access=access)

    assert fetcher.civitai.fake.storage.seen == []


async def test_an_unknown_size_and_hash_are_learned_from_the_answer(fetcher: Fetcher) -> None:
    whole = fetcher.civitai.offer(DATA)
    offer = Offer.from_json({**whole.to_json(), "size": 0, "sha256": ""})

    done = await fetcher.get(offer, limits=fetcher.streams(3))

    assert (done.size, done.sha256) == (SIZE, whole.sha256)


@pytest.mark.parametrize("known", [True, False])
async def test_a_store_that_tells_no_length_is_read_to_its_end(
    fetcher: Fetcher, known: bool
) -> None:
    whole = fetcher.civitai.offer(DATA)
    offer = whole if known else Offer.from_json({**whole.to_json(), "size": 0, "sha256": ""})
    fetcher.civitai.fake.storage.faults.append(Fault("sizeless"))

    done = await fetcher.get(offer, limits=fetcher.streams(3))

    assert (done.size, done.sha256) == (SIZE, whole.sha256)
    assert len(fetcher.civitai.fake.storage.seen) == 1


async def test_storage_that_refuses_every_address_is_not_asked_for_ever(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)
    fetcher.civitai.fake.storage.faults.extend([Fault("expired")] * 10)

    with pytest.raises(AccessDenied, match="storage refuses"):
        await fetcher.get(offer)

    assert len(fetcher.civitai.fake.storage.seen) == 3
    assert left_in(fetcher.folder) == []


@pytest.mark.parametrize(
    ("location", "kind"),
    [
        ("/api/download/models/600", DownloadError),  # in circles
        ("/login?returnUrl=%2F&reason=download-auth", LoginNeeded),
        ("/model-versions/600", AccessDenied),
        ("http://localhost:1/nobody-listens", SourceUnreachable),
        ("https://10.0.0.1/private", UnsafeAddress),
        ("file:///etc/passwd", UnsafeAddress),
    ],
)
async def test_redirects_are_followed_by_our_own_rules(
    fetcher: Fetcher, location: str, kind: type[DownloadError]
) -> None:
    async def redirect(_: Request) -> Response:
        return RedirectResponse(location, 307)

    app = Starlette(routes=[Route("/api/download/models/600", redirect)])
    with serve(app) as url:
        whole = fetcher.civitai.offer(DATA).to_json()
        offer = Offer.from_json({**whole, "url": f"{url}/api/download/models/600"})

        with pytest.raises(kind) as caught:
            await fetcher.get(offer)

    assert type(caught.value) is kind
    await give_up(fetcher.target, locks=fetcher.locks)
    assert left_in(fetcher.folder) == []


async def test_a_name_taken_meanwhile_is_not_overwritten(fetcher: Fetcher) -> None:
    offer = fetcher.civitai.offer(DATA)

    def take(_: Progress) -> None:
        fetcher.target.write_bytes(b"the user's own")

    with pytest.raises(TargetTaken, match="meanwhile"):
        await fetcher.get(offer, progress=take)

    assert fetcher.target.read_bytes() == b"the user's own"
    assert left_in(fetcher.folder) == ["model.safetensors"]


async def test_sweeping_removes_only_what_is_old_and_nobody_owns(fetcher: Fetcher) -> None:
    fetcher.folder.mkdir()
    (fetcher.folder / "a.safetensors.part").write_bytes(b"x")
    (fetcher.folder / "a.safetensors.part.json").write_bytes(b"x")
    (fetcher.folder / "a.partial.txt").write_bytes(b"mine")

    assert await sweep(fetcher.folder, locks=fetcher.locks, older_than_s=3600) == []
    swept = await sweep(fetcher.folder, locks=fetcher.locks, older_than_s=-1)

    assert [path.name for path in swept] == ["a.safetensors"]
    assert left_in(fetcher.folder) == ["a.partial.txt"]


def test_the_loopback_reach_of_these_tests_reaches_nothing_else() -> None:
    assert not LOOPBACK.names("civitai.com")
