"""Jobs for any server: a slow card gets what it can do, and a dead one keeps nobody waiting."""

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checking import at_once, nothing_active, wrong_jobs
from tests.chaos.place import Place, Wanted, open_place
from tests.support.waiting import wait_until

STEPS = 20
FAST_S = 0.05
SLOW_S = 3 * FAST_S
JOBS = 60
AFTERWARDS = 10
CHECKPOINT = "sandbox-sd15.safetensors"


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give an installation with two servers, one three times as fast as the other."""
    servers = (
        Wanted(alias="slow", kind="comfyui", card="old", step_s=SLOW_S),
        Wanted(alias="fast", kind="comfyui", card="new", step_s=FAST_S),
    )
    with open_place(tmp_path / "place", servers) as place:
        yield place


def _jobs(number: int, **fields: Any) -> list[dict[str, Any]]:
    small = {"prompt": "a bridge", "checkpoint": CHECKPOINT, "width": 64, "height": 64}
    return [{**small, "steps": STEPS, "server": "any", **fields} for _ in range(number)]


def _run(place: Place, asked: list[dict[str, Any]]) -> Counter[str]:
    """Let jobs run to their end; return how many each server made."""
    before = {name: len(card.generations) for name, card in place.cards.items()}
    ids = place.submit(asked)
    wait_until(lambda: place.ended(ids) == len(ids), timeout_s=400, why="every job has ended")
    assert wrong_jobs(place, ids) == []
    nothing_active(place, ids)
    return Counter(
        made.owner.partition("/")[0]
        for name, card in place.cards.items()
        for made in card.generations[before[name] :]
    )


@pytest.mark.house
@pytest.mark.timeout(900)
def test_a_slow_server_takes_its_share_and_a_dead_one_none(place: Place) -> None:
    for alias in place.sandboxes:  # each has been used, and its pace is known
        _run(place, _jobs(2, server=alias))
    begun = time.monotonic()
    made = _run(place, _jobs(JOBS))
    ends = [one.ended or begun for card in place.cards.values() for one in card.generations]
    starts = [
        one.started
        for card in place.cards.values()
        for one in card.generations
        if one.started > begun
    ]
    took, share = max(ends) - min(starts), made["slow"] / JOBS
    ideal = JOBS * STEPS / (1 / FAST_S + 1 / SLOW_S)
    print(  # noqa: T201
        f"{share:.0%} of {JOBS} jobs went to the server of a quarter of the speed (25 +- 5 %);"
        f" {took:.1f} s, {took / ideal:.2f} of the ideal (at most 1.1)"
    )
    assert made.total() == JOBS
    assert 0 < made["slow"] < made["fast"]
    for card in place.cards.values():
        assert at_once(card) == []

    ids = place.submit(_jobs(AFTERWARDS))
    wait_until(lambda: place.cards["old"].running, timeout_s=60, why="the slow server generates")
    place.sandboxes["slow"].stop()
    begun = time.monotonic()
    wait_until(lambda: place.ended(ids) == len(ids), timeout_s=200, why="every job has ended")
    assert wrong_jobs(place, ids) == []
    print(f"one server died: the last job ended {time.monotonic() - begun:.1f} s later")  # noqa: T201
    begun = time.monotonic()
    assert _run(place, _jobs(AFTERWARDS)) == {"fast": AFTERWARDS}
    print(f"with one server down: {AFTERWARDS} jobs in {time.monotonic() - begun:.1f} s")  # noqa: T201
