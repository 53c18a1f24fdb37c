"""From messages about one prompt to one fraction."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.base import Phase, Progress
from stablequeue.engines.comfyui.progress import Tracker, reachable
from tests.engines.comfyui.recordings import recorded

RUN = recorded("txt2img")
GRAPH = RUN["request"]["prompt"]
ID = RUN["request"]["prompt_id"]


def replayed() -> list[Progress]:
    tracker = Tracker(ID)
    tracker.expect(GRAPH, ["9"])
    seen: list[Progress] = []
    for message in RUN["messages"]:
        if message["data"].get("prompt_id") == ID:
            tracker.apply(message["type"], message["data"])
            seen.append(tracker.snapshot())
    return seen


def test_a_recorded_run_goes_from_nothing_to_almost_everything_and_never_back() -> None:
    fractions = [progress.fraction or 0.0 for progress in replayed()]
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 0.99


def test_a_recorded_run_loads_samples_and_finishes() -> None:
    phases: list[Phase] = []
    for progress in replayed():
        if not phases or phases[-1] is not progress.phase:
            phases.append(progress.phase)
    assert phases == [Phase.LOADING, Phase.SAMPLING, Phase.FINISHING]


def test_steps_are_shown_as_the_sampler_counts_them() -> None:
    steps = {(p.step, p.steps) for p in replayed() if p.phase is Phase.SAMPLING and p.steps}
    assert steps == {(1, 3), (2, 3), (3, 3)}


def test_a_sampler_weighs_as_much_as_its_steps() -> None:
    graph = {
        "1": {"class_type": "KSampler", "inputs": {"steps": 30}},
        "2": {"class_type": "KSampler", "inputs": {"steps": 10, "latent_image": ["1", 0]}},
    }
    tracker = Tracker("a")
    tracker.expect(graph)
    tracker.apply("progress", {"node": "1", "value": 15, "max": 30})
    assert tracker.snapshot().fraction == 15 / 40
    tracker.apply("executing", {"node": "2"})
    tracker.apply("progress", {"node": "2", "value": 1, "max": 10})
    assert tracker.snapshot().fraction == 16 / 40, "the second sampler starts from 1 again"


def test_cached_nodes_do_not_count() -> None:
    tracker = Tracker(ID)
    tracker.expect(GRAPH, ["9"])
    cached = ["3", "4", "5", "6", "7"]
    tracker.apply("execution_cached", {"nodes": cached})
    tracker.apply("progress_state", {"nodes": {"8": {"value": 1, "max": 1, "state": "finished"}}})
    assert tracker.snapshot().fraction == 0.5


def test_parts_of_an_expanded_node_do_not_finish_it() -> None:
    tracker = Tracker("a")
    tracker.expect({"1": {"class_type": "X", "inputs": {}}, "2": {"class_type": "Y"}})
    part = {"value": 1, "max": 1, "state": "finished", "display_node_id": "1"}
    tracker.apply("progress_state", {"nodes": {"1.0.0": part}})
    assert tracker.snapshot().fraction == 0.0


def test_what_no_output_needs_does_not_count() -> None:
    graph: dict[str, Any] = {
        "1": {"inputs": {}},
        "2": {"inputs": {"a": ["1", 0]}},
        "3": {"inputs": {"a": ["2", 0], "b": ["missing", 0]}},
        "4": {"inputs": {"a": ["4", 0]}},
    }
    assert reachable(graph, ["2"]) == {"1", "2"}
    assert reachable(graph, ["3", "nobody"]) == {"1", "2", "3"}
    assert reachable(graph, ["4"]) == {"4"}, "a circle must not hang"


def test_a_preview_is_handed_out_once() -> None:
    tracker = Tracker("a")
    tracker.show_preview(b"old")
    tracker.show_preview(b"new")
    assert [tracker.snapshot().preview for _ in range(2)] == [b"new", None]


def test_success_and_the_last_executing_are_hints_of_the_end() -> None:
    for kind, data in (
        ("execution_success", {}),
        ("execution_error", {}),
        ("execution_interrupted", {}),
        ("executing", {"node": None}),
    ):
        tracker = Tracker("a")
        tracker.apply(kind, data)
        assert tracker.hint.is_set()
        assert tracker.snapshot().phase is Phase.FINISHING


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from([*"123", "value", "max", "nodes", "node", "steps"]), inner
        )
    ),
    max_leaves=8,
)
kinds = st.sampled_from(
    ["execution_start", "execution_cached", "executing", "progress", "progress_state", "executed"]
)


@given(
    st.dictionaries(st.sampled_from("123"), values),
    st.lists(
        st.tuples(
            kinds, st.dictionaries(st.sampled_from(["nodes", "node", "value", "max"]), values)
        )
    ),
)
def test_nonsense_neither_stops_it_nor_sends_it_back(
    graph: dict[str, Any], messages: list[tuple[str, dict[str, Any]]]
) -> None:
    tracker = Tracker("a")
    tracker.expect(graph)
    last = 0.0
    for kind, data in messages:
        tracker.apply(kind, data)
        progress = tracker.snapshot()
        assert last <= (progress.fraction or last) <= 1.0
        last = progress.fraction or last
        json.dumps(progress.message)
