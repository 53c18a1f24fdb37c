"""What a server lacks of a request, and the same request under other names."""

import pickle
from typing import Any

import pytest

from stablequeue.engines.comfyui.workflow import with_overrides
from stablequeue.errors import ModelMissing
from stablequeue.models.kinds import ModelType
from stablequeue.pipeline.needs import Need, needs_of, renamed
from stablequeue.request import GenerationRequest


def request(**values: Any) -> GenerationRequest:
    return GenerationRequest.model_validate({"prompt": "x", **values})


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("checkpoint", ModelType.CHECKPOINT),
        ("unet", ModelType.DIFFUSION_MODEL),
        ("vae", ModelType.VAE),
        ("text_encoders.1", ModelType.TEXT_ENCODER),
        ("loras.3.name", ModelType.LORA),
        ("negative_prompt", ModelType.LORA),
        ("hires.upscaler", ModelType.UPSCALER),
        ("upscale.upscaler", ModelType.UPSCALER),
        ("workflow.12:3.ckpt_name", ModelType.CHECKPOINT),
        ("workflow.a.b.clip_name2", ModelType.TEXT_ENCODER),
        ("workflow.4.control_net_name", ModelType.CONTROLNET),
        ("workflow.4.some_custom_file", None),
        ("sections.forge.payload.refiner_checkpoint", ModelType.CHECKPOINT),
    ],
)
def test_the_field_says_what_the_model_is_for(field: str, kind: ModelType | None) -> None:
    [need] = needs_of(ModelMissing("gpu", field, "name"))
    assert need.kind is kind


def test_everything_that_is_missing_is_needed_once() -> None:
    also = [ModelMissing("gpu", "prompt", "b"), ModelMissing("gpu", "prompt", "b")]
    missing = ModelMissing("gpu", "checkpoint", "a", ["alike"], also)
    assert [(one.field, one.given) for one in needs_of(missing)] == [
        ("checkpoint", "a"),
        ("prompt", "b"),
    ]
    assert "Nor is there prompt 'b'" in str(missing)
    again = pickle.loads(pickle.dumps(missing))
    assert (str(again), [one.name for one in again.also]) == (str(missing), ["b", "b"])


def test_every_kind_of_field_gets_its_other_name_and_the_rest_stays() -> None:
    before = request(
        prompt="<lora:123:0.5> and <lora:other:1> <LORA: 123 :0.2>",
        checkpoint="version:1",
        vae="version:2",
        text_encoders=["version:3", "t5"],
        loras=[{"name": "keep"}, {"name": "version:4", "weight": 0.3}],
        hires={"scale": 2, "upscaler": "version:5"},
        sections={"forge": {"payload": {"refiner_checkpoint": "version:6", "x": 1}}},
    )
    fields = {
        "prompt": "123",
        "checkpoint": "version:1",
        "vae": "version:2",
        "text_encoders.0": "version:3",
        "loras.1.name": "version:4",
        "hires.upscaler": "version:5",
        "sections.forge.payload.refiner_checkpoint": "version:6",
    }
    needs = [Need(field, given, None) for field, given in fields.items()]
    after = renamed(before, [(need, f"new {n}") for n, need in enumerate(needs)])

    assert after.prompt == "<lora:new 0:0.5> and <lora:other:1> <LORA:new 0:0.2>"
    assert (after.checkpoint, after.vae) == ("new 1", "new 2")
    assert after.text_encoders == ["new 3", "t5"]
    assert [(one.name, one.weight) for one in after.loras] == [("keep", 1.0), ("new 4", 0.3)]
    assert (after.hires.upscaler, after.hires.scale) == ("new 5", 2)
    assert after.sections.forge is not None
    assert after.sections.forge.payload == {"refiner_checkpoint": "new 6", "x": 1}
    assert before.checkpoint == "version:1"


def test_an_input_of_a_workflow_gets_its_other_name_even_against_an_override() -> None:
    graph = {"7": {"class_type": "L", "inputs": {"lora_name": "a"}, "_meta": {"title": "style"}}}
    before = request(mode="workflow", workflow=graph, overrides={"style.lora_name": "version:9"})
    after = renamed(before, [(Need("workflow.7.lora_name", "version:9", None), "b.safetensors")])
    made = with_overrides(after.workflow, after.overrides)
    assert made["7"]["inputs"]["lora_name"] == "b.safetensors"
