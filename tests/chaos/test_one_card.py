"""Two servers of different kinds on one card of 12 GB, each with a model of 6.6 GB."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.checking import at_once, made_twice, nothing_active, wrong_jobs, wrong_pictures
from tests.chaos.place import Place, Wanted, open_place
from tests.chaos.trouble import Blow, Trouble

CARD_MB = 12_288
LARGE = "sandbox-sdxl.safetensors"
SERVERS = (
    Wanted(alias="comfy", kind="comfyui", card="only", memory_mb=CARD_MB),
    Wanted(alias="forge", kind="forge", card="only", memory_mb=CARD_MB),
)
JOBS = 50


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Give an installation with both servers on one card."""
    with open_place(tmp_path / "place", SERVERS) as place:
        yield place


@pytest.mark.house
@pytest.mark.timeout(600)
def test_two_servers_on_one_card_never_generate_at_once_and_both_find_memory(place: Place) -> None:
    small = {"prompt": "a bridge", "checkpoint": LARGE, "width": 64, "height": 64, "steps": 2}
    asked = [{**small, "server": SERVERS[number % 2].alias} for number in range(JOBS)]
    ids = place.submit(asked)
    kills = [
        Blow(after=after, kind=kind, server="comfy", seconds=0.0, choice=0.0)
        for after, kind in ((JOBS // 3, "runner"), (JOBS // 2, "worker"))
    ]
    trouble = Trouble(place=place, blows=kills)
    trouble.until_ended(ids, timeout_s=400)
    card = place.cards["only"]
    assert wrong_jobs(place, ids) == []
    assert at_once(card) == []
    assert card.refused == []
    assert {made.owner for made in card.generations} == {"comfy/comfyui", "forge/forge"}
    again, _ = made_twice(place, dict.fromkeys(ids, 1), [])
    assert again == []
    assert wrong_pictures(place, dict.fromkeys(ids, 1)) == []
    nothing_active(place, ids)
