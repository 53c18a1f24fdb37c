"""Requests made of infotexts, and infotexts of requests."""

import json
from pathlib import Path
from typing import Any

import pytest

from stablequeue.errors import BadRequest
from stablequeue.prompts import (
    add_tags,
    format_infotext,
    infotext_of,
    lift_tags,
    request_from_infotext,
)
from stablequeue.request import GenerationRequest, Lora, Mode

RECORDINGS = Path(__file__).parents[1] / "recordings" / "infotext"
FORGE: dict[str, str] = json.loads((RECORDINGS / "forge.json").read_text(encoding="utf-8"))


def recorded(name: str) -> str:
    return (RECORDINGS / f"parameters_{name}.txt").read_text(encoding="utf-8")


def request_of(text: str) -> GenerationRequest:
    request, notes = request_from_infotext(text)
    assert notes == []
    return request


def params(**values: str) -> str:
    told = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in values.items())
    return f"a cat\nSteps: 20, Model: m, {told}"


def test_an_a1111_infotext_becomes_the_request_it_tells() -> None:
    request, notes = request_from_infotext(recorded("a1111"))
    assert notes == []
    assert request.mode is Mode.TXT2IMG
    assert request.prompt == (
        "paper crane style, a lantern fish, (glow:1.2), quiet_embed  \nsecond prompt line"
    )
    assert request.negative_prompt == "lowres, bad: hands"
    assert request.loras == [
        Lora(name="paper_crane_style-10", weight=0.8),
        Lora(name="sub name.v1", weight=0.7, text_weight=-0.5),
    ]
    assert (request.steps, request.cfg_scale, request.seed) == (28, 5.0, 123456789)
    assert (request.sampler, request.scheduler) == ("DPM++ 2M", "Karras")
    assert (request.width, request.height) == (832, 1216)
    assert (request.checkpoint, request.vae) == ("lanternFishXL_v20", "lantern_vae.safetensors")
    assert request.clip_skip == 2
    assert (request.hires.scale, request.hires.denoising_strength) == (1.5, 0.4)


def test_forges_modules_become_vae_and_text_encoders() -> None:
    request = request_of(recorded("forge"))
    assert (request.unet, request.checkpoint) == ("lanternFishXL_v20", "")
    assert (request.vae, request.text_encoders) == ("lantern_vae", ["clip_l"])
    assert (request.cfg_scale, request.guidance, request.scheduler) == (1.0, 3.5, "Simple")


def test_a_lone_vae_module_leaves_the_checkpoint_one() -> None:
    request = request_of(params(Module_1="ae.safetensors"))
    assert (request.checkpoint, request.unet, request.vae) == ("m", "", "ae.safetensors")


def test_civitais_resources_are_asked_for_by_reference() -> None:
    request, notes = request_from_infotext(recorded("civitai_onsite"))
    assert request.checkpoint == "https://civitai.com/model-versions/9910202"
    assert request.loras == [Lora(name="urn:air:sdxl:lora:civitai:9900200@9910301", weight=0.65)]
    assert [note.split(":")[0] for note in notes] == ["Civitai resources"] * 2
    assert "Lantern Fish XL" in notes[0]


def test_automatic_means_the_usual_scheduler() -> None:
    request = request_of(FORGE["txt2img_lora"])
    assert request.scheduler == ""
    assert request.loras == [Lora(name="tiny-lora", weight=0.7)]
    assert request.prompt == "a cat"


@pytest.mark.parametrize("name", sorted(FORGE))
def test_every_recorded_infotext_makes_a_request(name: str) -> None:
    request, notes = request_from_infotext(FORGE[name])
    assert request.checkpoint in {"random-sd15", "other-sd15"}
    assert request.width == 64
    expected = {
        "img2img_datauri_includeinit": ["it was made from another picture"],
        "img2img_mask": ["it was made with a mask"],
        "txt2img_alwayson": ["freeu_enabled: True"]
        + [f"freeu_{x}" for x in ["b1", "b2", "s1", "s2"]]
        + ["freeu_start", "freeu_end"],
        "txt2img_odd_cfg_neg": ["CFG scale: -1.0: must be from 0 to 100"],
        "txt2img_odd_seed_neg5": ["Seed: -5: must be from 0 to"],
    }.get(name, [])
    assert len(notes) == len(expected)
    for note, start in zip(notes, expected, strict=True):
        assert note.startswith(start)


def test_a_second_pass_is_taken_over_with_its_own_denoising() -> None:
    request = request_of(FORGE["txt2img_hires"])
    assert request.hires.enabled
    assert (request.hires.scale, request.hires.steps) == (2.0, 2)
    assert (request.hires.upscaler, request.hires.denoising_strength) == ("Latent", 0.5)


def test_a_second_pass_given_by_size_becomes_a_factor() -> None:
    request, notes = request_from_infotext(params(Size="512x768", Hires_resize="1024x1536"))
    assert (request.hires.scale, notes) == (2.0, [])
    request, notes = request_from_infotext(params(Size="512x512", Hires_resize="1024x2048"))
    assert request.hires.scale == 4.0
    assert notes == ["Hires resize: 1024x2048: its shape is not kept"]


def test_masked_work_keeps_how_the_mask_is_used() -> None:
    request, _ = request_from_infotext(FORGE["img2img_mask"])
    assert request.mode is Mode.TXT2IMG
    assert request.inpaint.mask_blur == 2
    assert request.inpaint.only_masked
    assert request.inpaint.padding == 0
    assert request.denoising_strength == 0.5


