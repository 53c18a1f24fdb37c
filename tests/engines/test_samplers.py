"""Sampler and scheduler names, both ways."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.samplers import NoCounterpart, split_legacy, to_comfyui, to_forge

# What the two servers listed when recorded.
FORGE_SAMPLERS = [
    "DPM++ 2M",
    "DPM++ SDE",
    "DPM++ 2M SDE",
    "DPM++ 2M SDE Heun",
    "DPM++ 2S a",
    "DPM++ 3M SDE",
    "Euler a",
    "Euler",
    "LMS",
    "Heun",
    "DPM2",
    "DPM2 a",
    "DPM fast",
    "DPM adaptive",
    "Restart",
    "HeunPP2",
    "IPNDM",
    "IPNDM_V",
    "DEIS",
    "DDIM",
    "DDIM CFG++",
    "PLMS",
    "UniPC",
    "LCM",
    "DDPM",
]
FORGE_ALIASES = [
    "k_dpmpp_2m",
    "k_dpmpp_sde",
    "k_dpmpp_2m_sde",
    "k_dpmpp_2m_sde_heun",
    "k_dpmpp_2s_a",
    "k_dpmpp_3m_sde",
    "k_euler_a",
    "k_euler_ancestral",
    "k_euler",
    "k_lms",
    "k_heun",
    "k_dpm_2",
    "k_dpm_2_a",
    "k_dpm_fast",
    "k_dpm_ad",
    "restart",
    "heunpp2",
    "ipndm",
    "ipndm_v",
    "deis",
    "ddim",
    "ddim_cfgpp",
    "plms",
    "unipc",
    "k_lcm",
    "ddpm",
]
FORGE_SCHEDULERS = [
    "Automatic",
    "Uniform",
    "Karras",
    "Exponential",
    "Polyexponential",
    "SGM Uniform",
    "KL Optimal",
    "Align Your Steps",
    "Simple",
    "Normal",
    "DDIM",
    "Beta",
    "Turbo",
    "Align Your Steps GITS",
    "Align Your Steps 11",
    "Align Your Steps 32",
]
FORGE_SCHEDULER_NAMES = [
    "automatic",
    "uniform",
    "karras",
    "exponential",
    "polyexponential",
    "sgm_uniform",
    "kl_optimal",
    "align_your_steps",
    "simple",
    "normal",
    "ddim",
    "beta",
    "turbo",
    "align_your_steps_GITS",
    "align_your_steps_11",
    "align_your_steps_32",
]
COMFYUI_SAMPLERS = [
    "euler",
    "euler_cfg_pp",
    "euler_ancestral",
    "euler_ancestral_cfg_pp",
    "heun",
    "heunpp2",
    "dpm_2",
    "dpm_2_ancestral",
    "lms",
    "dpm_fast",
    "dpm_adaptive",
    "dpmpp_2s_ancestral",
    "dpmpp_2s_ancestral_cfg_pp",
    "dpmpp_sde",
    "dpmpp_sde_gpu",
    "dpmpp_2m",
    "dpmpp_2m_cfg_pp",
    "dpmpp_2m_sde",
    "dpmpp_2m_sde_gpu",
    "dpmpp_2m_sde_heun",
    "dpmpp_2m_sde_heun_gpu",
    "dpmpp_3m_sde",
    "dpmpp_3m_sde_gpu",
    "ddpm",
    "lcm",
    "ipndm",
    "ipndm_v",
    "deis",
    "res_multistep",
    "res_multistep_cfg_pp",
    "res_multistep_ancestral",
    "res_multistep_ancestral_cfg_pp",
    "gradient_estimation",
    "gradient_estimation_cfg_pp",
    "er_sde",
    "seeds_2",
    "seeds_3",
    "sa_solver",
    "sa_solver_pece",
    "ddim",
    "uni_pc",
    "uni_pc_bh2",
]
COMFYUI_SCHEDULERS = [
    "simple",
    "sgm_uniform",
    "karras",
    "exponential",
    "ddim_uniform",
    "beta",
    "normal",
    "linear_quadratic",
    "kl_optimal",
]
FORGE_ONLY = {"Restart", "PLMS"}


@pytest.mark.parametrize("name", FORGE_SAMPLERS)
def test_every_sampler_of_forge_is_known_there_under_its_own_name(name: str) -> None:
    assert to_forge(name) == (name, "Automatic")


@pytest.mark.parametrize("name", sorted(set(FORGE_SAMPLERS) - FORGE_ONLY))
def test_forge_samplers_go_to_comfyui_and_come_back(name: str) -> None:
    there, scheduler = to_comfyui(name)
    assert there in COMFYUI_SAMPLERS
    assert scheduler in COMFYUI_SCHEDULERS
    assert to_forge(there)[0] == name


@pytest.mark.parametrize("name", FORGE_ALIASES)
def test_every_alias_forge_lists_is_understood(name: str) -> None:
    assert to_forge(name)[0] in FORGE_SAMPLERS


@pytest.mark.parametrize("name", COMFYUI_SAMPLERS)
def test_every_sampler_of_comfyui_keeps_its_own_name_there(name: str) -> None:
    assert to_comfyui(name)[0] == name


@pytest.mark.parametrize("name", COMFYUI_SCHEDULERS)
def test_every_scheduler_of_comfyui_keeps_its_own_name_there(name: str) -> None:
    assert to_comfyui("euler", name) == ("euler", name)


@pytest.mark.parametrize(
    ("label", "name"), list(zip(FORGE_SCHEDULERS, FORGE_SCHEDULER_NAMES, strict=True))
)
def test_every_scheduler_of_forge_is_known_by_label_and_by_name(label: str, name: str) -> None:
    assert to_forge("Euler", label) == ("Euler", label)
    assert to_forge("Euler", name) == ("Euler", label)


@pytest.mark.parametrize("name", sorted(FORGE_ONLY))
def test_what_comfyui_lacks_is_refused(name: str) -> None:
    with pytest.raises(NoCounterpart) as refusal:
        to_comfyui(name)
    assert (refusal.value.field, refusal.value.name) == ("sampler", name)


@pytest.mark.parametrize("name", ["uni_pc_bh2", "er_sde", "res_multistep", "dpmpp_2m_cfg_pp"])
def test_what_forge_lacks_is_refused(name: str) -> None:
    with pytest.raises(NoCounterpart) as refusal:
        to_forge(name)
    assert (refusal.value.field, refusal.value.name) == ("sampler", name)


@pytest.mark.parametrize("name", ["Align Your Steps", "align_your_steps_GITS", "turbo"])
def test_a_scheduler_comfyui_lacks_is_refused(name: str) -> None:
    with pytest.raises(NoCounterpart, match="Forge") as refusal:
        to_comfyui("Euler", name)
    assert refusal.value.field == "scheduler"


def test_a_scheduler_forge_lacks_is_refused() -> None:
    with pytest.raises(NoCounterpart, match="ComfyUI only"):
        to_forge("euler", "linear_quadratic")


@pytest.mark.parametrize(
    ("legacy", "comfyui", "forge"),
    [
        ("DPM++ 2M Karras", ("dpmpp_2m", "karras"), ("DPM++ 2M", "Karras")),
        ("DPM++ 2M SDE Karras", ("dpmpp_2m_sde", "karras"), ("DPM++ 2M SDE", "Karras")),
        (
            "DPM++ 2M SDE Heun Exponential",
            ("dpmpp_2m_sde_heun", "exponential"),
            ("DPM++ 2M SDE Heun", "Exponential"),
        ),
        ("DPM++ 2M SGMUniform", ("dpmpp_2m", "sgm_uniform"), ("DPM++ 2M", "SGM Uniform")),
        ("lms karras", ("lms", "karras"), ("LMS", "Karras")),
        ("Euler a", ("euler_ancestral", "normal"), ("Euler a", "Automatic")),
        ("euler  A   karras", ("euler_ancestral", "karras"), ("Euler a", "Karras")),
        ("DPM2 a Karras", ("dpm_2_ancestral", "karras"), ("DPM2 a", "Karras")),
    ],
)
def test_legacy_names_are_split(
    legacy: str, comfyui: tuple[str, str], forge: tuple[str, str]
) -> None:
    assert to_comfyui(legacy) == comfyui
    assert to_forge(legacy) == forge
    assert to_comfyui(legacy, "Automatic") == comfyui


@pytest.mark.parametrize(
    ("sampler", "scheduler"),
    [
        ("DPM++ 2M", "karras"),
        ("DPM++ 2M SDE", "exponential"),
        ("DPM++ SDE", "karras"),
        ("DPM2", "karras"),
        ("Euler", "normal"),
        ("LCM", "normal"),
        ("DDIM", "ddim_uniform"),
    ],
)
def test_an_empty_scheduler_is_the_one_forge_takes_by_itself(sampler: str, scheduler: str) -> None:
    assert to_comfyui(sampler)[1] == scheduler
    assert to_comfyui(sampler, "automatic")[1] == scheduler


def test_schedules_that_are_the_same_under_two_names_meet() -> None:
    assert to_comfyui("Euler", "Uniform") == to_comfyui("Euler", "Normal") == ("euler", "normal")
    assert to_comfyui("Euler", "Polyexponential") == ("euler", "exponential")
    assert to_comfyui("Euler", "DDIM") == ("euler", "ddim_uniform")
    assert to_forge("euler", "normal") == ("Euler", "Normal")
    assert to_forge("euler", "exponential") == ("Euler", "Exponential")
    assert to_forge("euler", "ddim_uniform") == ("Euler", "DDIM")


def test_a_scheduler_forge_would_ignore_is_refused() -> None:
    assert to_forge("ddim", "ddim_uniform") == ("DDIM", "Automatic")
    with pytest.raises(NoCounterpart, match="own schedule"):
        to_forge("ddim", "karras")


def test_a_sampler_and_a_scheduler_that_contradict_each_other_are_refused() -> None:
    assert to_forge("DPM++ 2M Karras", "karras") == ("DPM++ 2M", "Karras")
    with pytest.raises(NoCounterpart, match="contradicts"):
        to_comfyui("DPM++ 2M Karras", "Exponential")


def test_an_unknown_name_suggests_what_looks_alike() -> None:
    with pytest.raises(NoCounterpart) as refusal:
        to_comfyui("Eulr a")
    assert "Euler a" in refusal.value.close
    assert "Did you mean" in str(refusal.value)
    with pytest.raises(NoCounterpart) as refusal:
        to_forge("Euler", "Karas")
    assert refusal.value.close == ("karras",) or "Karras" in refusal.value.close


def test_a_refusal_survives_pickling() -> None:
    error = NoCounterpart("sampler", "x", "is no sampler we know", ("y",))
    again = pickle.loads(pickle.dumps(error))
    assert (again.field, again.name, again.close, str(again)) == (
        "sampler",
        "x",
        ("y",),
        str(error),
    )


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_is_translated_or_refused(sampler: str, scheduler: str) -> None:
    for translate in (to_comfyui, to_forge):
        try:
            names = translate(sampler, scheduler)
        except NoCounterpart as refusal:
            names = (refusal.field, str(refusal))
        assert all(names)
        assert "\n" not in "".join(names)
    assert len(split_legacy(sampler)) == 2


@given(
    st.sampled_from(FORGE_SAMPLERS + COMFYUI_SAMPLERS),
    st.sampled_from(["", *FORGE_SCHEDULERS, *COMFYUI_SCHEDULERS]),
)
def test_translating_twice_changes_nothing(sampler: str, scheduler: str) -> None:
    for translate in (to_comfyui, to_forge):
        try:
            once = translate(sampler, scheduler)
        except NoCounterpart:
            continue
        assert translate(*once) == once
