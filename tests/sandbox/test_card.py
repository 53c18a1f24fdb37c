"""The simulated graphics card."""

import threading

import pytest

from stablequeue.sandbox import CardOutOfMemory, GraphicsCard


def test_a_loaded_model_is_not_loaded_again() -> None:
    card = GraphicsCard(memory_mb=8_000)
    assert card.load("a", "sd15", 2_000)
    assert not card.load("a", "sd15", 2_000)
    assert card.swaps == [("a", "sd15")]


def test_the_least_recently_used_model_gives_way() -> None:
    card = GraphicsCard(memory_mb=5_000, reserve_mb=0)
    card.load("a", "one", 2_000)
    card.load("a", "two", 2_000)
    card.load("a", "one", 2_000)
    card.load("a", "three", 2_000)
    assert card.loaded("a") == ["one", "three"]


def test_models_of_others_do_not_give_way() -> None:
    card = GraphicsCard(memory_mb=5_000, reserve_mb=500)
    card.load("a", "one", 4_000)
    with pytest.raises(CardOutOfMemory, match=r"tried to allocate 2000 MiB, 500 MiB of 5000 MiB"):
        card.load("b", "two", 2_000)
    card.unload("a")
    assert card.load("b", "two", 2_000)
    assert card.free_mb == 2_500


def test_it_tells_how_many_generated_at_once() -> None:
    card = GraphicsCard()
    with card.generating("a", "first"):
        assert card.running == 1
    assert card.most_at_once == 1
    with card.generating("a"), card.generating("b"):
        assert card.running == 2
    assert card.most_at_once == 2
    assert card.running == 0
    assert [(entry.owner, entry.ended is not None) for entry in card.generations] == [
        ("a", True), ("a", True), ("b", True),
    ]  # fmt: skip


def test_threads_are_counted() -> None:
    card, meeting = GraphicsCard(), threading.Barrier(4)

    def generate() -> None:
        with card.generating("thread"):
            meeting.wait(10)

    threads = [threading.Thread(target=generate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert card.most_at_once == 4
