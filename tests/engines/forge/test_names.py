"""Finding the server's own names."""

import json
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from stablequeue.engines.forge.answers import CHECKPOINTS, Checkpoint, LoraFile, read
from stablequeue.engines.forge.names import (
    NoMatch,
    expected_hash,
    find_checkpoint,
    find_lora,
    find_title,
    path,
    stem,
)
from tests.engines.forge.recordings import job, listed

KNOWN, NEW = read(CHECKPOINTS, json.dumps(listed("/sdapi/v1/sd-models")))


def entry(name: str, digest: str = "", **fields: Any) -> Checkpoint:
    title = f"{name} [{digest}]" if digest else name
    return Checkpoint(title=title, hash=digest, filename=f"/models/{name}", **fields)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (KNOWN.title, KNOWN),
        ("random-sd15.safetensors", KNOWN),
        ("random-sd15", KNOWN),
        ("Random-SD15", KNOWN),
        ("01cfe36ece", KNOWN),
        (KNOWN.sha256, KNOWN),
        ("renamed there since [01cfe36ece]", KNOWN),
        ("sub dir/other-sd15.safetensors", NEW),
        ("sub dir\\other-sd15.safetensors", NEW),
        ("SUB DIR\\Other-SD15", NEW),
        ("other-sd15.safetensors", NEW),
        ("other-sd15", NEW),
        ("sub dir/other-sd15.safetensors [b1ee8ef881]", NEW),  # not hashed there yet
    ],
)
def test_every_way_to_name_a_checkpoint_finds_its_own_title(wanted: str, found: Checkpoint) -> None:
    assert find_checkpoint(wanted, [KNOWN, NEW]) == found


def test_names_the_server_would_silently_replace_are_found_or_refused() -> None:
    both = read(CHECKPOINTS, json.dumps(listed("/sdapi/v1/sd-models after loading")))
    for name in ("lower", "backslash", "basename_ext", "unknown", "wrong_hash"):
        recorded = job(f"override_ckpt_{name}")
        wanted = recorded["request"]["override_settings"]["sd_model_checkpoint"]
        if name in {"unknown", "wrong_hash"}:
            with pytest.raises(NoMatch):
                find_checkpoint(wanted, both)
        else:
            # The literal string would not be understood; the title found for it is.
            assert find_checkpoint(wanted, both).filename.endswith("other-sd15.safetensors")


def test_a_hash_the_server_does_not_know_yet_is_expected_afterwards() -> None:
    wanted = "sub dir/other-sd15.safetensors [deadbeef00]"
    found = find_checkpoint(wanted, [KNOWN, NEW])
    assert found == NEW
    assert expected_hash(wanted, found) == "deadbeef00"


def test_the_right_name_with_a_wrong_hash_is_another_file() -> None:
    with pytest.raises(NoMatch) as refused:
        find_checkpoint("random-sd15.safetensors [deadbeef00]", [KNOWN, NEW])
    assert KNOWN.title in refused.value.suggestions


def test_the_hash_decides_between_equal_names() -> None:
    one, two = entry("a/model.ckpt", "aaaaaaaaaa"), entry("b/model.ckpt", "bbbbbbbbbb")
    assert find_checkpoint("model.ckpt [bbbbbbbbbb]", [one, two]) == two
    with pytest.raises(NoMatch) as refused:
        find_checkpoint("model.ckpt", [one, two])
    assert set(refused.value.suggestions) == {one.title, two.title}


def test_the_name_decides_between_copies_of_one_file() -> None:
    one, two = entry("tiny.ckpt", "aaaaaaaaaa"), entry("sub dir/tiny [v1].ckpt", "aaaaaaaaaa")
    for wanted, found in (
        ("tiny [aaaaaaaaaa]", one),  # as Forge's short titles
        ("TINY.ckpt [aaaaaaaaaa]", one),
        ("sub dir\\tiny [v1].ckpt [aaaaaaaaaa]", two),
    ):
        assert find_checkpoint(wanted, [one, two]) == found
    with pytest.raises(NoMatch) as refused:
        find_checkpoint("aaaaaaaaaa", [one, two])
    assert set(refused.value.suggestions) == {one.title, two.title}


