"""Finding ComfyUI's own name for a model; what all servers share is in `tests/engines`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.comfyui.names import NoMatch, find, is_model_file, suggest

LISTED = ("sub dir/other.safetensors", "tiny.safetensors", "a/same.ckpt", "b/same.ckpt")


@pytest.mark.parametrize("wanted", ["tiny.safetensors [0123456789]", "Tiny [0123456789]", "TINY"])
def test_a_title_of_forge_s_names_the_file_too(wanted: str) -> None:
    assert find(wanted, LISTED) == "tiny.safetensors"


@pytest.mark.parametrize("wanted", ["", "[0123456789]", " [0123456789]", "tiny.ckpt [0123456789]"])
def test_a_hash_alone_or_another_file_s_names_nothing(wanted: str) -> None:
    with pytest.raises(NoMatch):
        find(wanted, LISTED)


def test_two_files_of_one_title_are_refused_and_named() -> None:
    with pytest.raises(NoMatch) as refusal:
        find("same [0123456789]", LISTED)
    assert refusal.value.suggestions == ("a/same.ckpt", "b/same.ckpt")


def test_a_hash_is_left_out_only_if_the_whole_name_is_not_there() -> None:
    listed = ("model [abcdef12].safetensors", "model.safetensors")
    assert find("model [abcdef12]", listed) == "model [abcdef12].safetensors"
    assert find("model [12345678]", listed) == "model.safetensors"


def test_what_looks_alike_is_suggested_whatever_the_hash() -> None:
    assert suggest("tinny [0123456789]", LISTED) == ("tiny.safetensors",)


def test_model_files_are_known_by_their_suffix() -> None:
    assert is_model_file("a/B.SafeTensors")
    assert not is_model_file("picture.png")


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


@given(st.lists(names, unique=True, max_size=8), names)
def test_only_what_is_listed_is_ever_returned(listed: list[str], wanted: str) -> None:
    try:
        found = find(wanted, listed)
    except NoMatch as refusal:
        assert set(refusal.suggestions) <= set(listed)  # noqa: PT017 - both outcomes are fine
        assert wanted not in listed
    else:
        assert found in listed
