"""Which waiting run comes next, and when a server takes one ahead."""

import random
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stablequeue.worker.ahead import (
    MOST_LIMIT,
    RunningJob,
    best_limit,
    may_take_ahead,
    remaining_s,
)
from stablequeue.worker.policy import order, pick
from stablequeue.worker.waiting import MOST_OVERTAKINGS, Card, Waiting
from tests.worker.simulation import (
    JOB_S,
    SWAP_S,
    best_without_cap,
    fewest_swaps,
    in_line,
    play,
    sandbox_card,
    share,
    waiting_run,
    zipf,
)

NAMES = ["", "a", "b", "c", "d"]
RUNS = st.lists(
    st.builds(
        Waiting,
        run_id=st.uuids().map(str),
        job_id=st.just("job"),
        tier=st.integers(0, 2),
        place=st.integers(0, 5).map(float),
        created=st.integers(0, 3).map(float),
        models=st.sampled_from(NAMES).map(lambda name: (name, "lora") if name else ()),
        pictures=st.integers(1, 4),
        overtaken=st.integers(0, MOST_OVERTAKINGS),
        pinned=st.sampled_from([False] * 9 + [True]),
    ),
    max_size=40,
    unique_by=lambda run: run.run_id,
)
CARDS = st.builds(
    Card,
    loaded=st.lists(st.sampled_from("abcde"), unique=True, max_size=3).map(tuple),
    holds=st.integers(1, 3),
    swap_s=st.dictionaries(st.sampled_from("abcd"), st.floats(0, 60)),
    picture_s=st.floats(0.1, 60),
)


def first_of(runs: Sequence[Waiting]) -> Waiting:
    return min(runs, key=lambda run: run.standing)


def arriving(seed: int, jobs: int) -> list[tuple[float, Waiting]]:
    """Return runs of every kind; some stand before all that wait, some are pinned."""
    rng, found, second = random.Random(seed), list[tuple[float, Waiting]](), 0.0
    kinds = rng.randint(1, 14)
    for number in range(1, jobs + 1):
        second += rng.choice([0, 0, 0, rng.expovariate(1 / rng.choice([1, 4]))])
        run = waiting_run(
            number,
            rng.choice(["", *(f"model-{min(rng.randrange(kinds), 8):02}" for _ in range(9))]),
            tier=rng.choice([1, 1, 1, 1, 1, 2, 0]),
            place=rng.choice([number] * 8 + [-number, number + 40]),
        )
        found.append((second, replace(run, pinned=rng.random() < 0.02)))
    return found


@given(RUNS, CARDS)
def test_every_run_has_exactly_one_turn(runs: list[Waiting], card: Card) -> None:
    ranked = order(runs, card)
    assert sorted(r.run.run_id for r in ranked) == sorted(run.run_id for run in runs)
    assert all(r.reason for r in ranked)


@given(RUNS, CARDS)
def test_the_shown_order_is_what_picking_again_and_again_gives(
    runs: list[Waiting], card: Card
) -> None:
    played = play(runs, card)
    assert [r.run.run_id for r in order(runs, card)] == [run.run_id for run in played.taken]
    assert sum(r.loads for r in order(runs, card)) == played.swaps


@given(RUNS, CARDS, st.randoms(use_true_random=False))
def test_equal_runs_in_any_order_give_the_same_pick(
    runs: list[Waiting], card: Card, rng: random.Random
) -> None:
    mixed = list(runs)
    rng.shuffle(mixed)
    assert pick(mixed, card) == pick(runs, card)


@given(RUNS.filter(bool), CARDS)
def test_tiers_are_absolute_and_equal_checkpoints_keep_their_order(
    runs: list[Waiting], card: Card
) -> None:
    picked = pick(runs, card)
    assert picked is not None
    tier = [run for run in runs if run.tier == min(run.tier for run in runs)]
    assert picked.run.tier == tier[0].tier
    equal = [run for run in tier if run.checkpoint == picked.run.checkpoint]
    assert picked.run == first_of(equal)


@given(RUNS.filter(bool), CARDS)
def test_a_run_moved_to_the_front_is_next_of_its_tier(runs: list[Waiting], card: Card) -> None:
    front = replace(first_of(runs), run_id="front", models=("z",), place=-1, pinned=True)
    picked = pick([*runs, front], card)
    assert picked is not None
    assert (picked.run, picked.overtakes) == (front, ())
    assert picked.reason == "moved to the front"


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.integers(0, 10**9), st.integers(1, 160), st.integers(1, 2))
def test_no_run_is_overtaken_more_often_than_allowed_whatever_arrives(
    seed: int, jobs: int, holds: int
) -> None:
    arrivals = arriving(seed, jobs)
    played = play([], sandbox_card(holds=holds), arrivals=arrivals)
    assert played.most_overtaken <= MOST_OVERTAKINGS
    assert {run.run_id for run in played.taken} == {run.run_id for _, run in arrivals}
    assert len(played.taken) == jobs


def test_nothing_waiting_is_no_pick() -> None:
    assert pick([], Card()) is None
    assert order([], Card()) == []


def test_a_loaded_checkpoint_goes_before_the_head() -> None:
    runs = [waiting_run(1, "a"), waiting_run(2, "b"), waiting_run(3, "b")]
    picked = pick(runs, Card(loaded=("b",)))
    assert picked is not None
    assert (picked.run, picked.overtakes) == (runs[1], ("run-00001",))
    assert picked.reason == "its checkpoint is loaded"


