"""Downloading processes that are killed: the next one gets the lock, continues and ends right."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stablequeue.models.downloads.parts import Part
from stablequeue.models.sources.offer import Offer
from tests.fakes.model_files import safetensors
from tests.models.conftest import CivitaiSite

SCRIPT = Path(__file__).with_name("fetch_in_process.py")
ROOT = Path(__file__).parents[3]
DATA = safetensors(8_000_000, seed=2)


def start(offer: Offer, target: Path, locks: Path, streams: int) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    orders = {
        "offer": offer.to_json(),
        "target": str(target),
        "locks": str(locks),
        "streams": streams,
    }
    assert process.stdin is not None
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    process.stdin.flush()
    return process


def line(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


@pytest.mark.parametrize("streams", [1, 4])
def test_a_download_killed_at_random_moments_is_continued_and_ends_right(
    civitai: CivitaiSite, tmp_path: Path, locks: Path, streams: int
) -> None:
    offer = civitai.offer(DATA)
    target = tmp_path / "models" / "model.safetensors"
    chance = random.Random(streams)
    kept: list[int] = []
    for _ in range(4):
        process = start(offer, target, locks, streams)
        assert line(process) in {"begun", offer.sha256}
        deadline = time.monotonic() + chance.uniform(0, 0.03)
        while time.monotonic() < deadline and process.poll() is None:
            pass
        process.kill()
        process.communicate()
        if target.exists():  # it was quicker than we
            assert target.read_bytes() == DATA
            target.unlink()
            kept.clear()  # the next one begins anew
            continue
        note = Part(target).read()
        kept.append(sum(end - start for start, end in note.spans) if note else 0)
    civitai.fake.reset()

    process = start(offer, target, locks, streams)
    lines = [line(process), line(process)]
    process.communicate(timeout=30)
    assert process.returncode == 0

    assert offer.sha256 in lines
    assert target.read_bytes() == DATA
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.safetensors"]
    if kept and kept[-1]:
        asked = [seen.headers["range"] for seen in civitai.fake.storage.seen]
        assert "bytes=0-" not in asked  # nothing that was there came again from the start


def test_two_processes_that_want_one_file_fetch_it_once(
    civitai: CivitaiSite, tmp_path: Path, locks: Path
) -> None:
    offer = civitai.offer(DATA)
    target = tmp_path / "models" / "model.safetensors"

    both = [start(offer, target, locks, 1) for _ in range(2)]
    said = [process.communicate(timeout=30)[0].decode().split() for process in both]

    assert sorted(said) == sorted([["begun", offer.sha256], [offer.sha256]])
    assert len(civitai.fake.seen) == 1
