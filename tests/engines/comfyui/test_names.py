"""Finding the server's own name for a model."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stablequeue.engines.comfyui.names import NoMatch, find, suggest

LISTED = (
    "sub dir/full model (v1) [x].safetensors",
    "sub dir/other.safetensors",
    "win\\sub\\model.ckpt",
    "tiny.safetensors",
    "TWIN.safetensors",
    "twin.safetensors",
    "a/same.safetensors",
    "b/same.safetensors",
    "модель-ünï.safetensors",
    "plain [abcdef12].safetensors",
    "hashed [abcdef12]",
)


@pytest.mark.parametrize("name", LISTED)
def test_the_literal_name_is_always_found(name: str) -> None:
    assert find(name, LISTED) == name


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("sub dir\\full model (v1) [x].safetensors", "sub dir/full model (v1) [x].safetensors"),
        ("win/sub/model.ckpt", "win\\sub\\model.ckpt"),
        ("win/sub/model", "win\\sub\\model.ckpt"),
        ("full model (v1) [x]", "sub dir/full model (v1) [x].safetensors"),
        ("Full Model (V1) [X].safetensors", "sub dir/full model (v1) [x].safetensors"),
        ("TINY", "tiny.safetensors"),
        ("tiny.safetensors [0123456789]", "tiny.safetensors"),
        ("tiny [0123456789]", "tiny.safetensors"),
        ("МОДЕЛЬ-ünï", "модель-ünï.safetensors"),
        ("модель-u\u0308ni\u0308.safetensors", "модель-ünï.safetensors"),
        ("plain [abcdef12]", "plain [abcdef12].safetensors"),
        ("elsewhere/other.safetensors", "sub dir/other.safetensors"),
        ("/tiny.safetensors", "tiny.safetensors"),
        ("twin", "twin.safetensors"),
    ],
)
def test_names_are_found_with_either_slash_any_case_and_without_suffix(
    wanted: str, found: str
) -> None:
    assert find(wanted, LISTED) == found


@pytest.mark.parametrize("wanted", ["same", "same.safetensors", "Twin", "A/B/Same"])
def test_a_name_that_could_be_two_is_refused_and_both_are_named(wanted: str) -> None:
    with pytest.raises(NoMatch) as refusal:
        find(wanted, LISTED)
    assert len(refusal.value.suggestions) == 2


@pytest.mark.parametrize(
    ("wanted", "suggestion"),
    [("tinny", "tiny.safetensors"), ("sub dir/othr", "sub dir/other.safetensors")],
)
def test_what_only_looks_alike_is_suggested_and_not_taken(wanted: str, suggestion: str) -> None:
    with pytest.raises(NoMatch) as refusal:
        find(wanted, LISTED)
    assert suggestion in refusal.value.suggestions


@pytest.mark.parametrize("wanted", ["", " ", "[abcdef12]", "tiny.ckpt", "tin", "dir/tiny.ckpt"])
def test_other_files_are_not_taken_for_it(wanted: str) -> None:
    with pytest.raises(NoMatch):
        find(wanted, LISTED)


def test_a_hash_is_left_out_only_if_the_whole_name_is_not_there() -> None:
    listed = ("model [abcdef12].safetensors", "model.safetensors")
    assert find("model [abcdef12]", listed) == "model [abcdef12].safetensors"
    assert find("model [12345678]", listed) == "model.safetensors"


names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), min_size=1, max_size=20)


@given(st.lists(names, unique=True, max_size=8), names)
def test_only_what_is_listed_is_ever_returned(listed: list[str], wanted: str) -> None:
    try:
        found = find(wanted, listed)
    except NoMatch as refusal:
        found = ""
        listed_too = refusal.suggestions
    else:
        listed_too = (found,)
    assert set(listed_too) <= set(listed)
    assert (wanted in listed) <= (found == wanted)


@given(st.lists(names, unique=True, min_size=1, max_size=8))
def test_every_listed_name_names_itself(listed: list[str]) -> None:
    assert [find(name, listed) for name in listed] == listed


@given(names)
def test_suggestions_come_from_the_list(wanted: str) -> None:
    assume(wanted.strip())
    assert set(suggest(wanted, LISTED)) <= set(LISTED)
