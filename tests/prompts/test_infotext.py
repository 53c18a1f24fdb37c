"""Infotexts read and written, the recorded ones and damaged ones."""

import contextlib
import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from stablequeue.errors import QueueError, UnreadableFile
from stablequeue.prompts import Infotext, format_infotext, parse_infotext, request_from_infotext
from stablequeue.prompts.infotext import LARGEST_INFOTEXT

RECORDINGS = Path(__file__).parents[1] / "recordings" / "infotext"
FORGE: dict[str, str] = json.loads((RECORDINGS / "forge.json").read_text(encoding="utf-8"))
TEXTS = {path.stem: path.read_text(encoding="utf-8") for path in RECORDINGS.glob("*.txt")}


def test_a_plain_infotext_is_read() -> None:
    found = parse_infotext(FORGE["txt2img_lora"])
    assert found.prompt == "a cat <lora:tiny-lora:0.7>"
    assert found.negative_prompt == ""
    assert found.params["Steps"] == "2"
    assert found.params["Sampler"] == "Euler"
    assert found.params["Schedule type"] == "Automatic"
    assert found.params["Lora hashes"] == "tiny-lora: 8a7dd4ef3259"
    assert list(found.params)[-1] == "Version"


def test_prompts_of_several_lines_keep_their_colons_and_commas() -> None:
    found = parse_infotext(TEXTS["parameters_a1111"])
    assert found.prompt.splitlines()[1] == "second prompt line"
    assert found.negative_prompt == "lowres, bad: hands"
    assert found.params["Size"] == "832x1216"
    assert found.params["Lora hashes"] == (
        "paper_crane_style-10: 4ed7c7b88a02, sub name.v1: 0123456789ab"
    )
    assert json.loads(found.params["Hashes"])["vae"] == "5c9b51283f"


def test_bare_json_values_are_kept_whole() -> None:
    found = parse_infotext(TEXTS["parameters_civitai_onsite"])
    assert [one["type"] for one in json.loads(found.params["Civitai resources"])] == [
        "checkpoint",
        "lora",
    ]
    assert json.loads(found.params["Civitai metadata"]) == {"remixOfId": 0, "extra": {"a": 1}}
    assert found.params["Created Date"] == "2026-05-05T0505:05.0000000Z"


def test_forges_modules_stand_behind_the_version() -> None:
    found = parse_infotext(TEXTS["parameters_forge"])
    assert (found.params["Module 1"], found.params["Module 2"]) == ("lantern_vae", "clip_l")
    assert found.params["Distilled CFG Scale"] == "3.5"


def test_an_infotext_without_a_prompt_has_none() -> None:
    found = parse_infotext(FORGE["txt2img_empty_prompt"])
    assert found.prompt == ""
    assert found.params["Seed"] == "3605549598"


def test_a_nul_in_a_prompt_is_left_out() -> None:
    assert parse_infotext(FORGE["txt2img_odd_embedded_nul"]).prompt == "ab"


@pytest.mark.parametrize("text", [*FORGE.values(), *TEXTS.values()])
def test_writing_what_was_read_gives_the_same_text(text: str) -> None:
    # Civitai does not quote its date, which A1111 would for its colons.
    date = "2026-05-05T0505:05.0000000Z"
    written = format_infotext(parse_infotext(text)).replace(f'"{date}"', date)
    assert written == text.strip().replace("\0", "")


def test_text_without_parameters_is_all_prompt() -> None:
    found = parse_infotext("a cat: sitting, on a roof\nNegative prompt: dogs\nand more")
    assert found.prompt == "a cat: sitting, on a roof"
    assert found.negative_prompt == "dogs\nand more"
    assert found.params == {}


def test_a_prompt_that_speaks_of_steps_is_still_a_prompt() -> None:
    found = parse_infotext("Steps: a staircase, a cat\nSteps: 3, Seed: 4")
    assert found.prompt == "Steps: a staircase, a cat"
    assert found.params == {"Steps": "3", "Seed": "4"}


def test_parameters_may_run_over_several_lines() -> None:
    found = parse_infotext("a cat\nSteps: 3, Seed: 4,\nModel: some model")
    assert found.params == {"Steps": "3", "Seed": "4", "Model": "some model"}


def test_parameters_need_not_begin_with_the_steps() -> None:
    found = parse_infotext("a cat\nSampler: Euler, Seed: 4, Steps: 3")
    assert found.params == {"Sampler": "Euler", "Seed": "4", "Steps": "3"}
    assert parse_infotext("one: two, three: four").params == {}