@pytest.mark.parametrize(
    "name",
    [
        "weird (name) [v2].safetensors",
        "model [abcdef1234].safetensors",
        "sub/deeper/übermalt (日本).safetensors",
        "a.b.c.ckpt",
        " leading space.safetensors",
        "deadbeef0123.safetensors",
        "abcdef1234",
    ],
)
@pytest.mark.parametrize("digest", ["", "0123456789"])
def test_unusual_file_names_are_found_with_and_without_suffix_and_hash(
    name: str, digest: str
) -> None:
    unusual = entry(name, digest)
    others = [entry("other.safetensors", "1111111111"), entry("x/abc.safetensors")]
    for wanted in (name, unusual.title, stem(name), name.upper(), name.replace("/", "\\")):
        assert find_checkpoint(wanted, [*others, unusual]) == unusual


def test_a_windows_server_gets_its_own_backslashes_back() -> None:
    windows = entry("sub\\model.safetensors", "0123456789")
    found = find_checkpoint("sub/model.safetensors", [windows])
    assert found.title == "sub\\model.safetensors [0123456789]"


def test_another_suffix_is_another_file() -> None:
    with pytest.raises(NoMatch):
        find_checkpoint("model.ckpt", [entry("model.safetensors")])


def test_the_expected_hash_is_the_server_s_or_else_the_request_s() -> None:
    assert expected_hash("whatever", KNOWN) == "01cfe36ece"
    assert expected_hash("sub dir/other-sd15.safetensors [B1EE8EF881]", NEW) == "b1ee8ef881"
    assert expected_hash("other-sd15", NEW) == ""


LORAS = [
    LoraFile(name="tiny-lora", alias="tinyalias", path="/models/Lora/tiny-lora.safetensors"),
    LoraFile(name="ink [v1]", alias="", path="/models/Lora/style/ink [v1].safetensors"),
    LoraFile(name="twin", alias="pair", path="/models/Lora/a/twin.safetensors"),
    LoraFile(name="twin2", alias="pair", path="/models/Lora/b/twin2.safetensors"),
]


@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        ("tiny-lora", "tiny-lora"),
        ("TINY-LORA.safetensors", "tiny-lora"),
        ("tinyalias", "tiny-lora"),
        ("ink [v1]", "ink [v1]"),
        ("style/ink [v1].safetensors", "ink [v1]"),
        ("style\\ink [v1]", "ink [v1]"),
        ("b/twin2", "twin2"),
    ],
)
def test_a_lora_is_found_by_name_alias_or_path(wanted: str, name: str) -> None:
    assert find_lora(wanted, LORAS).name == name


@pytest.mark.parametrize("wanted", ["pair", "tinylora", "", " "])
def test_an_ambiguous_or_unknown_lora_is_refused(wanted: str) -> None:
    with pytest.raises(NoMatch):
        find_lora(wanted, LORAS)


def test_an_alias_of_several_loras_is_refused_with_their_names() -> None:
    with pytest.raises(NoMatch) as refused:
        find_lora("pair", LORAS)
    assert refused.value.suggestions == ("twin", "twin2")


def test_titles_are_found_whatever_their_case() -> None:
    assert find_title("ControlNet", ["controlnet", "seed"]) == "controlnet"
    with pytest.raises(NoMatch):
        find_title("ADetailer", ["controlnet", "seed"])


NAME = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@given(NAME, st.booleans(), st.booleans())
def test_a_checkpoint_is_found_in_any_case_and_with_either_slash(
    name: str, hashed: bool, windows: bool
) -> None:
    told = f"sub/{name}.safetensors".replace("/", "\\" if windows else "/")
    assume(stem(told).strip())
    checkpoint = entry(told, "0123456789" if hashed else "")
    assert find_checkpoint(path(told), [checkpoint]) == checkpoint
    assert find_checkpoint(f"{path(told)} [0123456789]", [checkpoint]) == checkpoint
