"""Which models requests name, and what tags say that a server lacks."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stablequeue.request import GenerationRequest
from stablequeue.wanting import lacked_on, lacks_tag, wanted_by
from tests.support.drawing import Drawing


def lacks(reference: str) -> frozenset[str]:
    return lacked_on("gpu", [lacks_tag("gpu", reference), "tier:bulk"])


def test_every_place_that_names_a_model_is_looked_at() -> None:
    graph = {"4": {"class_type": "LoraLoader", "inputs": {"lora_name": "i", "x": 1, "m": ["1", 0]}}}
    request = GenerationRequest.model_validate(
        {
            "mode": "workflow",
            "prompt": "<lora:g:0.5> <LYCO: h >",
            "checkpoint": "a",
            "vae": "b",
            "text_encoders": ["c", "d"],
            "loras": [{"name": "e"}, {"name": "f"}],
            "workflow": graph,
            "overrides": {"4.lora_name": "j"},
        }
    )
    wanted = wanted_by(request.dumped())
    for name in "abcdefghij":
        assert lacks(name) <= wanted, name
    assert not lacks("k") & wanted
    assert lacked_on("other", [lacks_tag("gpu", "a")]) == frozenset()


def test_a_workflow_as_the_editor_saves_it_is_looked_at_too() -> None:
    inner = Drawing()
    inner.node("VAELoader", "b.safetensors")
    drawing = Drawing()
    drawing.node("UNETLoader", "a.safetensors", 1.0)
    drawing.node("part", widgets_values={"name": "c.safetensors"})
    wanted = wanted_by({"workflow": drawing.workflow(inner.subgraph("part", {}, {}))})
    for name in "abc":
        assert lacks(f"{name}.safetensors") <= wanted, name


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
fields = st.sampled_from(
    ["checkpoint", "loras", "text_encoders", "prompt", "workflow", "overrides", "vae"]
)


@given(st.dictionaries(fields, anything))
def test_whatever_a_run_made_elsewhere_has_for_a_request_is_read(request: dict[str, Any]) -> None:
    for digest in wanted_by(request):
        assert len(digest) == 16
