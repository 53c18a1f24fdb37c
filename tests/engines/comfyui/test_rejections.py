"""Why a prompt was refused: every recorded answer."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.comfyui.answers import mapping
from stablequeue.engines.comfyui.rejections import rejection
from stablequeue.errors import JobRejected, ModelMissing
from tests.engines.comfyui.recordings import recorded

REFUSALS = [entry for entry in recorded("rejections") if entry["status"] == 400]


def refused(details: str) -> JobRejected:
    found = [e["response"] for e in REFUSALS if details in str(e["response"])]
    assert found, details
    return rejection("gpu", found[0])


@pytest.mark.parametrize("entry", REFUSALS, ids=lambda entry: str(entry["note"])[:40])
def test_every_recorded_refusal_is_one_line_that_says_why(entry: dict[str, Any]) -> None:
    error = rejection("gpu", entry["response"])
    assert isinstance(error, JobRejected)
    assert not error.retryable
    assert "\n" not in str(error)
    assert "does not say why" not in str(error)


def test_a_model_that_is_not_in_the_list_is_missing() -> None:
    error = refused("nope.safetensors")
    assert isinstance(error, ModelMissing)
    assert (error.field, error.name) == ("workflow.4.ckpt_name", "nope.safetensors")


def test_a_wrong_slash_is_a_missing_model_with_a_suggestion() -> None:
    error = refused("sub dir\\\\full")
    assert isinstance(error, ModelMissing)
    assert error.suggestions[0] == "sub dir/full-random-sd15.safetensors"


def test_a_wrong_sampler_is_wrong_everywhere() -> None:
    error = refused("sampler_name: 'nope'")
    assert type(error) is JobRejected
    assert "node 3 (KSampler)" in str(error)
    assert "list of length 42" in str(error)


def test_an_unknown_class_is_named_though_no_node_is() -> None:
    assert "NoSuchNode" in str(refused("NoSuchNode"))


def test_a_circle_has_no_node_errors_and_still_a_reason() -> None:
    answer = {
        "error": {
            "type": "prompt_outputs_failed_validation",
            "message": "Prompt outputs failed validation",
            "details": "",
        },
        "node_errors": {},
    }
    assert "Prompt outputs failed validation" in str(rejection("gpu", answer))


def test_a_newer_server_says_which_id_it_does_not_like() -> None:
    answer = {"error": {"type": "invalid_prompt_id", "message": "prompt_id must be a UUID"}}
    assert "must be a UUID" in str(rejection("gpu", answer))


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["error", "node_errors", "errors", "type", "message", "extra_info", "3"]
            ),
            inner | st.just("value_not_in_list"),
        )
    ),
    max_leaves=12,
)


@given(values)
def test_any_refusal_is_one_line(answer: Any) -> None:
    error = rejection("gpu", mapping(answer))
    assert isinstance(error, JobRejected)
    assert "\n" not in str(error)
