"""Warnings about models that do not fit together."""

import pytest

from stablequeue.models.compatibility import Described, warnings_for
from stablequeue.models.families import Family
from stablequeue.models.kinds import ModelType


def checkpoint(family: Family | None = None, base_model: str = "") -> Described:
    return Described(name="base", kind=ModelType.CHECKPOINT, family=family, base_model=base_model)


def lora(family: Family | None = None, base_model: str = "") -> Described:
    return Described(name="style", kind=ModelType.LORA, family=family, base_model=base_model)


def vae(name: str = "some", channels: int = 0, variant: str = "") -> Described:
    return Described(name=name, kind=ModelType.VAE, latent_channels=channels, variant=variant)


def test_an_sd15_lora_on_sdxl_is_named_with_the_way_out() -> None:
    (sentence,) = warnings_for(checkpoint(Family.SDXL), [lora(Family.SD1)])

    assert sentence == (
        "The LoRA style is made for SD 1.5 and base is SDXL: it will have no effect or fail;"
        " use one made for SDXL."
    )


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        (Family.SDXL, Family.SDXL),
        (Family.FLUX1, Family.FLUX1),
        (None, Family.SD1),
        (Family.SDXL, None),
        (None, None),
    ],
)
def test_what_fits_or_is_not_known_is_not_warned_about(
    mine: Family | None, its: Family | None
) -> None:
    assert warnings_for(checkpoint(mine), [lora(its)]) == ()


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        (Family.SD3_MEDIUM, Family.SD35_LARGE),
        (Family.FLUX2_DEV, Family.FLUX2_KLEIN_9B),
        (Family.FLUX1, Family.FLUX2_DEV),
        (Family.WAN_14B, Family.WAN_1_3B),
        (Family.SD2, Family.SD1),
    ],
)
def test_families_of_one_name_are_still_separate(mine: Family, its: Family) -> None:
    assert "no effect or fail" in warnings_for(checkpoint(mine), [lora(its)])[0]


def test_the_word_for_the_base_model_helps_where_tensors_are_silent() -> None:
    found = warnings_for(checkpoint(base_model="Pony V7"), [lora(base_model="Pony")])

    assert "made for SDXL and base is AuraFlow" in found[0]


def test_tensors_beat_the_word() -> None:
    assert warnings_for(checkpoint(Family.SDXL), [lora(Family.SDXL, "SD 1.5")]) == ()


@pytest.mark.parametrize(
    ("mine", "its", "words"),
    [
        ("Pony", "Illustrious", "hardly look as meant"),
        ("NoobAI", "Pony", "hardly look as meant"),
        ("SDXL 1.0", "Pony", "less effect"),
        ("Illustrious", "SDXL 1.0", "less effect"),
    ],
)
def test_lines_of_sdxl_are_crossed_with_a_warning(mine: str, its: str, words: str) -> None:
    found = warnings_for(checkpoint(Family.SDXL, mine), [lora(Family.SDXL, its)])

    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("mine", "its"),
    [("Illustrious", "NoobAI"), ("Pony", "Pony"), ("SDXL 1.0", "SDXL Turbo"), ("Pony", "")],
)
def test_one_line_of_sdxl_is_not_warned_about(mine: str, its: str) -> None:
    assert warnings_for(checkpoint(Family.SDXL, mine), [lora(Family.SDXL, its)]) == ()


def test_chroma_takes_flux_loras_in_part() -> None:
    found = warnings_for(checkpoint(Family.CHROMA), [lora(Family.FLUX1)])

    assert "less effect" in found[0]


def test_an_sd15_embedding_works_in_part_on_sdxl() -> None:
    embedding = Described(name="e", kind=ModelType.EMBEDDING, family=Family.SD1)

    assert "works only in part" in warnings_for(checkpoint(Family.SDXL), [embedding])[0]


def test_flux_ignores_a_negative_prompt_and_says_what_to_do() -> None:
    flux = checkpoint(Family.FLUX1)

    (sentence,) = warnings_for(flux, negative_prompt="blurry")
    assert sentence == (
        "base is a Flux.1 model, which ignores the negative prompt;"
        " say what you want in the prompt instead."
    )
    assert warnings_for(flux, negative_prompt="  ") == ()
    assert warnings_for(flux, negative_prompt="blurry", cfg_scale=3.5) == ()
    assert warnings_for(checkpoint(Family.SDXL), negative_prompt="blurry") == ()
    assert warnings_for(checkpoint(Family.CHROMA), negative_prompt="blurry") == ()


def test_pony_wants_its_score_words() -> None:
    pony = checkpoint(Family.SDXL, "Pony")

    assert "score_9, score_8_up" in warnings_for(pony, prompt="a cat")[0]
    assert warnings_for(pony, prompt="score_9, score_8_up, a cat") == ()
    assert warnings_for(pony, prompt="") == ()
    assert warnings_for(checkpoint(Family.SDXL, "Illustrious"), prompt="a cat") == ()
    assert warnings_for(checkpoint(Family.AURAFLOW, "Pony V7"), prompt="a cat") == ()


@pytest.mark.parametrize(
    ("mine", "its", "words"),
    [
        (Family.FLUX1, vae(channels=4), "not made for Flux.1"),
        (Family.SDXL, vae(channels=16), "not made for SDXL"),
        (Family.FLUX2_DEV, vae(channels=16), "not made for Flux.2 dev"),
        (Family.FLUX1, vae(channels=16, variant="video"), "not made for Flux.1"),
        (Family.SDXL, vae("vae-ft-mse-840000-ema", 4), "colours will be wrong"),
        (Family.SD1, vae("sdxl_vae", 4), "colours will be wrong"),
    ],
)
def test_a_vae_of_another_family_is_named(mine: Family, its: Described, words: str) -> None:
    found = warnings_for(checkpoint(mine), [its])

    assert len(found) == 1
    assert words in found[0]


@pytest.mark.parametrize(
    ("mine", "its"),
    [
        (Family.FLUX1, vae(channels=16)),
        (Family.SDXL, vae("sdxl_vae", 4)),
        (Family.QWEN_IMAGE, vae(channels=16, variant="video")),
        (Family.SDXL, vae("fixed")),
        (None, vae(channels=4)),
    ],
)
def test_a_vae_that_fits_or_is_not_known_is_fine(mine: Family | None, its: Described) -> None:
    assert warnings_for(checkpoint(mine), [its]) == ()


def test_a_warning_is_said_once() -> None:
    assert len(warnings_for(checkpoint(Family.SDXL), [lora(Family.SD1), lora(Family.SD1)])) == 1
