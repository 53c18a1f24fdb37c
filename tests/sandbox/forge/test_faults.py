"""Injected faults, restarts, and the other flavours a server may have."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from stablequeue.sandbox import GraphicsCard, ModelShelf, default_models
from stablequeue.sandbox.forge.pictures import read_stealth
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.gate import Gate
from tests.sandbox.forge.recorded import decoded, files_below, png, told_text
from tests.support.waiting import wait_until

_JOB: dict[str, Any] = {"prompt": "a cat", "steps": 2, "width": 64, "height": 64, "seed": 5}


def _generate(peer: Peer, **changes: Any) -> httpx.Response:
    return peer.post("/sdapi/v1/txt2img", _JOB | changes)


def _info(answer: httpx.Response) -> dict[str, Any]:
    return json.loads(answer.json()["info"])


def test_out_of_memory_is_a_500_that_says_so(peer: Peer) -> None:
    peer.sandbox.faults.add("out_of_memory", "step 2")
    answer = _generate(peer, force_task_id="oom")
    assert answer.status_code == 500
    assert answer.json()["error"] == "OutOfMemoryError"
    assert answer.json()["message"].startswith("CUDA out of memory. ")
    assert peer.progress("oom")["active"], "progress still says so after a failure"
    assert _generate(peer).status_code == 200


def test_too_large_a_picture_is_out_of_memory(peer: Peer) -> None:
    answer = _generate(peer, width=16_384, height=16_384)
    assert answer.json()["error"] == "OutOfMemoryError"


def test_a_model_that_does_not_fit_is_out_of_memory(start_peer: StartPeer) -> None:
    peer = start_peer()
    peer.sandbox.config.card = GraphicsCard(memory_mb=1_000)
    assert _generate(peer).json()["error"] == "OutOfMemoryError"


def test_an_injected_error_carries_its_words(peer: Peer) -> None:
    peer.sandbox.faults.add("error", "decode", body="no such layer")
    told = {"error": "RuntimeError", "detail": "", "body": "", "message": "no such layer"}
    assert _generate(peer).json() == told


def test_a_wrong_model_is_only_seen_in_info(peer: Peer) -> None:
    peer.sandbox.faults.add("wrong_model")
    override = {"sd_model_checkpoint": "random-sd15.safetensors"}
    answer = _generate(peer, override_settings=override)
    assert answer.status_code == 200
    assert _info(answer)["sd_model_name"] == "other-sd15"
    assert answer.json()["parameters"]["override_settings"] == override
    assert _info(_generate(peer, override_settings=override))["sd_model_name"] == "random-sd15"


def test_an_unknown_checkpoint_leaves_the_current_one_and_its_key_in_no_echo(peer: Peer) -> None:
    answer = _generate(peer, override_settings={"sd_model_checkpoint": "nope"})
    assert _info(answer)["sd_model_name"] == "random-sd15"
    assert answer.json()["parameters"]["override_settings"] == {}


def test_a_partial_result_is_a_200_with_fewer_pictures(peer: Peer) -> None:
    peer.sandbox.faults.add("partial")
    answer = _generate(peer, n_iter=3)
    assert answer.status_code == 200
    assert len(answer.json()["images"]) == 2
    assert len(_info(answer)["all_seeds"]) == 3


def test_a_foreign_interrupt_is_a_200_and_only_the_state_tells(peer: Peer) -> None:
    peer.sandbox.faults.add("interrupt", "step 1")
    answer = _generate(peer, save_images=True)
    assert answer.status_code == 200
    assert decoded(answer.json()["images"][0]).mode == "RGB"
    assert files_below(peer.folder) == set()
    assert peer.get("/sdapi/v1/progress").json()["state"]["interrupted"]


def test_a_lost_interrupt_is_answered_and_forgotten(peer: Peer) -> None:
    peer.sandbox.faults.add("lose_interrupt")
    assert peer.post("/sdapi/v1/interrupt").json() == {}
    assert not peer.get("/sdapi/v1/progress").json()["state"]["interrupted"]
    peer.post("/sdapi/v1/interrupt")
    assert peer.get("/sdapi/v1/progress").json()["state"]["interrupted"]


def test_a_lost_result_has_no_file(peer: Peer) -> None:
    peer.sandbox.faults.add("lose_result", "save")
    answer = _generate(peer, save_images=True)
    assert len(answer.json()["images"]) == 1
    assert files_below(peer.folder) == set()


def test_a_stalled_job_makes_no_progress_but_the_server_answers(peer: Peer) -> None:
    peer.sandbox.faults.add("stall", "step 2")
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(_generate, peer, steps=4, force_task_id="stalled")
        wait_until(lambda: peer.sandbox.faults.struck, every_s=0.005)
        assert peer.progress("stalled")["active"]
        assert peer.get("/internal/ping").json() == {}
        assert not answer.done()
        peer.sandbox.faults.clear()
        assert answer.result(10).status_code == 200


def test_a_server_that_dies_forgets_tasks_and_keeps_files(peer: Peer) -> None:
    before = peer.get("/app_id").json()
    _generate(peer, save_images=True, force_task_id="kept")
    peer.sandbox.faults.add("die", "step 1")
    with pytest.raises(httpx.RemoteProtocolError):
        _generate(peer, force_task_id="lost")
    peer.sandbox.stop()
    peer.sandbox.start()
    after = peer.get("/app_id").json()
    assert before["app_id"] != after["app_id"]
    assert after["stablequeue_sandbox"] is True
    for task in ("kept", "lost"):
        assert peer.progress(task)["textinfo"] == "Waiting..."
        assert not peer.progress(task)["completed"]
    (name,) = files_below(peer.folder)
    assert peer.get(f"/file={name.removeprefix('/forge/')}").status_code == 200
    titles = [model["title"] for model in peer.get("/sdapi/v1/sd-models").json()]
    assert titles[0].endswith(" [01cfe36ece]"), "a learnt hash survives"


def test_only_the_last_sixteen_tasks_are_remembered(peer: Peer) -> None:
    for number in range(17):
        _generate(peer, steps=1, force_task_id=f"t{number}")
    assert not peer.progress("t0")["completed"]
    assert peer.progress("t1")["completed"]


def test_an_override_leaks_until_its_key_is_pinned(peer: Peer) -> None:
    override = {"CLIP_stop_at_last_layers": 2}
    assert _info(_generate(peer, override_settings=override))["clip_skip"] == 2
    assert _info(_generate(peer))["clip_skip"] == 2, "it stays although restoring was asked for"
    peer.post("/sdapi/v1/options", {"CLIP_stop_at_last_layers": 1})
    assert _info(_generate(peer, override_settings=override))["clip_skip"] == 2
    assert _info(_generate(peer))["clip_skip"] == 1


def test_one_bad_option_breaks_the_list_for_everybody(peer: Peer) -> None:
    assert peer.post("/sdapi/v1/options", {"jpeg_quality": "high"}).status_code == 200
    answer = peer.get("/sdapi/v1/options")
    assert answer.status_code == 500
    assert answer.json()["error"] == "ResponseValidationError"
    assert answer.json()["body"]["jpeg_quality"] == "high"
    assert _generate(peer).status_code == 200, "jobs run on"
    peer.post("/sdapi/v1/options", {"jpeg_quality": 80})
    assert peer.get("/sdapi/v1/options").status_code == 200


def test_jobs_run_one_at_a_time_on_one_card(peer: Peer) -> None:
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(_generate, peer, seed=seed) for seed in range(6)]
        answers = [future.result(20) for future in waiting]
    assert {answer.status_code for answer in answers} == {200}
    assert peer.sandbox.card.most_at_once == 1


def test_consecutive_jobs_with_one_checkpoint_load_it_once(peer: Peer) -> None:
    for _ in range(3):
        _generate(peer, override_settings={"sd_model_checkpoint": "other-sd15"})
    assert len(peer.sandbox.card.swaps) == 1
    _generate(peer)
    assert len(peer.sandbox.card.swaps) == 2, "without an override the default comes back"
    peer.post("/sdapi/v1/unload-checkpoint")
    assert peer.sandbox.card.loaded("sandbox/forge") == []


def test_the_same_request_paints_the_same_picture_that_says_it_is_the_sandbox(peer: Peer) -> None:
    images = [
        _generate(peer, save_images=save).json()["images"][0] for save in (False, False, True)
    ]
    pictures = [decoded(image) for image in images]
    assert images[0] == images[1]
    assert [picture.mode for picture in pictures] == ["RGB", "RGB", "RGBA"]
    assert pictures[0].tobytes() == pictures[2].convert("RGB").tobytes()
    assert "sandbox" in pictures[0].info["stablequeue_sandbox"].lower()
    changed = decoded(_generate(peer, seed=6).json()["images"][0])
    assert changed.tobytes() != pictures[0].tobytes()


def test_the_infotext_is_hidden_in_alpha_of_saved_pictures(peer: Peer) -> None:
    image = _generate(peer, width=128, height=128, save_images=True).json()["images"][0]
    picture = decoded(image)
    assert read_stealth(picture) == told_text(picture)
    answer = peer.post("/sdapi/v1/png-info", {"image": png((64, 64), mode="RGBA")})
    assert answer.json()["info"] == ""


def test_pictures_are_named_outside_nothing(peer: Peer) -> None:
    for pattern in ("../../evil-[seed]", "..\\..\\evil", "/evil"):
        override = {"samples_filename_pattern": pattern, "save_images_add_number": False}
        answer = _generate(peer, save_images=True, override_settings=override)
        assert answer.json()["error"] == "FileNotFoundError"
    peer.post("/sdapi/v1/options", {"samples_filename_pattern": "", "outdir_txt2img_samples": "/x"})
    assert _generate(peer, save_images=True).json()["error"] == "PermissionError"


def test_an_inpainting_job_keeps_what_the_mask_spares(peer: Peer) -> None:
    start = decoded(png((64, 64)))
    body = {"init_images": [png((64, 64))], "mask": png((64, 64), blank=True)}
    answer = peer.post("/sdapi/v1/img2img", _JOB | body | {"denoising_strength": 0.5})
    kept = decoded(answer.json()["images"][0]).crop((0, 0, 64, 56))
    assert kept.tobytes() == start.crop((0, 0, 64, 56)).tobytes()
    whole = peer.post("/sdapi/v1/img2img", _JOB | {"init_images": [png((64, 64))]})
    assert decoded(whole.json()["images"][0]).crop((0, 0, 64, 56)).tobytes() != kept.tobytes()


def test_automatic1111_has_vaes_instead_of_modules(start_peer: StartPeer) -> None:
    peer = start_peer(flavour="automatic1111", models=default_models())
    assert peer.get("/sdapi/v1/sd-modules").status_code == 404
    vaes = [vae["model_name"] for vae in peer.get("/sdapi/v1/sd-vae").json()]
    assert "vae-ft-mse-840000-ema-pruned.safetensors" in vaes
    answer = _generate(
        peer,
        override_settings={"sd_vae": vaes[0]},
        enable_hr=True,
        denoising_strength=0.5,
        save_images=True,
    )
    assert answer.status_code == 200, "no hr_additional_modules are needed"
    assert "hr_additional_modules" not in answer.json()["parameters"]
    text = _info(answer)["infotexts"][0]
    assert f"VAE: {vaes[0].removesuffix('.safetensors')}" in text
    assert text.endswith("Version: v1.10.1")
    assert decoded(answer.json()["images"][0]).mode == "RGB", "nothing is hidden in alpha"
    assert "forge_additional_modules" not in peer.get("/sdapi/v1/options").json()
    assert peer.post("/queue/join", {"data": []}).status_code == 404


def test_a_windows_server_tells_backslashes_and_understands_only_those(
    start_peer: StartPeer,
) -> None:
    peer = start_peer(models=default_models(separator="\\"))
    titles = [model["title"] for model in peer.get("/sdapi/v1/sd-models").json()]
    wanted = "sub dir\\landscapes v2 [pruned].safetensors"
    assert wanted in titles
    names = [
        _info(_generate(peer, override_settings={"sd_model_checkpoint": title}))["sd_model_name"]
        for title in (wanted, wanted.replace("\\", "/"))
    ]
    assert names == ["landscapes v2 [pruned]", "sandbox-sd15"]


def test_a_bare_unet_needs_its_modules(start_peer: StartPeer) -> None:
    peer = start_peer(models=default_models())
    override: dict[str, Any] = {"sd_model_checkpoint": "flux/sandbox-flux-dev.safetensors"}
    assert _generate(peer, override_settings=override).json()["error"] == "AssertionError"
    override["forge_additional_modules"] = ["ae.safetensors", "clip_l.safetensors", "nope"]
    answer = _generate(peer, override_settings=override)
    text = _info(answer)["infotexts"][0]
    assert text.endswith("Module 1: ae, Module 2: clip_l")
    assert "Distilled CFG Scale: 3.5" in text


def test_new_files_are_listed_after_a_refresh_only(start_peer: StartPeer) -> None:
    shelf = ModelShelf()
    peer = start_peer(models=shelf)
    shelf.add("checkpoints", "new.safetensors")
    shelf.add("loras", "new lora.safetensors")
    assert peer.get("/sdapi/v1/sd-models").json() == []
    peer.post("/sdapi/v1/refresh-checkpoints")
    peer.post("/sdapi/v1/refresh-loras")
    assert [m["title"] for m in peer.get("/sdapi/v1/sd-models").json()] == ["new.safetensors"]
    assert [m["name"] for m in peer.get("/sdapi/v1/loras").json()] == ["new lora"]


def test_without_the_api_only_gradio_is_there(start_peer: StartPeer) -> None:
    peer = start_peer(api=False)
    assert peer.get("/sdapi/v1/sd-models").json() == {"detail": "Not Found"}
    assert peer.get("/config").status_code == 200


def test_right_after_a_boot_extensions_are_not_there_yet(start_peer: StartPeer) -> None:
    peer = start_peer(late_routes_s=0.6)
    assert peer.get("/sdapi/v1/sd-models").status_code == 200
    assert peer.get("/sdapi/v1/loras").status_code == 404
    wait_until(lambda: peer.get("/sdapi/v1/loras").status_code == 200, every_s=0.05)


def test_workers_can_be_few(start_peer: StartPeer) -> None:
    peer = start_peer(workers=2)
    gate = Gate(peer.sandbox)
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(_generate, peer) for _ in range(2)]
        wait_until(lambda: len(peer.journal("forge.post")) == 2, every_s=0.005)
        with pytest.raises(httpx.ReadTimeout):
            peer.get("/internal/ping", timeout=0.2)
        gate.open()
        assert {job.result(10).status_code for job in jobs} == {200}
    assert peer.get("/internal/ping").status_code == 200


def test_a_wrong_setting_is_refused_with_what_there_is(start_peer: StartPeer) -> None:
    with pytest.raises(ValueError, match="flavour"):
        start_peer(flavor="forge")
    with pytest.raises(ValueError, match="automatic1111"):
        start_peer(flavour="comfyui")
