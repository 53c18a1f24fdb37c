"""LoRA tags in prompts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.comfyui.lora_tags import BadTag, split_tags


@pytest.mark.parametrize(
    ("tag", "weight", "text_weight"),
    [
        ("<lora:x>", 1.0, 1.0),
        ("<lora:x:0.8>", 0.8, 0.8),
        ("<lora:x:0.5:0.8>", 0.8, 0.5),
        ("<lora:x:te=0.5:unet=0.8>", 0.8, 0.5),
        ("<LORA:x:-1>", -1.0, -1.0),
        ("<lyco:x:1>", 1.0, 1.0),
        ("<lora: x :1>", 1.0, 1.0),
    ],
)
def test_a_tag_becomes_a_lora_and_leaves_the_prompt(
    tag: str, weight: float, text_weight: float
) -> None:
    split = split_tags(f"a cat {tag}, red")
    assert split.text == "a cat , red"
    (lora,) = split.loras
    assert (lora.name, lora.weight, lora.text_weight) == ("x", weight, text_weight)


def test_several_tags_keep_their_order() -> None:
    split = split_tags("<lora:b:1> x <lora:a/c d (v1):0.2>")
    assert [lora.name for lora in split.loras] == ["b", "a/c d (v1)"]
    assert split.text == "x"


def test_a_prompt_without_tags_stays_as_it_is() -> None:
    text = "  <not a tag> (a:1.2) [b|c] \n"
    assert split_tags(text).text == text


@pytest.mark.parametrize(
    "tag",
    [
        "<lora:x:strong>",
        "<lora:x:1:1:0,0,1>",
        "<lora:x:1:1:1>",
        "<lora:x:99>",
        "<lora:x:lbw=OUT>",
        "<hypernet:x:1>",
    ],
)
def test_a_tag_that_cannot_be_honoured_is_refused(tag: str) -> None:
    with pytest.raises(BadTag, match="x"):
        split_tags(tag)


@given(st.text(max_size=60))
def test_any_prompt_is_split_or_refused(prompt: str) -> None:
    try:
        split = split_tags(prompt)
    except BadTag as refusal:
        assert str(refusal)  # noqa: PT017 - any text may be refused, none may crash
    else:
        assert len(split.text) <= len(prompt)
