"""Was the picture made as asked? Against the recorded answers, all of them with status 200."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.forge import verify
from stablequeue.engines.forge.answers import Info
from stablequeue.errors import ProtocolError, QueueError, WrongModel
from tests.engines.forge.recordings import info


def made(name: str) -> verify.Made:
    told = Info.model_validate(info(name))
    return verify.read_made(told.infotexts[0] if told.infotexts else "", told)


def asked(**fields: Any) -> dict[str, Any]:
    basics: dict[str, Any] = {
        "model": "random-sd15",
        "hash": "01cfe36ece",
        "sampler": "Euler",
        "scheduler": "Automatic",
        "loras": [],
        "only_these_loras": True,
        "modules": [],
        "vae": "",
        "clip_skip": 1,
        "seed": None,
    }
    return {**basics, **fields}


def test_a_picture_made_as_asked_is_fine() -> None:
    verify.check("gpu-a", asked(seed=42), made("txt2img_seed42"))
    verify.check("gpu-a", asked(loras=["tiny-lora"]), made("txt2img_lora"))
    verify.check("gpu-a", asked(loras=["tinyalias"]), made("txt2img_lora_alias"))
    verify.check(
        "gpu-a",
        asked(loras=["tiny-lora"], sampler="DPM++ 2M", scheduler="Karras", seed=7),
        made("txt2img_hires"),
    )
    other = asked(model="other-sd15", hash="b1ee8ef881")
    verify.check("gpu-a", other, made("override_ckpt_title_hash"))
    verify.check("gpu-a", {**other, "clip_skip": 2}, made("override_clipskip"))


@pytest.mark.parametrize(
    ("name", "expected", "words"),
    [
        ("override_ckpt_unknown", asked(model="nope", hash=""), "the model random-sd15"),
        ("override_ckpt_lower", asked(model="other-sd15", hash="b1ee8ef881"), "01cfe36ece"),
        ("override_ckpt_backslash", asked(model="other-sd15", hash=""), "instead of other-sd15"),
        ("override_ckpt_wrong_hash", asked(hash="deadbeef00"), "[deadbeef00]"),
        ("txt2img_sampler_unknown", asked(sampler="nope"), "sampler 'DPM++ 2M'"),
        ("txt2img_sampler_lowercase", asked(sampler="Euler a"), "sampler 'DPM++ 2M'"),
        ("txt2img_scheduler_unknown", asked(scheduler="Karras"), "scheduler 'Automatic'"),
        ("txt2img_lora_unknown", asked(loras=["nope"]), "did not use the LoRA nope"),
        (
            "override_modules_unknown",
            asked(model="other-sd15", hash="", modules=["nope.safetensors"]),
            "modules none",
        ),
        ("txt2img_seed42", asked(seed=43), "the seed 42 instead of 43"),
        ("override_clipskip", asked(model="other-sd15", hash=""), "CLIP skip 2 instead of 1"),
        ("txt2img_lora", asked(), "added the LoRA tiny-lora"),
    ],
)
def test_every_silent_substitution_is_found(
    name: str, expected: dict[str, Any], words: str
) -> None:
    # What it was made with differs in what the case is about; the rest is as the server had it.
    found = made(name)
    relaxed = dict(expected)
    if "sampler" not in words:
        relaxed["sampler"] = found.sampler
    with pytest.raises(WrongModel) as refused:
        verify.check("gpu-a", relaxed, found)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_names_count_only_where_the_server_hashes_nothing() -> None:
    unhashed = verify.Made(model="random-sd15", sampler="Euler")
    verify.check("gpu-a", asked(loras=["tiny-lora"]), unhashed)
    with pytest.raises(WrongModel):
        verify.check("gpu-a", asked(model="other"), unhashed)


def test_equal_base_names_with_different_hashes_are_different_models() -> None:
    with pytest.raises(WrongModel):
        verify.check(
            "gpu-a", asked(hash="aaaaaaaaaa"), verify.Made(model="random-sd15", hash="bbbbbbbbbb")
        )


def test_styles_and_scripts_may_bring_loras_of_their_own() -> None:
    verify.check("gpu-a", asked(only_these_loras=False), made("txt2img_lora"))


def test_modules_and_vae_are_compared_without_their_suffix() -> None:
    found = verify.Made(model="random-sd15", hash="01cfe36ece", modules=("ae", "clip_l"))
    verify.check("gpu-a", asked(modules=["clip_l.safetensors", "ae.safetensors"]), found)
    with pytest.raises(WrongModel):
        verify.check("gpu-a", asked(modules=["ae.safetensors"]), found)
    older = verify.Made(model="random-sd15", hash="01cfe36ece", vae="ae.safetensors")
    verify.check("gpu-a", asked(modules=None, vae="ae.safetensors"), older)
    with pytest.raises(WrongModel):
        verify.check("gpu-a", asked(modules=None, vae="other.pt"), older)


def test_a_server_that_does_not_say_its_model_is_not_believed() -> None:
    with pytest.raises(ProtocolError):
        verify.check("gpu-a", asked(), verify.Made())


def test_sizes() -> None:
    assert verify.check_size("gpu-a", [64, 64], (64, 64)) == ""
    assert "992 x 1000" in verify.check_size("gpu-a", [1000, 1000], (992, 1000))
    assert verify.check_size("gpu-a", None, (1, 1)) == ""
    with pytest.raises(WrongModel):
        verify.check_size("gpu-a", [1024, 1024], (512, 512))


@given(st.text(max_size=300))
def test_whatever_an_infotext_says_it_is_accepted_or_refused(infotext: str) -> None:
    try:
        verify.check("gpu-a", asked(), verify.read_made(infotext, None))
    except QueueError as error:
        assert len(str(error).splitlines()) == 1  # noqa: PT017 - both outcomes are fine
