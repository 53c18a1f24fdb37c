"""The one shape of a job."""

import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import BadRequest
from stablequeue.models.references import parse_reference
from stablequeue.request import LARGEST_SEED, SCHEMA_VERSION, GenerationRequest, parse_request

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda below: st.lists(below) | st.dictionaries(st.text(), below),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("data", "field", "allowed"),
    [
        ({"steps": 0}, "steps", "greater than or equal to 1"),
        ({"width": 513}, "width", "multiple of 8"),
        ({"mode": "img2img"}, "init_image", "needed for mode img2img"),
        ({"mode": "inpaint", "init_image": "a.png"}, "mask_image", "needed"),
        ({"mode": "workflow"}, "workflow", "needed"),
        ({"tier": "urgent"}, "tier", "interactive"),
        ({"loras": [{"name": "x", "weight": 99}]}, "loras.0.weight", "10"),
        ({"stepps": 3}, "stepps", "Allowed: "),
        ({"server": "My Server"}, "server", "pattern"),
        ({"checkpoint": "a", "unet": "b"}, "unet", "not both"),
        ({"overrides": {"3.seed": 1}}, "overrides", "workflow"),
        ({"seed": LARGEST_SEED, "count": 2}, "seed", str(LARGEST_SEED)),
        ({"expires_at": "2026-01-01T00:00:00"}, "expires_at", "timezone"),
        ({"mode": "workflow", "workflow": {"nodes": [], "links": []}}, "workflow", "no nodes"),
        ({"mode": "workflow", "workflow": {"3": {}}}, "workflow", "class_type"),
        ({"schema_version": SCHEMA_VERSION + 1}, "schema_version", "newer release"),
        ({"schema_version": "one"}, "schema_version", "Allowed: 1"),
        ({"prompt": "a\0b"}, "prompt", "NUL"),
        ({"": float("inf")}, "''", "no finite number"),
    ],
)
def test_a_bad_request_is_refused_naming_the_field_and_what_is_allowed(
    data: dict[str, Any], field: str, allowed: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        parse_request(data)

    assert refused.value.field == field
    assert allowed in str(refused.value)


@given(st.dictionaries(st.sampled_from(sorted(GenerationRequest.model_fields)), JSON))
def test_no_request_whatever_it_holds_gives_anything_but_one_line(data: dict[str, Any]) -> None:
    refusal = ""
    try:
        request = parse_request(data)
    except BadRequest as refused:
        refusal = str(refused)
    else:
        assert parse_request(request.dumped()) == request
    assert "\n" not in refusal


def test_a_request_reads_back_what_it_dumps() -> None:
    request = parse_request(
        {
            "positive_prompt": "a fox",
            "mode": "img2img",
            "init_image": "sha256:" + "0" * 64,
            "loras": [{"name": "snow", "weight": 0.5}],
            "sections": {"forge": {"styles": ["x"]}},
            "expires_at": "2026-01-01T00:00:00+01:00",
        }
    )

    assert request.prompt == "a fox"
    assert parse_request(request.dumped()) == request
    assert request.dumped()["schema_version"] == SCHEMA_VERSION


def test_a_job_goes_only_to_servers_it_says_something_for() -> None:
    assert parse_request({}).app_types == frozenset()
    assert parse_request({"sections": {"forge": {"styles": ["x"]}}}).app_types == {"forge"}
    untouched: dict[str, Any] = {"sections": {"comfyui": {"preview_method": ""}, "forge": {}}}
    assert parse_request(untouched).app_types == frozenset()
    assert parse_request({"alwayson_scripts": {"x": {"args": []}}}).app_types == {"forge"}
    graph: dict[str, Any] = {"1": {"class_type": "KSampler", "inputs": {}}}
    assert parse_request({"mode": "workflow", "workflow": graph}).app_types == {"comfyui"}


def test_a_name_that_prefect_would_read_as_a_template_is_refused() -> None:
    graph = {"1": {"class_type": "X", "inputs": {"__prefect_kind": "jinja", "template": "{{ x }}"}}}

    with pytest.raises(BadRequest, match="Prefect keeps for itself"):
        parse_request({"mode": "workflow", "workflow": graph})
    assert parse_request({"prompt": "__prefect_kind"}).prompt == "__prefect_kind"


def test_seed_0_is_0_and_a_job_expires_only_when_told() -> None:
    now = datetime.now(UTC)
    assert parse_request({"seed": 0}).seed == 0
    assert not parse_request({}).expired(now)
    assert parse_request({"expires_at": now - timedelta(seconds=1)}).expired(now)
    assert not parse_request({"expires_at": now + timedelta(hours=1)}).expired(now)


REFERENCES = (
    "dream.safetensors",
    r"sub\my [v1] (2).safetensors",
    "dream.safetensors [0123456789]",
    "0123456789",
    f"sha256:{'ab' * 32}",
    "civitai:500@600+700",
    "version:600",
    "urn:air:sdxl:lora:civitai:500@600",
    "https://civitai.com/models/500?modelVersionId=600",
    "https://civitai.com/api/download/models/600?type=Model&format=SafeTensor",
    "hf:owner/repo/folder/file.safetensors@main",
    "https://huggingface.co/owner/repo/resolve/main/file.safetensors",
    "https://host.example/file.safetensors?X-Amz-Signature=" + "0" * 1500,
    "C:\\models\\a.safetensors",
    "12345",
)


@pytest.mark.parametrize("reference", REFERENCES)
def test_a_model_may_be_named_by_any_reference(reference: str) -> None:
    request = parse_request(
        {
            "checkpoint": reference,
            "vae": reference,
            "text_encoders": [reference],
            "loras": [{"name": reference}],
        }
    )
    assert (request.checkpoint, request.vae) == (reference, reference)
    assert (request.text_encoders[0], request.loras[0].name) == (reference, reference)
    assert parse_request(request.dumped()) == request
    parse_reference(reference)


@pytest.mark.parametrize(
    "nonsense",
    [
        "ftp://host/a.safetensors",
        "http://host.example/a.safetensors",
        "https://user:canary-1@host.example/a.safetensors",
        "https://civitai.com/images/5",
        "https://civitai.com/posts/5",
        "sha256:xyz",
        "urn:air:sdxl:lora",
        "version:0",
        f"sha256:{hashlib.sha256().hexdigest()}",
    ],
)
def test_what_claims_to_be_a_reference_and_is_none_is_refused(nonsense: str) -> None:
    for fields, place in (
        ({"checkpoint": nonsense}, "checkpoint"),
        ({"loras": [{"name": nonsense}]}, "loras.0.name"),
    ):
        with pytest.raises(BadRequest) as refused:
            parse_request(fields)
        assert refused.value.field == place
        assert "canary" not in str(refused.value)


def test_a_key_in_an_address_of_civitai_is_not_kept() -> None:
    url = "https://civitai.com/api/download/models/600?token=canary-1&fileId=7"
    request = parse_request({"checkpoint": url})
    assert request.checkpoint == "version:600+7"
    assert "canary" not in str(request.dumped())
