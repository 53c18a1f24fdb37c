"""Everything dies, in an order of a seed; nothing is lost, made twice or left behind.

`SEED=7 make chaos` repeats what a seed does; without one it is drawn, and printed.
"""

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checking import (
    at_once,
    made_twice,
    nothing_active,
    overlapped,
    wrong_jobs,
    wrong_pictures,
)
from tests.chaos.place import Place, Wanted, open_place
from tests.chaos.trouble import KINDS, Trouble, plan, settled

SEED = int(os.environ.get("SEED") or random.SystemRandom().randrange(10_000))
CHECKPOINT = "sandbox-sd15.safetensors"
SERVERS = (
    Wanted(alias="comfy", kind="comfyui", card="first", step_s=0.04),
    Wanted(alias="forge", kind="forge", card="first", step_s=0.03),
    Wanted(alias="second", kind="comfyui", card="second", step_s=0.02),
)
DEADLY = ("runner", "engine", "worker", "template", "prefect", "sockets")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give a whole installation with the three servers."""
    with open_place(tmp_path / "place", SERVERS) as place:
        yield place


def _jobs(number: int, dice: random.Random) -> list[dict[str, Any]]:
    servers = [*(one.alias for one in SERVERS), "any", "any"]
    return [
        {
            "prompt": f"bridge {index}",
            "server": dice.choice(servers),
            "checkpoint": CHECKPOINT,
            "width": 64,
            "height": 64,
            "steps": 2,
            "count": 2 if dice.random() < 0.1 else 1,
        }
        for index in range(number)
    ]


def _survive(
    place: Place, *, jobs: int, kinds: tuple[str, ...], blows: int, within_s: float
) -> None:
    dice = random.Random(SEED)
    asked = _jobs(jobs, dice)
    ids = place.submit(asked)
    counts = {job_id: job["count"] for job_id, job in zip(ids, asked, strict=True)}
    servers = [one.alias for one in SERVERS]
    trouble = Trouble(place=place, blows=plan(SEED, servers, jobs=jobs, kinds=kinds, blows=blows))
    try:
        trouble.until_ended(ids, timeout_s=within_s)
    finally:
        wrong = wrong_jobs(place, ids)
        print(f"SEED={SEED}", *trouble.happened, *wrong, sep="\n  ")  # noqa: T201
    settled(place)
    nothing_active(place, ids)
    assert wrong == []
    assert wrong_pictures(place, counts) == []
    again, excused = made_twice(place, counts, trouble.deaths)
    print(f"{excused} pictures made again because their engine had forgotten them")  # noqa: T201
    assert again == []
    for card in place.cards.values():
        assert at_once(card) == []


def _full_width(place: Place) -> None:
    """Let 20 fresh jobs run: all servers take part, the cards at the same time."""
    before = {name: len(card.generations) for name, card in place.cards.items()}
    servers = [*(one.alias for one in SERVERS), "any"]
    asked = [
        {**job, "server": servers[number % len(servers)], "steps": 20}
        for number, job in enumerate(_jobs(20, random.Random(0)))
    ]
    ids = place.submit(asked)
    Trouble(place=place, blows=[]).until_ended(ids, timeout_s=90)
    assert wrong_jobs(place, ids) == []
    new = {name: card.generations[before[name] :] for name, card in place.cards.items()}
    owners = {made.owner.partition("/")[0] for card in new.values() for made in card}
    assert owners == {one.alias for one in SERVERS}
    assert overlapped(new["first"], new["second"])
    nothing_active(place, ids)
    for card in place.cards.values():
        assert at_once(card) == []


@pytest.mark.begins_first
@pytest.mark.timeout(480)
def test_a_few_jobs_survive_the_death_of_each_part(place: Place) -> None:
    _survive(place, jobs=20, kinds=DEADLY, blows=len(DEADLY), within_s=240)
    _full_width(place)


@pytest.mark.chaos
@pytest.mark.timeout(1200)
def test_many_jobs_survive_whatever_happens(place: Place) -> None:
    _survive(place, jobs=200, kinds=KINDS, blows=16, within_s=900)
    _full_width(place)
