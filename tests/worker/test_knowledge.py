"""What the worker learns of its servers, and remembers."""

import time
from typing import Any

import pytest

from stablequeue.servers import ServerConfig
from stablequeue.worker.knowledge import FORGOTTEN_AFTER_S, PoolState, ServerState, Taken


def server() -> ServerState:
    config = ServerConfig.model_validate(
        {"alias": "gpu", "type": "comfyui", "url": "http://127.0.0.1:1"}
    )
    return ServerState(config)


def test_the_time_of_a_picture_is_learned_only_while_its_checkpoint_is_loaded() -> None:
    state = server()
    state.used("a")
    state.measured("a", 2.0)
    assert state.picture_s == 2.0
    state.measured("b", 10.0)
    assert state.picture_s == 2.0
    assert state.swap_s == {"b": pytest.approx(8.0)}
    assert state.loaded == ("b",)
    state.measured("b", 2.0)
    assert state.picture_s == pytest.approx(2.0)


def test_a_measurement_moves_the_mean_but_does_not_replace_it() -> None:
    state = server()
    state.used("a")
    for seconds in (2.0, 12.0):
        state.measured("a", seconds)
    assert 2.0 < state.picture_s < 12.0


def test_short_jobs_are_prepared_further_ahead_but_never_more_than_the_pool_allows() -> None:
    state = server()
    state.picture_s, state.prepare_s = 30.0, 0.3
    assert state.limit(PoolState("id", "gpu", limit=4)) == 2
    state.picture_s = 0.3
    assert state.limit(PoolState("id", "gpu", limit=4)) == 4
    assert state.limit(PoolState("id", "gpu", limit=1)) == 1
    assert state.limit(PoolState("id", "gpu", limit=None)) == 4
    assert state.limit(PoolState("id", "gpu", limit=0)) == 0


def test_a_run_that_has_let_the_card_go_counts_as_done() -> None:
    state = server()
    state.taken["r"] = Taken("r", "j", "gpu", "a", granted_at=1.0, progress=0.5)
    assert state.running(3.0)[0].progress == 0.5
    assert state.running(3.0)[0].generating_s == 2.0
    state.taken["r"].released = True
    assert state.running(3.0)[0].progress == 1.0


def test_what_was_learned_is_taken_over_by_the_next_worker() -> None:
    state = server()
    state.used("a")
    state.measured("a", 2.0)
    state.measured("b", 9.0)
    after = server()
    after.recall(state.to_json())
    assert (after.loaded, after.swap_s, after.picture_s) == (
        state.loaded,
        state.swap_s,
        state.picture_s,
    )


@pytest.mark.parametrize(
    "damaged",
    [
        {},
        {"loaded": 3},
        {"loaded": [], "swap_s": {"a": -1.0}, "picture_s": 1.0},
        {"loaded": [], "swap_s": [], "picture_s": "x"},
    ],
)
def test_what_cannot_be_read_is_not_taken_over(damaged: dict[str, Any]) -> None:
    state = server()
    state.recall(damaged)
    assert (state.loaded, state.swap_s, state.picture_s) == ((), {}, 0.0)


def test_a_server_has_forgotten_its_jobs_once_nothing_listened_there_for_a_while() -> None:
    state = server()
    assert not state.has_forgotten
    state.silent_since = time.monotonic()
    assert not state.has_forgotten
    state.silent_since -= FORGOTTEN_AFTER_S
    assert state.has_forgotten
