"""The spool: a result is there whole or not at all, whatever happened to its folder."""

import errno
import json
import os
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from stablequeue.catalogue import AttemptState, open_catalogue
from stablequeue.engines.base import RawResult, Ticket
from stablequeue.errors import QueueError, StoreUnavailable
from stablequeue.pipeline.generate import generate
from stablequeue.pipeline.job import Job
from stablequeue.pipeline.spool import (
    RESULT,
    attempt_folder,
    prepare,
    read_result,
    remove_attempts,
    write_result,
)
from stablequeue.pipeline.storing import store
from stablequeue.settings import Settings
from tests.pipeline.conftest import Bench
from tests.pipeline.scripted import picture

LONG = "a number of 5000 digits"
ODD: list[Any] = [
    None,
    True,
    -1,
    10**400,
    LONG,
    1e308,
    float("nan"),
    float("inf"),
    "",
    ".",
    "..",
    "../../../etc/passwd",
    "/etc/passwd",
    RESULT,
    "x" * 5000,
    "a\0b",
    "\ud800",
    "a\r\n\x1b[31mb",
    [],
    [[[[]]]],
    {},
    {"a": {"b": [None]}},
]


def whole(folder: Path) -> RawResult:
    """Spool a result with everything in it."""
    assets = (picture(folder, "0.png"), picture(folder, "1.png", "red"))
    effective = {"models": {"base": "abc"}, "version": "1", "gpu": "x", "seed": 7}
    return RawResult(assets=assets, warnings=("one",), effective=effective)


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    result = whole(tmp_path)
    assert read_result(tmp_path) is None, "not complete before it is said so"
    write_result(tmp_path, result)
    assert read_result(tmp_path) == result


def test_a_result_with_a_file_missing_is_none(tmp_path: Path) -> None:
    write_result(tmp_path, whole(tmp_path))
    (tmp_path / "1.png").unlink()
    assert read_result(tmp_path) is None


@pytest.mark.parametrize("name", ["x" * 5000, "", ".", "..", "\0", "a\0b", "/", "0-1"])
def test_a_name_no_file_can_have_is_a_damaged_result(tmp_path: Path, name: str) -> None:
    write_result(tmp_path, whole(tmp_path))
    text = (tmp_path / RESULT).read_text().replace('"0.png"', json.dumps(name))
    (tmp_path / RESULT).write_text(text)
    assert read_result(tmp_path) is None


def test_a_result_never_leads_out_of_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "0-1"
    prepare(folder)
    write_result(folder, whole(folder))
    (tmp_path / "secret.png").write_bytes(b"not ours")
    text = (folder / RESULT).read_text().replace('"0.png"', '"../secret.png"')
    (folder / RESULT).write_text(text)
    assert read_result(folder) is None


def test_what_is_left_of_a_damaged_result_is_not_in_the_way_of_the_next(tmp_path: Path) -> None:
    folder = tmp_path / "0-1"
    prepare(folder)
    result = whole(folder)
    write_result(folder, result)
    prepare(folder)
    assert read_result(folder) == result, "a whole one stays"

    (folder / "0.png").unlink()
    (folder / "0.png").mkdir()
    (folder / "1.png").unlink()
    (folder / "1.png").symlink_to("1.png")
    prepare(folder)

    assert list(folder.iterdir()) == []


def test_every_attempt_of_a_picture_is_removed_and_no_other(tmp_path: Path) -> None:
    for index, attempt in ((1, 1), (1, 2), (11, 1)):
        picture(attempt_folder(tmp_path, index, attempt))
    remove_attempts(tmp_path, 1)
    assert [folder.name for folder in tmp_path.iterdir()] == ["11-1"]


def test_a_disk_that_fails_is_the_stores_fault_and_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="cannot write there"):
        prepare(tmp_path / "file" / "0-1")

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    result = whole(tmp_path)
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match=r"No space left on device\. Make room"):
        write_result(tmp_path, result)
    assert read_result(tmp_path) is None


def test_what_was_written_before_a_disk_filled_up_stays_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = whole(tmp_path)
    write_result(tmp_path, result)

    def full(_descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable):
        write_result(tmp_path, RawResult(assets=()))
    assert read_result(tmp_path) == result


