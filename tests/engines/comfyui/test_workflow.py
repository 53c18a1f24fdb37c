"""A user's own workflow made into one picture's graph."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.comfyui.graph import Inputs
from stablequeue.engines.comfyui.submission import workflow_graph
from stablequeue.engines.comfyui.workflow import (
    find_input,
    saves_one_picture,
    seed_inputs,
    with_overrides,
    with_prefixes,
)
from stablequeue.errors import BadRequest
from tests.engines.comfyui.jobs import PICTURE, job, request, resolution
from tests.engines.comfyui.recordings import recorded

WORKFLOW: dict[str, Any] = recorded("txt2img")["request"]["prompt"]


def made(workflow: dict[str, Any], *, seed: int = 40, index: int = 0, **fields: Any) -> Any:
    asked = request(mode="workflow", workflow=workflow, **fields)
    resolved = resolution(detail=fields.pop("detail", {}))
    inputs = Inputs(init_image="up.png", mask_image="mask.png")
    return workflow_graph(job(asked, resolved, seed=seed, index=index), inputs, "own/folder")


def test_an_override_names_a_node_by_id_or_by_title() -> None:
    graph = with_overrides(WORKFLOW, {"3.steps": 9, "Empty Latent.width": 128})
    assert graph["3"]["inputs"]["steps"] == 9
    assert graph["5"]["inputs"]["width"] == 128
    assert WORKFLOW["3"]["inputs"]["steps"] == 3, "the workflow given was changed"


def test_titles_and_inputs_may_hold_dots() -> None:
    workflow = {
        "10:3": {
            "class_type": "X",
            "inputs": {"a": 1, "resize.width": 2},
            "_meta": {"title": "v1.5 loader"},
        }
    }
    assert find_input(workflow, "v1.5 loader.a") == ("10:3", "a")
    assert find_input(workflow, "10:3.resize.width") == ("10:3", "resize.width")
    assert find_input(workflow, "v1.5 loader.resize.width") == ("10:3", "resize.width")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("99.steps", "KSampler"),
        ("3.sted", "sampler_name"),
        ("steps", "NODE.INPUT"),
        ("Nobody.text", "Positive"),
        ("", "NODE.INPUT"),
    ],
)
def test_an_override_of_nothing_says_what_there_is(name: str, words: str) -> None:
    with pytest.raises(BadRequest) as refusal:
        with_overrides(WORKFLOW, {name: 1})
    assert words in str(refusal.value)
    assert refusal.value.field.startswith("overrides.")


def test_a_title_two_nodes_have_is_refused() -> None:
    workflow = copy.deepcopy(WORKFLOW)
    workflow["6"]["_meta"]["title"] = workflow["7"]["_meta"]["title"] = "Text"
    with pytest.raises(BadRequest, match="several nodes") as refusal:
        with_overrides(workflow, {"Text.text": "x"})
    assert refusal.value.allowed == ("6", "7")


def test_the_workflows_own_seed_stays_for_one_picture_without_a_seed() -> None:
    assert made(WORKFLOW)["3"]["inputs"]["seed"] == 11


def test_a_seed_that_is_asked_for_replaces_it() -> None:
    asked = request(mode="workflow", workflow=WORKFLOW, seed=0)
    graph = workflow_graph(job(asked, seed=0), Inputs(), "own")
    assert graph["3"]["inputs"]["seed"] == 0


def test_several_pictures_get_a_seed_each() -> None:
    seeds = [made(WORKFLOW, seed=40 + n, index=n, count=3)["3"]["inputs"]["seed"] for n in range(3)]
    assert seeds == [40, 41, 42]


def test_an_overridden_seed_wins_and_counts_up() -> None:
    seeds = [
        made(WORKFLOW, seed=40 + n, index=n, count=2, overrides={"3.seed": 900})["3"]["inputs"]
        for n in range(2)
    ]
    assert [inputs["seed"] for inputs in seeds] == [900, 901]


def test_seeds_are_found_under_both_names_and_behind_a_link() -> None:
    workflow = {
        "1": {"class_type": "KSamplerAdvanced", "inputs": {"noise_seed": 1}},
        "2": {"class_type": "KSampler", "inputs": {"seed": ["3", 0]}},
        "3": {"class_type": "PrimitiveInt", "inputs": {"value": 5}},
        "4": {"class_type": "KSampler", "inputs": {"seed": ["5", 0]}},
        "5": {"class_type": "Computed", "inputs": {"a": ["3", 0]}},
    }
    assert seed_inputs(workflow) == [("1", "noise_seed"), ("3", "value")]


def test_uploaded_pictures_take_their_places() -> None:
    workflow = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "init_image"}},
        "2": {"class_type": "LoadImageMask", "inputs": {"image": "mask_image", "channel": "red"}},
        "3": {"class_type": "Other", "inputs": {"text": "init_image"}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    graph = made(workflow, init_image=PICTURE, mask_image=PICTURE)
    assert graph["1"]["inputs"]["image"] == "up.png"
    assert graph["2"]["inputs"]["image"] == "mask.png"
    assert graph["3"]["inputs"]["text"] == "init_image"


def test_every_saving_node_saves_in_the_jobs_own_folder() -> None:
    graph = copy.deepcopy(WORKFLOW)
    graph["10:a"] = {"class_type": "SaveAnimatedWEBP", "inputs": {"filename_prefix": "../../x"}}
    graph["11"] = {"class_type": "SaveVideo", "inputs": {"filename_prefix": ["1", 0]}}
    graph["12"] = {"class_type": "CheckpointSave", "inputs": {"filename_prefix": "models/mine"}}
    assert with_prefixes(graph, "own") == ["9", "10:a", "11"]
    prefixes = [graph[n]["inputs"]["filename_prefix"] for n in ("9", "10:a", "11", "12")]
    assert prefixes == ["own/img", "own/img-10_a", "own/img-11", "models/mine"]


def test_only_one_plain_saving_node_can_be_found_again_by_name() -> None:
    assert saves_one_picture(WORKFLOW, ["9"])
    graph = {**WORKFLOW, "10": {"class_type": "SaveVideo", "inputs": {"filename_prefix": "x"}}}
    assert not saves_one_picture(graph, ["9", "10"])


def test_the_servers_exact_names_are_put_in() -> None:
    asked = request(mode="workflow", workflow=WORKFLOW)
    resolved = resolution(detail={"exact": {"4": {"ckpt_name": "Exact\\name.ckpt"}}})
    graph = workflow_graph(job(asked, resolved), Inputs(), "own")
    assert graph["4"]["inputs"]["ckpt_name"] == "Exact\\name.ckpt"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=6,
)
nodes = st.fixed_dictionaries(
    {"class_type": st.text(max_size=8)},
    optional={
        "inputs": values
        | st.dictionaries(st.sampled_from(["seed", "image", "filename_prefix"]), values),
        "_meta": values | st.fixed_dictionaries({"title": st.text(max_size=4)}),
    },
)


@given(
    st.dictionaries(st.text(max_size=4), nodes, min_size=1, max_size=4),
    st.dictionaries(st.text(max_size=8), values, max_size=2),
    st.integers(1, 2),
)
def test_any_workflow_is_made_or_refused(
    workflow: dict[str, Any], overrides: dict[str, Any], count: int
) -> None:
    try:
        asked = request(mode="workflow", workflow=workflow, overrides=overrides, count=count)
    except ValueError:
        return  # refused by the request itself
    try:
        graph = workflow_graph(job(asked, resolution()), Inputs(), "own")
    except BadRequest as refusal:
        assert "\n" not in str(refusal)  # noqa: PT017 - any may be refused, none may crash
    else:
        assert list(graph) == list(workflow)
