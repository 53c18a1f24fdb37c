"""Which family a model belongs to."""

import pytest

from stablequeue.engines.comfyui.families import (
    FLUX,
    SD3,
    SD15,
    SDXL,
    Undecided,
    by_encoders,
    by_name,
    decide,
)

L, G, T5 = "clip_l.safetensors", "sub/clip_g.safetensors", "t5xxl_fp16.safetensors"


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("flux1-dev.safetensors", "flux"),
        ("getphatFLUXReality_v5.safetensors", "flux"),
        ("sd3.5_large.safetensors", "sd3"),
        ("stable-diffusion-3-medium.safetensors", "sd3"),
        ("sd_xl_base_1.0.safetensors", "sdxl"),
        ("ponyDiffusionV6XL.safetensors", "sdxl"),
        ("v1-5-pruned.safetensors", "sd15"),
        ("chroma-flux-v30.safetensors", "chroma"),
        ("flux\\unknown.safetensors", "flux"),
        ("flux/sd3.5.safetensors", "sd3"),
    ],
)
def test_a_telling_name_decides(name: str, family: str) -> None:
    found = by_name(name)
    assert found is not None
    assert found.name == family


@pytest.mark.parametrize("name", ["tiny.safetensors", "msd3x.safetensors", "flux2-dev.gguf", ""])
def test_other_names_decide_nothing(name: str) -> None:
    assert by_name(name) is None


@pytest.mark.parametrize(
    ("encoders", "family"), [([L], SD15), ([L, G], SDXL), ([G, T5], SD3), ([T5, L, G], SD3)]
)
def test_text_encoders_decide_where_only_one_family_uses_them(
    encoders: list[str], family: object
) -> None:
    assert by_encoders(encoders) is family
    assert decide("unknown.safetensors", encoders) is family


@pytest.mark.parametrize("encoders", [[L, T5], ["umt5.safetensors"], ["llama.safetensors", L]])
def test_what_cannot_be_told_is_refused(encoders: list[str]) -> None:
    with pytest.raises(Undecided, match="rename"):
        decide("unknown.safetensors", encoders)


def test_what_the_file_says_counts_before_its_name() -> None:
    assert decide("sd3-like-name.safetensors", [L, T5], "flux-1-dev") is FLUX
    assert decide("sd3.safetensors", [L, T5]) is SD3


def test_the_number_of_text_encoders_must_fit() -> None:
    with pytest.raises(Undecided, match="flux takes 2"):
        decide("flux.safetensors", [L])
