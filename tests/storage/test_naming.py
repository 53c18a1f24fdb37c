"""Keys: readable, the same on every system, never out of the folder."""

import re
from datetime import UTC, datetime
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stablequeue.errors import UnsafeName
from stablequeue.storage.naming import LONGEST_KEY, check_key, numbered, readable_key, slug

AT = datetime(2026, 11, 21, 14, 35, 2, tzinfo=UTC)
JOB = "019aa3f0-0000-7000-8000-00001a2b3c4d"


def key(prompt: str = "a cat on a roof", ordinal: int = 0, suffix: str = ".png") -> str:
    return readable_key(AT, prompt, seed=7, job_id=JOB, index=0, ordinal=ordinal, suffix=suffix)


def test_a_name_says_when_what_which_seed_and_which_job() -> None:
    assert key() == "2026-11-21/143502-a-cat-on-a-roof-s7-1a2b3c4d-0.png"


def test_further_files_of_a_picture_are_numbered() -> None:
    assert key(ordinal=2) == "2026-11-21/143502-a-cat-on-a-roof-s7-1a2b3c4d-0-2.png"


def test_tags_and_weights_do_not_show() -> None:
    assert slug("(masterpiece:1.2), a CAFÉ <lora:some_style:0.8> at night") == (
        "masterpiece-1-2-a-cafe-at-night"
    )


def test_a_prompt_in_another_script_leaves_the_rest_of_the_name() -> None:
    assert key("屋根の上の猫") == "2026-11-21/143502-s7-1a2b3c4d-0.png"


def test_a_long_prompt_is_cut_between_words() -> None:
    words = slug("supercalifragilistic " * 10)
    assert words == "supercalifragilistic-supercalifragilistic"
    assert slug("x" * 500) == "x" * 48


def test_an_odd_suffix_cannot_make_a_program() -> None:
    assert key(suffix="/../../x.exe").endswith("-0.bin")
    assert key(suffix=".PNG").endswith("-0.png")


def test_numbers_come_before_the_suffix() -> None:
    assert numbered("day/a.b.png", 3) == ["day/a.b.png", "day/a.b-2.png", "day/a.b-3.png"]
    assert numbered("day/plain", 2) == ["day/plain", "day/plain-2"]


@settings(deadline=None)
@given(
    prompt=st.text(max_size=300),
    seed=st.integers(),
    job_id=st.text(max_size=60),
    index=st.integers(-5, 10**9),
    ordinal=st.integers(-5, 10**9),
    suffix=st.text(max_size=12),
    created=st.datetimes(timezones=st.just(UTC)),
)
def test_no_input_leaves_the_folder(  # noqa: PLR0917 - hypothesis passes them by name
    prompt: str,
    seed: int,
    job_id: str,
    index: int,
    ordinal: int,
    suffix: str,
    created: datetime,
) -> None:
    made = readable_key(
        created,
        prompt,
        seed=seed % 2**53,
        job_id=job_id,
        index=index,
        ordinal=ordinal,
        suffix=suffix,
    )
    assert check_key("shelf", made) == tuple(made.split("/"))
    assert re.fullmatch(r"\d{4}-\d\d-\d\d/[a-z0-9-]+\.[a-z0-9]{1,8}", made)
    assert len(made) < LONGEST_KEY - 10
    root = Path("/srv/pictures")
    assert (root / made).resolve().is_relative_to(root)
    assert not PureWindowsPath(made).is_absolute()
    for later in numbered(made, 3):
        check_key("shelf", later)


@settings(deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_either_a_safe_key_or_refused(text: str) -> None:
    try:
        parts = check_key("shelf", text)
    except UnsafeName:
        return
    root = Path("/srv/pictures")
    assert root.joinpath(*parts).resolve().is_relative_to(root)
    assert ".." not in parts
    assert text.isascii()


@pytest.mark.parametrize("name", ["con", "NUL.png", "com1.tar.gz", "lpt0", "aux"])
def test_names_of_windows_devices_are_refused(name: str) -> None:
    with pytest.raises(UnsafeName, match="Windows"):
        check_key("shelf", f"2026-11-21/{name}")
