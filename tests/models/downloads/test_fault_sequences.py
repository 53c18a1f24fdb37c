"""Whatever goes wrong in whatever order: the right bytes, or the right error, and nothing left."""

import asyncio
import hashlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from stablequeue.errors import (
    AccessDenied,
    DownloadDisabled,
    DownloadError,
    EarlyAccess,
    LoginNeeded,
    ModelGone,
    NotAModelFile,
    RateLimited,
    RegionBlocked,
    SourceUnreachable,
    WrongBytes,
)
from stablequeue.model_names import SUFFIXES
from stablequeue.models.downloads import Progress, download, give_up
from tests.fakes.model_files import safetensors
from tests.fakes.storage import Fault
from tests.models.conftest import QUICK, CivitaiSite

SIZE = 200_000
DATA = safetensors(SIZE, seed=1)
CALLS = 4
"""How often the task layer would call again after an error that may pass."""

PASSING = {"busy", "broken", "download: not found"}
REFUSALS: dict[str, type[DownloadError]] = {
    "download: login": LoginNeeded,
    "download: disabled": DownloadDisabled,
    "download: early access (current": EarlyAccess,
    "download: no grant": AccessDenied,
    "download: archived": ModelGone,
    "download: too many": RateLimited,
    "region": RegionBlocked,
    "cloudflare": AccessDenied,
    "sign-in page": NotAModelFile,
}
SPOILING: dict[str, type[DownloadError]] = {
    "html": NotAModelFile,
    "json": NotAModelFile,
    "corrupt": WrongBytes,
    "replaced": WrongBytes,
    "short": WrongBytes,  # told twice in a row: it is believed
    "long": WrongBytes,
    "expired": AccessDenied,  # refused as soon as it was signed, three times
}

lengths = st.integers(0, SIZE)
storage_faults = st.one_of(
    st.builds(Fault, st.sampled_from(["cut", "cut", "cut", "cut", "stall", "drip"]), lengths),
    st.builds(
        Fault,
        st.sampled_from(
            [
                "whole",
                "sizeless",
                "expired",
                "busy",
                "broken",
                "tagless",
                "shifted",
                "short",
                "long",
                "replaced",
            ]
        ),
    ),
    st.builds(Fault, st.sampled_from(["html", "json", "corrupt", "busy", "broken", "expired"])),
)
passing = st.lists(st.sampled_from(sorted(PASSING)), max_size=2)
refused = st.one_of(
    *[passing] * 8,
    st.sampled_from(sorted(REFUSALS)).map(lambda one: [one]),
)


@dataclass(frozen=True)
class Course:
    """What goes wrong, how many streams try, and whether the store knows ranges."""

    faults: list[Fault]
    refusals: list[str]
    streams: int = 1
    ranges: bool = True


courses = st.builds(
    Course,
    st.lists(storage_faults, max_size=7),
    refused,
    st.sampled_from([1, 2, 4]),
    st.sampled_from([True, True, True, False]),
)
LIMITS = replace(QUICK, stall_s=0.05, first_wait_s=0.0)


class Watch:
    """Looks at the folder at each step: nothing unfinished may have a model's name."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.looks = folder, 0

    def __call__(self, _: Progress) -> None:
        self.looks += 1
        names = [path.name for path in self.folder.iterdir()]
        assert [name for name in names if name.casefold().endswith(SUFFIXES)] == []


async def as_the_task_layer_does(
    civitai: CivitaiSite, target: Path, streams: int, locks: Path, watch: Watch
) -> DownloadError | None:
    """Download, call again after what may pass, give up in the end; return the last error."""
    offer = civitai.offer(DATA)
    limits = replace(LIMITS, streams=streams)
    last: DownloadError | None = None
    for _ in range(CALLS):
        try:
            await download(
                offer,
                target,
                civitai.access(),
                locks=locks,
                limits=limits,
                progress=watch,
                pause=asyncio.sleep,
            )
        except DownloadError as error:
            last = error
            if not error.retryable:
                return last
        else:
            return None
    await give_up(target, locks=locks)
    return last


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@settings(
    max_examples=200,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(course=courses)
@example(course=Course([], []))
@example(course=Course([Fault("replaced"), Fault("whole")], [], streams=4))
def test_any_sequence_of_faults_ends_in_the_right_bytes_or_the_right_error(
    civitai: CivitaiSite, folder: Path, course: Course
) -> None:
    fake = civitai.fake
    fake.reset()
    fake.models.pop(500, None)
    fake.faults.extend(course.refusals)
    fake.storage.faults.extend(course.faults)
    fake.storage.ranges = course.ranges
    fake.storage.pace_s = 0.0005  # so that several streams have something to do
    models = folder / "models"
    target = models / "model.safetensors"
    models.mkdir(exist_ok=True)
    target.unlink(missing_ok=True)

    error = asyncio.run(
        as_the_task_layer_does(civitai, target, course.streams, folder / "locks", Watch(models))
    )

    event(f"{type(error).__name__}, {course.streams} streams, {len(fake.storage.seen)} requests")
    left = [path.name for path in models.iterdir()]
    if error is None:
        assert left == ["model.safetensors"]
        assert hashlib.sha256(target.read_bytes()).digest() == hashlib.sha256(DATA).digest()
        return
    assert left == []
    allowed: set[type[DownloadError]] = {SourceUnreachable, RateLimited}
    allowed |= {REFUSALS[name] for name in course.refusals if name in REFUSALS}
    allowed |= {SPOILING[fault.kind] for fault in course.faults if fault.kind in SPOILING}
    if "download: not found" in course.refusals:
        allowed.add(ModelGone)  # three in a row, over all calls
    assert type(error) in allowed, (error, course)
