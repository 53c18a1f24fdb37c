"""Request fields as they are typed."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.cli import fields
from stablequeue.errors import BadRequest

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "name", "weight"),
    [
        ("style", "style", None),
        ("style:0.8", "style", 0.8),
        ("style:-1", "style", -1.0),
        ("style:.5", "style", 0.5),
        (r"C:\loras\style.safetensors", r"C:\loras\style.safetensors", None),
        (r"C:\loras\style:0.7", r"C:\loras\style", 0.7),
        ("a:1:0.5", "a:1", 0.5),
        ("sub folder/my [lora] (v1):1", "sub folder/my [lora] (v1)", 1.0),
        ("version:600", "version:600", None),
        ("Civitai:12", "Civitai:12", None),
        ("crc32:12345678:0.5", "crc32:12345678", 0.5),
        ("civitai:1@2:-0.5", "civitai:1@2", -0.5),
        ("a:b", "a:b", None),
        ("a:nan", "a:nan", None),
        (":0.5", ":0.5", None),
    ],
)
def test_the_weight_of_a_lora_stands_behind_the_last_colon(
    text: str, name: str, weight: float | None
) -> None:
    expected = {"name": name} if weight is None else {"name": name, "weight": weight}
    assert fields.lora(text) == expected


@given(st.text(min_size=1), st.floats(-10, 10).map(lambda x: round(x, 3)))
def test_any_name_with_a_weight_is_taken_apart(name: str, weight: float) -> None:
    assert fields.lora(f"{name}:{weight:f}") == {"name": name, "weight": weight}


def test_sizes_are_width_then_height() -> None:
    assert fields.dimensions("768x512") == (768, 512)
    assert fields.dimensions("64X32") == (64, 32)
    assert fields.dimensions("512") == (512, 512)


@pytest.mark.parametrize("text", ["", "x", "512x", "-1x5", "512x512x512", "9" * 40])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadRequest) as refused:
        fields.dimensions(text)
    assert refused.value.field == "--size"


def test_overrides_are_json_or_text() -> None:
    assert fields.override("3.seed=7") == ("3.seed", 7)
    assert fields.override("KSampler.sampler_name=euler") == ("KSampler.sampler_name", "euler")
    assert fields.override('6.text="a = b"') == ("6.text", "a = b")
    for wrong in ("3=7", "seed", ".=1"):
        with pytest.raises(BadRequest):
            fields.override(wrong)


def test_times_are_durations_or_moments_and_carry_a_zone() -> None:
    assert fields.moment("2h", NOW) == (NOW + timedelta(hours=2)).isoformat()
    assert fields.moment("30 min", NOW) == (NOW + timedelta(minutes=30)).isoformat()
    assert fields.moment("2026-12-24T18:00+01:00", NOW) == "2026-12-24T17:00:00+00:00"
    assert datetime.fromisoformat(fields.moment("2026-12-24T18:00", NOW)).tzinfo is not None
    assert fields.past_moment("--since", "2d", NOW) == NOW - timedelta(days=2)


@given(st.text() | st.from_regex(r"\d{1,12}\s?[smhd]", fullmatch=True))
def test_any_text_is_a_time_or_refused(text: str) -> None:
    with suppress(BadRequest):
        fields.moment(text)
    with suppress(BadRequest):
        fields.past_moment("--since", text)


def test_set_leads_into_fields_of_fields_and_leaves_the_rest() -> None:
    old = {"hires": {"scale": 2.0}, "prompt": "a"}
    new = fields.set_fields(old, ["hires.steps=10", "sections.forge.styles=[]", "source=me"])
    assert new == {
        "hires": {"scale": 2.0, "steps": 10},
        "prompt": "a",
        "sections": {"forge": {"styles": []}},
        "source": "me",
    }
    assert old == {"hires": {"scale": 2.0}, "prompt": "a"}
    for wrong in ("", "x", "=1", "a..b=1", "prompt.x=1"):
        with pytest.raises(BadRequest):
            fields.set_fields(old, [wrong])


def test_a_workflow_is_a_json_object(tmp_path: Path) -> None:
    file = tmp_path / "w.json"
    file.write_text('{"3": {"class_type": "KSampler", "inputs": {}}}')
    assert fields.workflow(file)["3"]["class_type"] == "KSampler"
    for damaged in (b"[1]", b"{", b"\xff\xfe\x00", b"[" * 100_000):
        file.write_bytes(damaged)
        with pytest.raises(BadRequest):
            fields.workflow(file)
    with pytest.raises(BadRequest, match="cannot read"):
        fields.workflow(tmp_path / "none.json")
