"""`submit`: from options to a request on disk."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from stablequeue.client import Client
from stablequeue.request import GenerationRequest
from stablequeue.settings import load
from tests.cli.conftest import Run
from tests.support.drawing import simple

INFOTEXT = (
    "a fox, <lora:style:0.5>\nNegative prompt: blurry\n"
    "Steps: 9, Sampler: Euler a, CFG scale: 5, Seed: 77, Size: 512x640, Model: dream"
)


def stored(run: Run, *arguments: object) -> GenerationRequest:
    """Submit and return what was kept."""
    ran = run("submit", *arguments)
    assert ran.code == 0, ran.err
    with Client(load()) as queue:
        return queue.session.catalogue.request(ran.out.strip()).request


def picture(path: Path, infotext: str = "") -> Path:
    """Write a small PNG."""
    info = PngInfo()
    if infotext:
        info.add_text("parameters", infotext)
    Image.new("RGB", (16, 16), "red").save(path, pnginfo=info)
    return path


def test_every_option_reaches_its_field(run: Run) -> None:
    request = stored(
        run,
        *("a fox", "--negative", "blurry", "--server", "any", "--tier", "bulk", "--tag", "x"),
        *("--tag", "y", "--checkpoint", r"sub\my [v1] (2).safetensors", "--vae", "v"),
        *("--lora", r"C:\l\a:0.5", "--lora", "b", "--clip-skip", "2", "--size", "640x512"),
        *("--steps", "7", "--cfg", "5.5", "--guidance", "2", "--sampler", "Euler a"),
        *("--scheduler", "karras", "--seed", "0", "--count", "3", "--hires", "1.5"),
        *("--upscaler", "Latent (nearest)", "--output", "webp", "--set", "hires.steps=4"),
        *("--set", "source=test", "--set", 'alwayson_scripts={"x": {"args": [1]}}'),
    )
    assert request.model_dump(exclude_defaults=True, mode="json") == {
        "prompt": "a fox",
        "negative_prompt": "blurry",
        "tier": "bulk",
        "tags": ["x", "y"],
        "checkpoint": r"sub\my [v1] (2).safetensors",
        "vae": "v",
        "loras": [{"name": r"C:\l\a", "weight": 0.5}, {"name": "b"}],
        "clip_skip": 2,
        "width": 640,
        "steps": 7,
        "cfg_scale": 5.5,
        "guidance": 2.0,
        "sampler": "Euler a",
        "scheduler": "karras",
        "seed": 0,
        "count": 3,
        "hires": {"scale": 1.5, "upscaler": "Latent (nearest)", "steps": 4},
        "output": {"format": "webp"},
        "source": "test",
        "alwayson_scripts": {"x": {"args": [1]}},
    }


def test_a_start_picture_and_a_mask_choose_the_mode_and_are_kept(run: Run, tmp_path: Path) -> None:
    init, mask = picture(tmp_path / "init.png"), picture(tmp_path / "mask.png")
    request = stored(run, "a", "--init", init, "--denoise", "0.4")
    assert (request.mode, request.denoising_strength) == ("img2img", 0.4)
    assert request.init_image.startswith("sha256:")
    assert stored(run, "a", "--init", init, "--mask", mask).mode == "inpaint"
    assert (
        stored(run, "--mode", "upscale", "--init", init, "--upscaler", "x4").upscale.upscaler
        == "x4"
    )


def test_a_workflow_and_its_overrides(run: Run, tmp_path: Path) -> None:
    graph: dict[str, Any] = {"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}
    file = tmp_path / "w.json"
    file.write_text(json.dumps(graph))
    request = stored(run, "--workflow", file, "--override", "3.seed=9")
    assert (request.mode, request.workflow, request.overrides) == ("workflow", graph, {"3.seed": 9})


def test_a_template_is_kept_as_it_is_and_refused_at_once_if_it_is_damaged(
    run: Run, tmp_path: Path
) -> None:
    template = simple()
    file = tmp_path / "template.json"
    file.write_text(json.dumps(template))
    request = stored(run, "--workflow", file, "--override", "Sampler.steps=9", "--seed", "3")
    assert (request.mode, request.workflow, request.seed) == ("workflow", template, 3)
    assert stored(run, "--from", file).workflow == template
    del template["nodes"][0]["type"]
    file.write_text(json.dumps(template))
    ran = run("submit", "--workflow", file)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "node 1 has no type" in ran.err


def test_a_job_does_not_claim_a_seed_that_its_workflow_does_not_use(
    run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "w.json"
    file.write_text('{"3": {"class_type": "KSampler", "inputs": {"seed": 1}}}')
    job = run("submit", "--server", "gpu-a", "--workflow", file).out.strip()
    assert json.loads(run("show", job, "--json").out)["seed"] == -1
    assert "seed  " not in run("show", job).out
    job = run("submit", "--server", "gpu-a", "--workflow", file, "--seed", "4").out.strip()
    assert json.loads(run("show", job, "--json").out)["seed"] == 4


def test_a_picture_a_file_and_a_pasted_infotext_are_the_same_request(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "info.txt"
    file.write_text(INFOTEXT)
    monkeypatch.setattr(sys, "stdin", io.StringIO(INFOTEXT))
    requests = [
        stored(run, "--from", source)
        for source in (picture(tmp_path / "p.png", INFOTEXT), file, INFOTEXT, "-")
    ]
    assert all(request == requests[0] for request in requests)
    assert (requests[0].seed, requests[0].steps, requests[0].height) == (77, 9, 640)
    changed = stored(run, "a cat", "--from", INFOTEXT, "--steps", "3")
    assert (changed.prompt, changed.steps, changed.seed) == ("a cat", 3, 77)


def test_a_prompt_can_come_from_stdin_or_begin_with_a_hyphen(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("a long\nprompt\n"))
    assert stored(run, "-").prompt == "a long\nprompt"
    assert stored(run, "--", "-v is a letter").prompt == "-v is a letter"


def test_expiry_is_from_now(run: Run) -> None:
    request = stored(run, "a", "--expires", "2h")
    assert request.expires_at is not None
    left = request.expires_at - datetime.now(UTC)
    assert timedelta(hours=1, minutes=59) < left <= timedelta(hours=2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "prompt: say what to make"),
        (["a", "--size", "513x512"], "width: "),
        (["a", "--size", "big"], "--size: 'big' is not a size"),
        (["a", "--steps", "0"], "steps: "),
        (["a", "--set", "stpes=3"], "stpes: there is no such field"),
        (["a", "--server", "No Alias"], "server: "),
        (["a", "--mask", "m.png"], "init_image: needed"),
        (["a", "--init", "/nowhere/x.png"], "init_image"),
        (["--from", "nowhere.png"], "--from: there is no file"),
        (["a", "--expires", "2001-01-01"], "expires_at: this time is already over"),
        (["a", "--override", "3.seed=1"], "overrides: "),
    ],
)
def test_a_bad_request_names_the_field_and_keeps_nothing(
    run: Run, arguments: list[str], said: str
) -> None:
    ran = run("submit", *arguments)
    assert ran.code == 2
    assert said in ran.err
    assert run("ls", "--json").json == []


def test_submitting_prints_the_id_and_says_what_is_missing(run: Run) -> None:
    ran = run("submit", "a", "--json")
    assert set(ran.json) == {"job_id", "warnings", "note"}
    assert "stablequeue up" in ran.json["note"]
    quiet = run("submit", "a", "-q")
    assert len(quiet.out.strip()) == 36
    assert quiet.err == ""


@pytest.mark.prefect
def test_submitting_to_a_server_lists_there(run: Run, online: str) -> None:
    ran = run("submit", "a fox\x1b[31m", "--server", online, "--count", "2")
    assert ran.err == ""
    listed = run("ls", "--server", online)
    assert "waiting #1" in listed.out
    assert "a fox\\x1b[31m (x2)" in listed.out
    [job] = run("ls", "--server", online, "--json").json
    assert job["job_id"] == ran.out.strip()