def test_line_ends_of_every_system_are_understood() -> None:
    found = parse_infotext("a\r\nb\r\nNegative prompt: c\r\nSteps: 3, Seed: 4\r\n")
    assert (found.prompt, found.negative_prompt) == ("a\nb", "c")
    assert found.params == {"Steps": "3", "Seed": "4"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ('"a, b: c"', "a, b: c"),
        (r'"line\nbreak \"quoted\" \u00e9 \\"', 'line\nbreak "quoted" é \\'),
        ("a, b", "a, b"),
        ('"unclosed, b', '"unclosed, b'),
        ('"closed" and more', '"closed" and more'),
        (r'"bad \x escape"', r'"bad \x escape"'),
        ("{broken: [json", "{broken: [json"),
        ('{"a": NaN}', '{"a": NaN}'),
        ("", ""),
    ],
)
def test_values_are_read_however_they_are_quoted(written: str, value: str) -> None:
    found = parse_infotext(f"a cat\nSteps: 3, Template: {written}, Seed: 4").params
    assert found["Template"] == value
    assert found["Seed"] == "4"


def test_a_text_without_end_is_refused() -> None:
    with pytest.raises(UnreadableFile, match="too long"):
        parse_infotext("x" * (LARGEST_INFOTEXT + 1))


KEYS = st.from_regex(r"\A[A-Za-z][A-Za-z0-9 _./()-]{0,20}[a-z0-9)]\Z").filter(
    lambda key: key != "Steps"
)
VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40)
LINE = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029"), max_size=60
).map(str.strip)
PROMPTS = (
    st.lists(LINE.filter(lambda line: not line.startswith(("Steps:", "Negative prompt:"))))
    .map("\n".join)
    .map(str.strip)
)


@settings(deadline=None)
@given(
    prompt=PROMPTS,
    negative_prompt=PROMPTS,
    params=st.dictionaries(KEYS, VALUES, max_size=6),
)
@example(prompt="", negative_prompt="", params={})
@example(prompt="a", negative_prompt="", params={"Hashes": '{"model": "x, y"}', "b": ' "'})
def test_what_is_written_is_what_is_read(
    prompt: str, negative_prompt: str, params: dict[str, str]
) -> None:
    whole = Infotext(
        prompt=prompt, negative_prompt=negative_prompt, params={"Steps": "20", **params}
    )
    assert parse_infotext(format_infotext(whole)) == whole


@settings(deadline=None)
@given(st.text(max_size=400))
@example('Steps: 1, a: "b" c, "')
@example("a: 1, a: 2, a: 3")
@example("Negative prompt: a\nNegative prompt: b")
def test_writing_and_reading_again_changes_nothing_more(text: str) -> None:
    once = format_infotext(parse_infotext(text))
    assert format_infotext(parse_infotext(once)) == once


def damaged(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 8)):
        at = rng.randrange(len(text) + 1)
        match rng.randrange(5):
            case 0:
                text = (
                    text[:at]
                    + rng.choice(':,"{}[]<>\n\\\0 é\U0001f408') * rng.randint(1, 3)
                    + text[at:]
                )
            case 1:
                text = text[:at] + text[at + rng.randint(1, 20) :]
            case 2:
                text = (
                    text[:at] + "".join(chr(rng.randrange(1, 0xD800)) for _ in range(4)) + text[at:]
                )
            case 3:
                text = text[:at] + rng.choice(["9" * 30, "-1", "nan", "1e999", "0x10"]) + text[at:]
            case _:
                other = rng.randrange(len(text) + 1)
                text = text[:at] + text[min(at, other) : max(at, other)] + text[at:]
    return text


def test_five_hundred_damaged_infotexts_give_a_request_or_one_error() -> None:
    rng = random.Random(20261121)
    sources = [*FORGE.values(), *TEXTS.values()]
    refusals: list[str] = []
    for number in range(500):
        text = damaged(sources[number % len(sources)], rng)
        try:
            request, notes = request_from_infotext(text)
        except QueueError as error:
            refusals.append(str(error))
        else:
            assert request.dumped()["schema_version"] == 1
            assert not any("\n" in note for note in notes)
    assert len(refusals) < 50
    assert not any("\n" in refusal for refusal in refusals)


@pytest.mark.parametrize(
    "piece",
    [
        'a:"x,',
        "a:[1,",
        "a:{,",
        "a:[[[[[[[[",
        'a:"\\",',
        ":",
        "a:",
        "<lora:",
        "<lora:x:1:",
        ",,,,",
        "Steps: 1\n",
        "Negative prompt:\n",
        '[{"a":1},a:',
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = "a cat\nSteps: 20, " + piece * (90_000 // len(piece))
    begin = time.perf_counter()
    with contextlib.suppress(QueueError):
        request_from_infotext(text)
    assert time.perf_counter() - begin < 5