@pytest.mark.parametrize(
    ("size", "made"), [("65x70", (64, 64)), ("8x99999", (16, 16384)), ("512 x 640", (512, 640))]
)
def test_sizes_are_made_to_fit(size: str, made: tuple[int, int]) -> None:
    request, notes = request_from_infotext(params(Size=size))
    assert (request.width, request.height) == made
    assert len(notes) == (size != "512 x 640")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Seed", "9007199254740992"),
        ("Seed", "1_000"),
        ("Seed", "9" * 5000),
        ("CFG_scale", "nan"),
        ("CFG_scale", "lots"),
        ("Clip_skip", "25"),
        ("Size", "large"),
        ("Denoising_strength", "2"),
        ("Hires_upscale", "inf"),
        ("Face_restoration", "CodeFormer"),
        ("Variation_seed", "5"),
    ],
)
def test_what_cannot_be_used_is_noted_in_one_line(key: str, value: str) -> None:
    request, notes = request_from_infotext(params(**{key: value}))
    assert request.dumped() == request_from_infotext(params())[0].dumped()
    assert len(notes) == 1
    assert notes[0].startswith(key.replace("_", " ") + ": ")
    assert len(notes[0]) < 300


def test_a_model_known_by_its_hash_only_is_asked_for_by_it() -> None:
    request, notes = request_from_infotext("a\nSteps: 3, Seed: 1, Model hash: 1a2b3c4d5e")
    assert request.checkpoint == "1a2b3c4d5e"
    assert notes == ["Model hash: 1a2b3c4d5e: the model is known by its hash only"]


def test_a_prompt_longer_than_a_request_may_have_is_a_bad_request() -> None:
    with pytest.raises(BadRequest, match="prompt"):
        request_from_infotext("x" * 100_001)


# LoRA tags


@pytest.mark.parametrize(
    ("tag", "lora"),
    [
        ("<lora:a>", Lora(name="a")),
        ("<lora:a b.v1:0.5>", Lora(name="a b.v1", weight=0.5)),
        ("<lora:a:0.5:0.8>", Lora(name="a", weight=0.8, text_weight=0.5)),
        ("<lora:a:unet=0.8>", Lora(name="a", weight=0.8, text_weight=1.0)),
        ("<lora:a:te=0.2>", Lora(name="a", weight=0.2)),
        ("<lora:猫:-1>", Lora(name="猫", weight=-1)),
        ("<lyco:a:0>", Lora(name="a", weight=0)),
    ],
)
def test_a_tag_becomes_a_lora(tag: str, lora: Lora) -> None:
    assert lift_tags(f"x {tag}, y") == ("x , y", [lora], [])


@pytest.mark.parametrize(
    "tag",
    ["<lora:a:1:1:8>", "<lora:a:dyn=8>", "<lora:a:heavy>", "<lora:a:99>", "<lora:a:nan>"],
)
def test_a_tag_that_asks_for_more_stays_in_the_prompt(tag: str) -> None:
    assert lift_tags(f"x {tag}") == (f"x {tag}", [], [tag])
    _, notes = request_from_infotext(f"x {tag}\nSteps: 3, Model: m")
    assert notes == [f"the tag {tag} stays in the prompt"]


@pytest.mark.parametrize("text", ["<lora:>", "<hypernet:a:1>", "<lora>", "a < b", "<lora:a"])
def test_what_is_no_lora_tag_is_prompt(text: str) -> None:
    assert lift_tags(text) == (text, [], [])


def test_tags_put_back_are_lifted_again() -> None:
    loras = [Lora(name="a b", weight=0.75), Lora(name="c", weight=1, text_weight=-0.5)]
    text = add_tags("a cat", loras)
    assert text == "a cat <lora:a b:0.75> <lora:c:-0.5:1>"
    assert lift_tags(text) == ("a cat", loras, [])
    assert lift_tags(add_tags("", loras)) == ("", loras, [])


# and back


@pytest.mark.parametrize(
    "request_",
    [
        GenerationRequest(
            prompt="a cat,\non a roof",
            negative_prompt="dogs: all of them",
            checkpoint="sub dir/model, v2.safetensors",
            vae="v.safetensors",
            loras=[Lora(name="style", weight=0.8)],
            clip_skip=2,
            width=832,
            height=1216,
            steps=12,
            cfg_scale=5.5,
            sampler="Euler a",
            scheduler="Karras",
            seed=7,
        ),
        GenerationRequest(
            prompt="a cat",
            unet="flux.safetensors",
            vae="ae.safetensors",
            text_encoders=["clip_l.safetensors", "t5xxl.safetensors"],
            guidance=2.5,
            cfg_scale=1,
            seed=0,
        ),
        GenerationRequest.model_validate(
            {
                "prompt": "a cat",
                "checkpoint": "m",
                "seed": 5,
                "hires": {
                    "scale": 1.5,
                    "steps": 9,
                    "upscaler": "4x, sharp",
                    "denoising_strength": 0.3,
                },
            }
        ),
    ],
    ids=["sd", "flux", "hires"],
)
def test_a_request_survives_its_infotext(request_: GenerationRequest) -> None:
    text = format_infotext(infotext_of(request_, seed=request_.seed))
    assert request_of(text) == request_


def test_a_workflow_has_no_infotext() -> None:
    graph: dict[str, Any] = {"1": {"class_type": "KSampler", "inputs": {}}}
    request = GenerationRequest.model_validate({"mode": "workflow", "workflow": graph})
    with pytest.raises(BadRequest):
        infotext_of(request, seed=1)
