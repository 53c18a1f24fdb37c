"""Finding a server's own name for what a request names, whatever the server."""

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.model_names import NoMatch, find, path, search, stem, suggest

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
NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@dataclass(frozen=True)
class Entry:
    """Something with a name."""

    name: str
    number: int = 0


@pytest.mark.parametrize("name", LISTED)
def test_the_literal_name_is_always_found(name: str) -> None:
    assert find(name, LISTED, str) == name


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("sub dir\\full model (v1) [x].safetensors", "sub dir/full model (v1) [x].safetensors"),
        ("win/sub/model.ckpt", "win\\sub\\model.ckpt"),
        ("win/sub/model", "win\\sub\\model.ckpt"),
        ("full model (v1) [x]", "sub dir/full model (v1) [x].safetensors"),
        ("Full Model (V1) [X].safetensors", "sub dir/full model (v1) [x].safetensors"),
        ("TINY", "tiny.safetensors"),
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
    assert find(wanted, LISTED, str) == found


@pytest.mark.parametrize("wanted", ["same", "same.safetensors", "Twin", "A/B/Same"])
def test_a_name_that_could_be_two_is_refused_and_both_are_named(wanted: str) -> None:
    for look in (find, search):
        with pytest.raises(NoMatch) as refusal:
            look(wanted, LISTED, str)
        assert len(refusal.value.suggestions) == 2


@pytest.mark.parametrize(
    ("wanted", "suggestion"),
    [("tinny", "tiny.safetensors"), ("sub dir/othr", "sub dir/other.safetensors")],
)
def test_what_only_looks_alike_is_suggested_and_not_taken(wanted: str, suggestion: str) -> None:
    assert search(wanted, LISTED, str) is None
    with pytest.raises(NoMatch) as refusal:
        find(wanted, LISTED, str)
    assert suggestion in refusal.value.suggestions


@pytest.mark.parametrize(
    "wanted",
    ["", " ", "[abcdef12]", "tiny.ckpt", "tin", "dir/tiny.ckpt", "tiny.safetensors [0123456789]"],
)
def test_other_files_are_not_taken_for_it(wanted: str) -> None:
    assert search(wanted, LISTED, str) is None
    with pytest.raises(NoMatch):
        find(wanted, LISTED, str)


def test_the_same_entry_twice_is_one_but_two_of_one_name_are_two() -> None:
    assert find("a", ["a", "a"], str) == "a"
    twice = [Entry("a", 1), Entry("a", 1)]
    assert find("a", twice, lambda entry: entry.name) == Entry("a", 1)
    with pytest.raises(NoMatch):
        find("a", [Entry("a", 1), Entry("a", 2)], lambda entry: entry.name)


@given(st.lists(NAME, min_size=1, max_size=8, unique=True))
def test_every_listed_name_names_itself(listed: list[str]) -> None:
    assert [find(name, listed, str) for name in listed] == listed


@given(NAME, st.lists(NAME, max_size=8))
def test_what_is_found_is_of_the_list_and_looks_like_what_was_asked(
    wanted: str, listed: list[str]
) -> None:
    try:
        found = find(wanted, listed, str)
    except NoMatch as error:
        assert set(error.suggestions) <= set(listed)  # noqa: PT017 - both outcomes are fine
        return
    assert found in listed
    assert stem(path(found)).casefold() == stem(path(wanted)).casefold()


@given(NAME)
def test_suggestions_come_from_the_list(wanted: str) -> None:
    assert set(suggest(wanted, LISTED)) <= set(LISTED)