def test_the_reasons_are_for_people() -> None:
    runs = [waiting_run(1, "a"), waiting_run(2, "b"), waiting_run(3, "a"), waiting_run(4)]
    assert [(r.run.run_id[-1], r.reason) for r in order(runs, Card())] == [
        ("1", "2 runs wait for a to be loaded once"),
        ("3", "its checkpoint is loaded"),
        ("2", "next in line"),
        ("4", "next in line"),
    ]


def test_a_run_overtaken_as_often_as_allowed_is_next() -> None:
    tired = replace(waiting_run(1, "a"), overtaken=MOST_OVERTAKINGS)
    picked = pick([tired, *(waiting_run(n, "b") for n in range(2, 9))], Card(loaded=("b",)))
    assert picked is not None
    assert (picked.run, picked.overtakes) == (tired, ())
    assert picked.reason == "has been overtaken 50 times"


def test_a_run_without_a_checkpoint_is_taken_at_its_place() -> None:
    runs = [waiting_run(1, "a"), *(waiting_run(n, "b") for n in range(2, 9)), waiting_run(9)]
    taken = [r.run.run_id for r in order(runs, Card(loaded=("b",)))]
    assert taken.index("run-00009") >= 7
    assert order(runs, Card(loaded=("b",)))[0].run == runs[1]


def test_only_runs_without_a_checkpoint_are_first_in_first_out() -> None:
    runs = [waiting_run(n) for n in range(9)]
    assert [r.run for r in order(reversed(runs), Card())] == runs


def test_a_dear_checkpoint_is_loaded_less_often_than_a_cheap_one() -> None:
    rng = random.Random(5)
    runs = [waiting_run(n, rng.choice("abcdefgh")) for n in range(300)]
    swaps = dict.fromkeys("abcdefgh", 4.0) | {"h": 60.0}
    loads = [r.run.checkpoint for r in order(runs, Card(swap_s=swaps)) if r.loads]
    assert loads.count("h") < len(loads) / 8


def test_a_card_that_holds_two_checkpoints_loads_less() -> None:
    one, two = (play(zipf(120, 3), sandbox_card(holds=holds)).swaps for holds in (1, 2))
    assert two < one


@pytest.mark.parametrize(
    ("jobs", "at_least"), [(60, 0.97), (100, 0.92), (120, 0.91), (200, 0.85), (600, 0.76)]
)
def test_a_mixed_backlog_comes_near_the_best_order(jobs: int, at_least: float) -> None:
    ratios: list[float] = []
    for seed in range(2 if jobs > 200 else 4):
        runs, card = zipf(jobs, seed), sandbox_card()
        swaps = sum(r.loads for r in order(runs, card))
        ratios.append(best_without_cap(runs, card) / (jobs * JOB_S + swaps * SWAP_S))
    assert sum(ratios) / len(ratios) >= at_least


def test_a_mixed_backlog_comes_near_the_best_order_under_the_cap() -> None:
    runs = zipf(120, 1)
    ours = sum(r.loads for r in order(runs, sandbox_card()))
    best = fewest_swaps(runs, width=4)
    assert (300 + best * SWAP_S) / (300 + ours * SWAP_S) >= 0.9


def test_a_steady_load_of_one_checkpoint_serves_rare_others_in_time() -> None:
    rng, arrivals = random.Random(7), list[tuple[float, Waiting]]()
    for number in range(1, 500):
        rare = rng.random() < 0.02
        name = f"model-{rng.randrange(1, 12):02}" if rare else "model-00"
        arrivals.append((number * JOB_S / 0.95, waiting_run(number, name)))
    ours, stock = (
        play([], sandbox_card(), arrivals=arrivals, choose=choose) for choose in (pick, in_line)
    )
    assert ours.most_overtaken <= MOST_OVERTAKINGS
    assert ours.swaps < stock.swaps
    assert ours.seconds <= stock.seconds


def test_a_slow_server_takes_its_part_of_a_shared_pool_and_no_more() -> None:
    shared = share([1 / 6, 1 / 2], 60)
    assert 12 <= shared.done[0] <= 18
    assert sum(shared.done) == 60
    assert shared.seconds <= 1.1 * shared.ideal_s
    assert shared.seconds <= share([1 / 6, 1 / 2], 60, careful=False).seconds


def test_a_second_job_is_taken_when_the_first_is_nearly_done() -> None:
    card = Card(picture_s=10)
    assert may_take_ahead([], card, 2)
    assert not may_take_ahead([RunningJob()], card, 2)
    assert not may_take_ahead([RunningJob(progress=0.5, generating_s=4)], card, 2)
    assert may_take_ahead([RunningJob(progress=0.95, generating_s=4)], card, 2)
    assert may_take_ahead([RunningJob(progress=1)], card, 2)
    assert may_take_ahead([RunningJob()], card, 2, shared=False)
    assert not may_take_ahead([RunningJob(progress=1)] * 2, card, 2, shared=False)


def test_what_remains_is_judged_by_the_jobs_own_pace() -> None:
    card = Card(picture_s=10)
    assert remaining_s(RunningJob(pictures=2, loading_s=8), card) == 28
    assert remaining_s(RunningJob(generating_s=4), card) == 6
    assert remaining_s(RunningJob(generating_s=40), card) == 0
    assert remaining_s(RunningJob(progress=0.25, generating_s=5), card) == 15


@pytest.mark.parametrize(
    ("picture_s", "prepare_s", "limit"),
    [(10, 0.3, 2), (0.3, 0.3, 2), (0.2, 0.3, 3), (0.05, 0.3, MOST_LIMIT), (0, 0.3, MOST_LIMIT)],
)
def test_short_jobs_need_more_taken_ahead(picture_s: float, prepare_s: float, limit: int) -> None:
    assert best_limit(picture_s, prepare_s) == limit