def _bytes_changed(path: Path, rng: random.Random) -> None:
    data = bytearray(path.read_bytes())
    match rng.randrange(4):
        case 0:
            del data[rng.randrange(len(data)) :]
        case 1:
            for _ in range(rng.randint(1, 8)):
                data[rng.randrange(len(data))] = rng.randrange(256)
        case 2:
            start = rng.randrange(len(data))
            data[start : start + rng.randrange(40)] = rng.randbytes(rng.randrange(40))
        case _:
            data = bytearray(rng.choice([b"", b"null", b"[" * 100_000, b"{}", b"\xff\xfe"]))
    path.write_bytes(data)


def _value_changed(path: Path, rng: random.Random) -> None:
    place: Any = json.loads(path.read_text())
    top = place
    while True:
        named = isinstance(place, dict)
        key: Any = rng.choice(list(place) if named else range(len(place)))
        below: Any = place[key]
        if isinstance(below, dict | list) and below and rng.random() < 0.7:
            place = cast("Any", below)
            continue
        if named and rng.random() < 0.2:
            del place[key]
        else:
            place[key] = rng.choice(ODD)
        break
    path.write_text(json.dumps(top).replace(f'"{LONG}"', "9" * 5000))


def _file_changed(folder: Path, rng: random.Random) -> None:
    path = folder / rng.choice(["0.png", "1.png"])
    match rng.randrange(5):
        case 0:
            path.unlink(missing_ok=True)
        case 1 if path.is_file():
            path.unlink()
            path.mkdir()
        case 2 if path.is_file():
            path.unlink()
            path.symlink_to(rng.choice(["1.png", "0.png", "nowhere", "/dev/null"]))
        case _ if path.is_file() and not path.is_symlink():
            _bytes_changed(path, rng)
        case _:
            pass


def damage(folder: Path, rng: random.Random) -> None:
    """Do to a spooled result what disks, power cuts and people do."""
    for _ in range(rng.randint(1, 2)):
        kinds: list[Callable[[Path, random.Random], None]] = [_bytes_changed, _value_changed]
        if rng.random() < 0.4:
            _file_changed(folder, rng)
        else:
            rng.choice(kinds)(folder / RESULT, rng)
            break


@pytest.fixture
def home() -> Iterator[Path]:
    """Give a folder in memory, where there is one: the disk is not what this is about."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # noqa: S108 - a new folder in it
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.mark.repeats
@pytest.mark.timeout(180)
async def test_500_damaged_results_are_stored_or_one_line_each_and_are_made_again(
    home: Path, bench: Bench, made_catalogue: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(made_catalogue, home / "catalogue.db")
    bench.settings = Settings(home=home)
    bench.catalogue = open_catalogue(bench.settings.catalogue)

    async def at_once(_job: Job, function: Callable[[], Any]) -> Any:
        return function()

    monkeypatch.setattr(Job, "call", at_once)
    rng = random.Random(20_261_128)
    ended = {"stored": 0, "refused": 0, "made again": 0}
    for number in range(500):
        job = bench.job()
        attempt = bench.catalogue.begin_attempt(
            job.id,
            0,
            server="gpu-a",
            engine="comfyui",
            make_ticket=lambda _: Ticket(engine="comfyui", remote_id="0-1"),
        )
        folder = attempt_folder(job.spool, 0, 1)
        prepare(folder)
        write_result(folder, whole(folder))
        damage(folder, rng)
        if rng.random() < 0.9:  # else as a process leaves it that died just before
            bench.catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
        bench.engine.calls.clear()
        try:
            assert await generate(job) == []
            done = await store(job)
        except QueueError as error:
            ended["refused"] += 1
            text = str(error)
            assert text.isprintable(), (number, text)
            assert bench.catalogue.attempts(job.id)[0].state is AttemptState.FAILED
            continue
        ended["made again" if bench.engine.calls else "stored"] += 1
        assert done.assets or done.censored, number
        assert not job.spool.exists(), number
    bench.catalogue.close()
    assert min(ended.values()) > 20, ended
