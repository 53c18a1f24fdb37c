"""The run form: what a person sees, and what a program may still give."""

from typing import Any

import pytest
from prefect import flow
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools.validation import ValidationError, validate

from deployments.schema import form_schema
from stablequeue.forms import drop_none
from stablequeue.request import GenerationRequest, parse_request


@flow
async def generate(request: GenerationRequest, job_id: str = "") -> str:
    """Stand in for the real flow, whose parameters are these.

    Args:
        request: What to make, with what, where.
        job_id: Filled in by StableQueue's own client. Leave empty.
    """
    return f"{request} {job_id}"


PARAMETERS: dict[str, Any] = parameter_schema(generate).model_dump_for_openapi()


def form(server: str = "gpu-a", kind: str = "comfyui", *, fixed: bool = True) -> dict[str, Any]:
    return form_schema(PARAMETERS, server, kind=kind, fixed=fixed)


def fields(schema: dict[str, Any]) -> dict[str, Any]:
    return schema["definitions"]["GenerationRequest"]["properties"]


def accepts(schema: dict[str, Any], parameters: dict[str, Any]) -> bool:
    """Whether Prefect takes a run with these parameters, as it checks them itself."""
    try:
        validate(parameters, schema, raise_on_error=True)
    except ValidationError:
        return False
    return True


def test_no_field_is_a_choice_of_tabs() -> None:
    for owner in form()["definitions"].values():
        for name, field in owner.get("properties", {}).items():
            assert "anyOf" not in field, name


def test_every_field_has_a_human_title_and_says_what_it_is() -> None:
    for kind in ("comfyui", "forge"):
        for owner in form(kind=kind)["definitions"].values():
            for name, field in owner.get("properties", {}).items():
                assert "_" not in field["title"], name
                assert field["title"][0].isupper(), name
                # A part of its own is described by its definition.
                assert field.get("description") or "$ref" in field, f"{owner['title']}.{name}"


def test_enums_are_lists_to_choose_from() -> None:
    definitions = form()["definitions"]
    assert definitions["Mode"]["enum"][0] == "txt2img"
    assert definitions["Tier"]["enum"] == ["interactive", "normal", "bulk"]


def test_the_prompt_comes_early_and_places_are_numbered() -> None:
    shown = fields(form())
    assert [field["position"] for field in shown.values()] == list(range(len(shown)))
    assert shown["prompt"]["position"] <= 1


def test_the_server_is_fixed_and_another_is_refused() -> None:
    schema = form()
    assert fields(schema)["server"]["enum"] == ["gpu-a"]
    assert fields(schema)["server"]["default"] == "gpu-a"
    assert accepts(schema, {"request": {"prompt": "x", "server": "gpu-a"}})
    assert accepts(schema, {"request": {"prompt": "x"}})
    assert not accepts(schema, {"request": {"prompt": "x", "server": "gpu-b"}})


def test_the_form_for_any_server_takes_any_alias() -> None:
    schema = form("any", "", fixed=False)
    assert fields(schema)["server"]["default"] == "any"
    assert accepts(schema, {"request": {"server": "gpu-7"}})


@pytest.mark.parametrize(
    ("kind", "shown", "hidden"),
    [
        ("comfyui", {"workflow", "overrides", "sections"}, {"alwayson_scripts"}),
        ("forge", {"alwayson_scripts", "sections"}, {"workflow", "overrides"}),
        ("", set[str](), {"workflow", "overrides", "alwayson_scripts", "sections"}),
    ],
)
def test_only_what_the_server_understands_is_shown(
    kind: str, shown: set[str], hidden: set[str]
) -> None:
    schema = form(kind=kind)
    assert shown <= set(fields(schema))
    assert not hidden & set(fields(schema))
    for name in hidden:
        assert accepts(schema, {"request": {name: {}}})


def test_what_programs_fill_in_is_hidden_but_taken() -> None:
    schema = form()
    assert set(schema["properties"]) == {"request"}
    assert not {"schema_version", "source"} & set(fields(schema))
    given = {"schema_version": 1, "source": "cron", "prompt": "x"}
    assert accepts(schema, {"request": given, "job_id": "0192"})


def test_a_field_may_be_given_under_its_other_name() -> None:
    assert accepts(form(), {"request": {"positive_prompt": "x"}})


def test_a_mistyped_field_is_refused_before_a_run_exists() -> None:
    assert not accepts(form(), {"request": {"prompt_": "x"}})
    assert not accepts(form(), {"request": {"steps": "many"}})
    assert not accepts(form(), {"request": {"steps": 0}})
    assert not accepts(form(), {})


def test_a_form_sent_untouched_is_accepted_and_is_a_plain_request() -> None:
    """As Prefect's page sends it: null for an empty date, its own mark for empty JSON removed."""
    untouched = {
        "mode": "txt2img",
        "prompt": "a cat in a hat",
        "server": "gpu-a",
        "checkpoint": "",
        "clip_skip": 0,
        "expires_at": None,
        "hires": {"scale": 0, "upscaler": "Latent", "steps": 0, "denoising_strength": 0.5},
        "sections": {"comfyui": {"preview_method": ""}},
        "output": {"format": "original", "quality": 90},
    }
    assert accepts(form(), {"request": untouched})
    assert parse_request(untouched).prompt == "a cat in a hat"


def test_what_our_client_sends_is_accepted() -> None:
    request = parse_request(
        {
            "prompt": "x",
            "loras": [{"name": "l", "weight": 0.5}],
            "seed": 5,
            "tags": ["t"],
            "hires": {"scale": 2},
        }
    )
    assert accepts(form(), {"request": request.dumped(), "job_id": "j"})


def test_the_given_schema_is_left_alone() -> None:
    before = repr(PARAMETERS)
    form()
    assert repr(PARAMETERS) == before


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None, "title": "T"},
            {"type": "string", "title": "T"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "null"}], "default": "x"},
            {"type": "string", "default": "x"},
        ),
        (
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
            {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        ),
        ({"type": "string"}, {"type": "string"}),
    ],
)
def test_an_optional_field_becomes_a_plain_one(
    field: dict[str, Any], expected: dict[str, Any]
) -> None:
    drop_none(field)
    assert field == expected
