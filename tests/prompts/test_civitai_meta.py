"""Generation data of Civitai as an infotext."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.models.infotext_models import models_of
from stablequeue.models.kinds import ModelType
from stablequeue.prompts.civitai_meta import graph_of_meta, infotext_of_meta
from stablequeue.prompts.infotext_requests import request_from_infotext
from tests.fakes.civitai import fixture

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda below: (
        st.lists(below, max_size=3) | st.dictionaries(st.text(max_size=10), below, max_size=3)
    ),
    max_leaves=6,
)
NAMES = st.sampled_from(
    ["prompt", "steps", "seed", "Size", "hashes", "resources", "civitaiResources", "comfy", "width"]
)


def test_the_recorded_pictures_are_read() -> None:
    first, second = (item["meta"] for item in fixture("images_page")["items"][:2])

    request, _ = request_from_infotext(infotext_of_meta(first))
    assert (request.width, request.height, request.steps, request.seed) == (
        832,
        1216,
        28,
        123456789,
    )
    assert (request.clip_skip, request.cfg_scale, request.checkpoint) == (
        2,
        5.0,
        "lanternFishXL_v20",
    )
    assert [(one.name, one.weight) for one in request.loras] == [("paper_crane_style-10", 0.8)]
    kinds = {one.kind: one for one in models_of(infotext_of_meta(first))}
    assert [str(one) for one in kinds[ModelType.CHECKPOINT].references] == [
        "autov2:11563a038d",
        "lanternFishXL_v20",
    ]
    assert str(kinds[ModelType.LORA].references[0]) == "4ed7c7b88a02"

    request, _ = request_from_infotext(infotext_of_meta(second["meta"]))
    assert request.prompt == "a moss golem"
    assert request.checkpoint == "https://civitai.com/model-versions/9910202"
    assert request.loras[0].weight == 0.65


def test_a_lora_that_only_the_resources_tell_is_used() -> None:
    resources = [
        {"type": "lora", "name": "crane", "weight": 0.5, "hash": "0123456789ab"},
        {"type": "lora", "name": "a:b", "weight": 0.5},
        {"type": "lora", "name": "there", "weight": 0.9},
        {"type": "model", "name": "dream", "hash": "0123456789"},
    ]
    infotext = infotext_of_meta({"prompt": "x <lora:there:0.2>", "resources": resources})

    request, _ = request_from_infotext(infotext)

    assert {one.name: one.weight for one in request.loras} == {"crane": 0.5, "there": 0.2}
    assert request.checkpoint == "dream"
    assert json.loads(infotext.params["Hashes"])["lora:crane"] == "0123456789ab"


@pytest.mark.parametrize(
    "comfy", [None, 3, "{", "[]", '{"prompt": 3}', {"prompt": {}}, "[" * 99_999]
)
def test_what_is_no_workflow_is_none(comfy: Any) -> None:
    assert graph_of_meta({"comfy": comfy}) == ({}, {})


@given(st.dictionaries(NAMES | st.text(max_size=12), ANYTHING, max_size=8))
def test_any_data_becomes_a_request(meta: dict[str, Any]) -> None:
    infotext = infotext_of_meta(meta)
    graph_of_meta(meta)
    models_of(infotext)
    assert all(isinstance(value, str) for value in infotext.params.values())
