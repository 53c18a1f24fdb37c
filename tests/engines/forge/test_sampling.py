"""Sampler and scheduler names of the server."""

import json

import pytest

from stablequeue.engines.forge.answers import SAMPLERS, SCHEDULERS, Sampler, Scheduler, read
from stablequeue.engines.forge.sampling import Lists
from stablequeue.errors import Unsupported
from tests.engines.forge.recordings import info, job, listed

SERVER = Lists(
    "gpu-a",
    read(SAMPLERS, json.dumps(listed("/sdapi/v1/samplers"))),
    read(SCHEDULERS, json.dumps(listed("/sdapi/v1/schedulers"))),
)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("Euler", ""), ("Euler", "Automatic")),
        (("euler a", ""), ("Euler a", "Automatic")),
        (("k_euler_a", ""), ("Euler a", "Automatic")),
        (("euler_ancestral", "normal"), ("Euler a", "Normal")),
        (("DPM++ 2M Karras", ""), ("DPM++ 2M", "Karras")),
        (("dpmpp_2m", "karras"), ("DPM++ 2M", "Karras")),
        (("Euler", "sgm_uniform"), ("Euler", "SGM Uniform")),
        (("Euler", "align_your_steps"), ("Euler", "Align Your Steps")),
        (("Euler", "automatic"), ("Euler", "Automatic")),
    ],
)
def test_names_of_either_family_become_the_server_s_exact_ones(
    asked: tuple[str, str], told: tuple[str, str]
) -> None:
    assert SERVER.resolve(*asked) == told


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (("nope", ""), "sampler"),
        (("res_multistep", ""), "sampler"),
        (("Euler", "nope"), "scheduler"),
        (("DDIM", "karras"), "scheduler"),
    ],
)
def test_what_the_server_would_replace_is_refused(asked: tuple[str, str], field: str) -> None:
    with pytest.raises(Unsupported) as refused:
        SERVER.resolve(*asked)
    assert refused.value.field == field


@pytest.mark.parametrize("name", ["txt2img_sampler_lowercase", "txt2img_sampler_alias_k_euler_a"])
def test_the_recorded_server_replaces_what_is_not_exact(name: str) -> None:
    # Why the exact name must be sent: these were answered with 200.
    assert info(name)["sampler_name"] == "DPM++ 2M"
    asked = job(name)["request"]["sampler_name"]
    assert SERVER.resolve(asked, "")[0] == "Euler a"


def test_a_sampler_the_server_lacks_is_refused_with_what_it_has() -> None:
    small = Lists("gpu-a", [Sampler(name="Euler")], SERVER.schedulers)
    with pytest.raises(Unsupported) as refused:
        small.resolve("DPM++ 2M", "")
    assert refused.value.allowed == ("Euler",)


def test_newer_names_of_a_fork_are_taken_from_its_own_list() -> None:
    fork = Lists(
        "gpu-a",
        [*SERVER.samplers, Sampler(name="Euler Negative"), Sampler(name="Res Multistep")],
        [*(SERVER.schedulers or ()), Scheduler(name="bong", label="Bong Tangent")],
    )
    assert fork.resolve("euler negative", "karras") == ("Euler Negative", "Karras")
    assert fork.resolve("Euler Negative Karras", "") == ("Euler Negative", "Karras")
    assert fork.resolve("Euler", "Bong Tangent") == ("Euler", "Bong Tangent")
    assert fork.resolve("Euler", "bong") == ("Euler", "Bong Tangent")


def test_before_1_9_sampler_and_scheduler_are_one_name() -> None:
    old = Lists("gpu-a", [Sampler(name="DPM++ 2M"), Sampler(name="DPM++ 2M Karras")], None)
    assert old.resolve("DPM++ 2M", "Karras") == ("DPM++ 2M Karras", "")
    assert old.resolve("dpmpp_2m", "") == ("DPM++ 2M", "")
    with pytest.raises(Unsupported):
        old.resolve("DPM++ 2M", "Exponential")
