"""Smaller facts about the API, on one sandbox."""

import json
from typing import Any

import pytest

from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.recorded import decoded, png

_JOB: dict[str, Any] = {"prompt": "a cat", "steps": 1, "width": 64, "height": 64, "seed": 5}
_HIRES = {"enable_hr": True, "denoising_strength": 0.5, "hr_additional_modules": ["x/ae.pt"]}


def _infotext(peer: Peer, **changes: Any) -> tuple[str, tuple[int, int]]:
    answer = peer.post("/sdapi/v1/txt2img", _JOB | changes)
    assert answer.status_code == 200, answer.text
    text = json.loads(answer.json()["info"])["infotexts"][0]
    return text, decoded(answer.json()["images"][0]).size


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"hr_scale": 1.6}, (96, 96)),
        ({"hr_resize_x": 128}, (128, 128)),
        ({"hr_resize_y": 96}, (96, 96)),
        ({"hr_resize_x": 128, "hr_resize_y": 72}, (128, 72)),
    ],
)
def test_a_second_pass_has_the_size_asked_for(
    asked: dict[str, Any], size: tuple[int, int], shared_peer: Peer
) -> None:
    text, got = _infotext(shared_peer, **_HIRES, **asked)
    assert got == size
    assert "Size: 64x64" in text
    assert "Hires Module 1: ae" in text
    assert ("Hires resize: " in text) == ("hr_scale" not in asked)


def test_checkpoints_of_second_passes_and_refiners_are_told(shared_peer: Peer) -> None:
    names = {"hr_checkpoint_name": "other-sd15", "hr_sampler_name": "Euler a"}
    text, _ = _infotext(
        shared_peer, **_HIRES, **names, refiner_checkpoint="other-sd15", refiner_switch_at=0.8
    )
    assert "Hires checkpoint: sub dir/other-sd15.safetensors" in text
    assert "Hires sampler: Euler a" in text
    assert "Refiner switch at: 0.8" in text


def test_a_known_style_is_applied_and_an_unknown_one_is_not(shared_peer: Peer) -> None:
    text, _ = _infotext(shared_peer, styles=["Test card", "nope"])
    assert text.startswith("a cat, test card\nNegative prompt: noise\n")


def test_a_variation_keeps_the_seed_and_counts_the_subseed(shared_peer: Peer) -> None:
    body = {"n_iter": 2, "subseed": 7, "subseed_strength": 0.5}
    answer = shared_peer.post("/sdapi/v1/txt2img", _JOB | body)
    info = json.loads(answer.json()["info"])
    assert (info["all_seeds"], info["all_subseeds"]) == ([5, 5], [7, 8])
    assert "Variation seed: 8, Variation seed strength: 0.5" in info["infotexts"][1]
    assert answer.json()["images"][0] != answer.json()["images"][1]


def test_memory_of_the_card_is_told(start_peer: StartPeer) -> None:
    peer = start_peer(cpu=False)
    before = peer.get("/sdapi/v1/memory").json()["cuda"]["system"]
    peer.post("/sdapi/v1/txt2img", _JOB)
    after = peer.get("/sdapi/v1/memory").json()["cuda"]["system"]
    assert before["total"] == after["total"] == after["free"] + after["used"]
    assert before["free"] - after["free"] == 2_034 * 1024 * 1024
    assert peer.get("/controlnet/model_list").json() == {"model_list": ["None"]}


def test_flags_are_told_when_no_port_was_given(start_peer: StartPeer) -> None:
    peer = start_peer(port_given=False)
    answer = peer.get("/sdapi/v1/cmd-flags")
    assert answer.status_code == 200
    assert answer.json()["port"] is None
    assert answer.json()["data_dir"] == str(peer.folder)


def test_upscaling_keeps_the_infotext(shared_peer: Peer) -> None:
    body = {"image": png((32, 32), text="a cat\nSteps: 1"), "upscaler_1": "Lanczos"}
    size = {"resize_mode": 1, "upscaling_resize_w": 80, "upscaling_resize_h": 40}
    answer = shared_peer.post("/sdapi/v1/extra-single-image", body | size)
    picture = decoded(answer.json()["image"])
    assert picture.size == (80, 40)
    assert picture.info["parameters"] == "a cat\nSteps: 1"
    batch = {"imageList": [{"data": body["image"], "name": "a"}] * 2, "upscaler_1": "None"}
    images = shared_peer.post("/sdapi/v1/extra-batch-images", batch).json()["images"]
    assert [decoded(image).size for image in images] == [(32, 32)] * 2


def test_the_infotext_in_a_jpeg_is_found(start_peer: StartPeer) -> None:
    peer = start_peer()
    override = {"samples_format": "jpg"}
    answer = peer.post("/sdapi/v1/txt2img", _JOB | {"override_settings": override})
    info = peer.post("/sdapi/v1/png-info", {"image": answer.json()["images"][0]}).json()
    assert info["info"].startswith("a cat\nSteps: 1, ")
    assert info["parameters"]["Seed"] == "5"
    peer.post("/sdapi/v1/options", {"samples_format": "gif"})
    answer = peer.post("/sdapi/v1/txt2img", _JOB)
    assert (answer.status_code, answer.json()["detail"]) == (500, "Invalid image format")


def test_scripts_of_the_wrong_kind_are_refused(shared_peer: Peer) -> None:
    bodies: list[dict[str, Any]] = [
        {"alwayson_scripts": {"x/y/z plot": {"args": []}}},
        {"script_name": "controlnet"},
        {"alwayson_scripts": {"loopback": {}}},
    ]
    for body in bodies:
        assert shared_peer.post("/sdapi/v1/txt2img", _JOB | body).status_code == 422
    bad = {"alwayson_scripts": {"Never OOM Integrated": {"args": "yes"}}}
    assert shared_peer.post("/sdapi/v1/txt2img", _JOB | bad).json()["error"] == "TypeError"


def test_a_batch_repeats_start_pictures_and_counts_seeds(shared_peer: Peer) -> None:
    body = {"init_images": [png((64, 64)), png((64, 64), blank=True)], "batch_size": 2}
    answer = shared_peer.post("/sdapi/v1/img2img", _JOB | body)
    assert json.loads(answer.json()["info"])["all_seeds"] == [5, 6]
    assert len(answer.json()["images"]) == 2


def test_names_of_a_batch_may_hold_their_number(start_peer: StartPeer) -> None:
    peer = start_peer()
    tokens = "[generation_number]-[batch_number]-[width]x[height]-[model_name]-[nope]"
    override = {"samples_filename_pattern": tokens, "save_to_dirs": False}
    override |= {"save_images_add_number": False, "grid_save": False, "return_grid": False}
    body = {"n_iter": 2, "batch_size": 2, "save_images": True, "override_settings": override}
    assert len(peer.post("/sdapi/v1/txt2img", _JOB | body).json()["images"]) == 4
    names = sorted(path.name for path in peer.folder.rglob("outputs/**/*.png"))
    numbers = ["1-1", "2-2", "3-1", "4-2"]
    assert names == [f"{n}-64x64-random-sd15-[nope].png" for n in numbers]
