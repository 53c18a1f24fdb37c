"""Probing, listing and resolving, against recorded answers."""

from typing import Any

import pytest
from starlette.responses import JSONResponse, PlainTextResponse, Response

from stablequeue.engines.comfyui import ComfyUI
from stablequeue.errors import (
    BadRequest,
    EngineBusy,
    EngineError,
    ModelMissing,
    ProtocolError,
    Unsupported,
)
from tests.engines.comfyui.jobs import PICTURE, request
from tests.engines.comfyui.recordings import recorded
from tests.engines.comfyui.scripted import Scripted

FULL = "sub dir/full-random-sd15.safetensors"
TINY = "tiny-random-sd15.safetensors"
FLUX: dict[str, Any] = {
    "unet": "tiny-flux",
    "text_encoders": ["tiny-clip_l", "tiny-t5xxl"],
    "vae": "tiny-flux-vae",
}
WORKFLOW = recorded("txt2img")["request"]["prompt"]


async def test_a_probe_says_what_the_server_is(engine: ComfyUI, server: Scripted) -> None:
    server.running.append([0, "foreign", {}, {}, []])
    info = await engine.probe()
    assert (info.app_type, info.flavour, info.version) == ("comfyui", "comfyui", "0.3.64")
    assert (info.gpu, info.queue_length, info.sandbox) == ("cpu", 1, False)
    assert info.vram_total > info.vram_free > 0
    assert info.features == {"supports_preview_metadata", "targeted_interrupt"}


async def test_a_newer_server_is_known_by_its_jobs(engine: ComfyUI, server: Scripted) -> None:
    server.jobs_api = True
    assert "jobs_api" in (await engine.probe()).features


async def test_an_older_server_without_features_is_probed_all_the_same(
    engine: ComfyUI, server: Scripted
) -> None:
    server.always("GET /features", Response(status_code=404))
    server.stats["system"]["comfyui_version"] = "v0.3.10-4-gabc"
    info = await engine.probe()
    assert info.features == frozenset()


async def test_the_sandbox_says_so(engine: ComfyUI, server: Scripted) -> None:
    server.stats["system"]["stablequeue_sandbox"] = True
    assert (await engine.probe()).sandbox


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Response(status_code=502), EngineBusy),
        (PlainTextResponse("<html>welcome</html>"), ProtocolError),
        (JSONResponse({"ok": True}), ProtocolError),
        (
            Response(status_code=307, headers={"location": "https://elsewhere.example/"}),
            ProtocolError,
        ),
    ],
)
async def test_what_is_no_comfyui_is_refused(
    engine: ComfyUI, server: Scripted, answer: Response, error: type[EngineError]
) -> None:
    server.always("GET /system_stats", answer)
    with pytest.raises(error, match="gpu-a"):
        await engine.probe()


async def test_the_inventory_reads_both_forms_of_a_list(engine: ComfyUI) -> None:
    inventory = await engine.inventory()
    assert inventory.checkpoints == (FULL, TINY)
    assert inventory.upscalers == ("4x tiny (v2).pth",)  # ["COMBO", {"options": [...]}]
    assert inventory.loras == ("style/tiny-random-lora.safetensors",)
    assert inventory.embeddings == ("tiny-emb",)
    assert "dpmpp_2m_sde_heun" in inventory.samplers
    assert "kl_optimal" in inventory.schedulers


async def test_without_a_loader_class_the_model_folder_is_listed(
    engine: ComfyUI, server: Scripted
) -> None:
    del server.classes["UpscaleModelLoader"]
    server.always("GET /models/upscale_models", JSONResponse(["a.pth"]))
    del server.classes["UNETLoader"]
    inventory = await engine.inventory()
    assert inventory.upscalers == ("a.pth",)
    assert inventory.unets == ()


async def test_names_become_the_servers_exact_strings(engine: ComfyUI) -> None:
    asked = request(
        checkpoint="SUB DIR\\Full-random-sd15 [abcdef1234]",
        vae="tiny-vae",
        sampler="DPM++ 2M Karras",
        loras=[{"name": "tiny-random-lora", "weight": 0.5}],
        prompt="a cat <lora:TINY-random-lora:0.25>",
        negative_prompt="dog",
    )
    resolved = await engine.resolve(asked)
    assert (resolved.checkpoint, resolved.vae) == (FULL, "tiny-vae.safetensors")
    assert (resolved.sampler, resolved.scheduler) == ("dpmpp_2m", "karras")
    assert [(u.name, u.weight, u.text_weight) for u in resolved.loras] == [
        ("style/tiny-random-lora.safetensors", 0.5, 0.5),
        ("style/tiny-random-lora.safetensors", 0.25, 0.25),
    ]
    assert resolved.detail["prompt"] == "a cat"


async def test_a_name_with_a_hash_is_taken_literally_if_the_list_has_it(
    engine: ComfyUI, server: Scripted
) -> None:
    listed = server.classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0]
    listed += ["model [abcdef1234].safetensors", "model.safetensors"]
    resolved = await engine.resolve(request(checkpoint="model [abcdef1234]"))
    assert resolved.checkpoint == "model [abcdef1234].safetensors"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"checkpoint": "nope"}, "checkpoint"),
        ({"checkpoint": TINY, "vae": "nope"}, "vae"),
        ({"checkpoint": TINY, "loras": [{"name": "nope"}]}, "loras.0.name"),
        ({"checkpoint": TINY, "prompt": "<lora:nope:1>"}, "prompt"),
        ({**FLUX, "unet": "nope"}, "unet"),
        ({**FLUX, "text_encoders": ["tiny-clip_l", "nope"]}, "text_encoders.1"),
        ({"checkpoint": TINY, "hires": {"scale": 2, "upscaler": "nope"}}, "hires.upscaler"),
        (
            {"mode": "upscale", "init_image": PICTURE, "upscale": {"upscaler": "nope"}},
            "upscale.upscaler",
        ),
    ],
)
async def test_a_model_that_is_not_there_is_missing(
    engine: ComfyUI, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ModelMissing) as refusal:
        await engine.resolve(request(**fields))
    assert (refusal.value.field, refusal.value.name) == (field, "nope")


async def test_what_looks_alike_is_suggested(engine: ComfyUI) -> None:
    with pytest.raises(ModelMissing) as refusal:
        await engine.resolve(request(checkpoint="tiny-random-sd16"))
    assert refusal.value.suggestions[0] == TINY


async def test_no_checkpoint_is_the_only_one_there_is(engine: ComfyUI, server: Scripted) -> None:
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(request())
    assert refusal.value.field == "checkpoint"
    assert refusal.value.allowed == (FULL, TINY)
    server.classes["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"][0] = [TINY]
    resolved = await engine.resolve(request())
    assert resolved.checkpoint == TINY
    assert TINY in resolved.detail["notes"][0]


async def test_the_servers_own_samplers_come_before_the_table(
    engine: ComfyUI, server: Scripted
) -> None:
    inputs = server.classes["KSampler"]["input"]["required"]
    inputs["sampler_name"][0].append("res_2s_custom")
    inputs["scheduler"][0].append("bong_tangent")
    asked = request(checkpoint=TINY, sampler="RES_2S_custom")
    resolved = await engine.resolve(asked)
    assert (resolved.sampler, resolved.scheduler) == ("res_2s_custom", "normal")
    asked = request(checkpoint=TINY, sampler="Euler a", scheduler="bong_tangent")
    resolved = await engine.resolve(asked)
    assert (resolved.sampler, resolved.scheduler) == ("euler_ancestral", "bong_tangent")
    asked = request(checkpoint=TINY, sampler="res_2s_custom", scheduler="SGM Uniform")
    assert (await engine.resolve(asked)).scheduler == "sgm_uniform"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampler": "Restart"}, "sampler"),
        ({"sampler": "Eulr"}, "sampler"),
        ({"scheduler": "Align Your Steps"}, "scheduler"),
        ({"scheduler": "nope"}, "scheduler"),
        ({"alwayson_scripts": {"ControlNet": {"args": []}}}, "alwayson_scripts"),
        ({"prompt": "<hypernet:x:1>"}, "prompt"),
        ({"hires": {"scale": 2, "upscaler": "Latent (antialiased)"}}, "hires.upscaler"),
        ({"hires": {"scale": 8}, "width": 4096}, "hires.scale"),
    ],
)
async def test_what_it_cannot_do_is_refused_by_name(
    engine: ComfyUI, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(request(checkpoint=TINY, **fields))
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("inpaint", "field"),
    [({"only_masked": True}, "inpaint.only_masked"), ({"fill": "latent noise"}, "inpaint.fill")],
)
async def test_what_it_cannot_do_with_a_mask_is_refused(
    engine: ComfyUI, inpaint: dict[str, Any], field: str
) -> None:
    asked = request(
        checkpoint=TINY, mode="inpaint", init_image=PICTURE, mask_image=PICTURE, inpaint=inpaint
    )
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(asked)
    assert refusal.value.field == field


async def test_a_sampler_the_table_knows_but_the_server_lacks_is_refused(
    engine: ComfyUI, server: Scripted
) -> None:
    server.classes["KSampler"]["input"]["required"]["sampler_name"][0].remove("heunpp2")
    with pytest.raises(Unsupported, match="heunpp2"):
        await engine.resolve(request(checkpoint=TINY, sampler="HeunPP2"))


async def test_flux_is_recognised_and_takes_a_simple_scheduler(engine: ComfyUI) -> None:
    resolved = await engine.resolve(request(**FLUX))
    assert resolved.unet == "flux/tiny-flux.safetensors"
    assert resolved.text_encoders == ("tiny-clip_l.safetensors", "tiny-t5xxl.safetensors")
    assert (resolved.detail["family"], resolved.scheduler) == ("flux", "simple")
    assert "1 is usual" in resolved.detail["notes"][0]


async def test_a_family_is_told_by_what_the_file_says_about_itself(
    engine: ComfyUI, server: Scripted
) -> None:
    asked = request(**{**FLUX, "unet": "tiny-unet"})
    with pytest.raises(Unsupported, match="rename") as refusal:
        await engine.resolve(asked)
    assert refusal.value.field == "text_encoders"
    server.metadata["tiny-unet.safetensors"] = {"modelspec.architecture": "flux-1-dev"}
    assert (await engine.resolve(asked)).detail["family"] == "flux"


@pytest.mark.parametrize("lacking", ["vae", "text_encoders"])
async def test_a_separate_image_model_needs_its_other_parts(engine: ComfyUI, lacking: str) -> None:
    asked = request(**{key: value for key, value in FLUX.items() if key != lacking})
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(asked)
    assert refusal.value.field == lacking
    assert refusal.value.allowed


async def test_an_old_server_without_the_nodes_is_refused(
    engine: ComfyUI, server: Scripted
) -> None:
    del server.classes["EmptySD3LatentImage"]
    with pytest.raises(Unsupported, match="EmptySD3LatentImage"):
        await engine.resolve(request(**FLUX))


async def test_an_old_server_without_the_nodes_for_a_mask_is_refused(
    engine: ComfyUI, server: Scripted
) -> None:
    del server.classes["LatentCompositeMasked"]
    fields = {"checkpoint": TINY, "mode": "inpaint", "init_image": PICTURE, "mask_image": PICTURE}
    await engine.resolve(request(**fields))
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(request(**fields, inpaint={"fill": "latent nothing"}))
    assert refusal.value.field == "inpaint.fill"


@pytest.mark.parametrize("vae", ["Automatic", "None", " automatic "])
async def test_forges_word_for_the_checkpoints_own_vae_is_understood(
    engine: ComfyUI, vae: str
) -> None:
    assert (await engine.resolve(request(checkpoint=TINY, vae=vae))).vae == ""


@pytest.mark.parametrize(
    ("name", "upscaler", "is_model"),
    [
        ("Latent", "Latent", False),
        ("Lanczos", "Lanczos", False),
        ("4x tiny (v2)", "4x tiny (v2).pth", True),
    ],
)
async def test_upscalers_are_methods_or_models(
    engine: ComfyUI, name: str, upscaler: str, *, is_model: bool
) -> None:
    asked = request(checkpoint=TINY, hires={"scale": 2, "upscaler": name})
    resolved = await engine.resolve(asked)
    assert (resolved.upscaler, resolved.detail["upscale_model"]) == (upscaler, is_model)


def workflow(**fields: Any) -> Any:
    overrides = {"4.ckpt_name": TINY, **fields.pop("overrides", {})}
    return request(mode="workflow", workflow=WORKFLOW, overrides=overrides, **fields)


async def test_a_workflow_is_summed_up(engine: ComfyUI) -> None:
    resolved = await engine.resolve(workflow())
    assert (resolved.checkpoint, resolved.sampler, resolved.scheduler) == (TINY, "euler", "normal")


async def test_a_workflows_model_with_the_other_slash_gets_the_servers_name(
    engine: ComfyUI,
) -> None:
    name = "sub dir\\full-random-sd15.safetensors"
    resolved = await engine.resolve(workflow(overrides={"4.ckpt_name": name}))
    assert resolved.detail["exact"] == {"4": {"ckpt_name": FULL}}
    assert resolved.checkpoint == FULL


@pytest.mark.parametrize(
    ("overrides", "error", "field"),
    [
        ({"4.ckpt_name": "nope.safetensors"}, ModelMissing, "workflow.4.ckpt_name"),
        ({"3.sampler_name": "Euler a"}, Unsupported, "workflow.3.sampler_name"),
        ({"3.nope": 1}, BadRequest, "overrides.3.nope"),
    ],
)
async def test_a_workflow_is_checked_before_it_is_sent(
    engine: ComfyUI, server: Scripted, overrides: dict[str, Any], error: Any, field: str
) -> None:
    with pytest.raises(error) as refusal:
        await engine.resolve(workflow(overrides=overrides))
    assert refusal.value.field == field
    assert not server.posted()


async def test_a_workflow_with_an_unknown_node_is_refused(engine: ComfyUI) -> None:
    asked = request(mode="workflow", workflow={"1": {"class_type": "Custom Node/x", "inputs": {}}})
    with pytest.raises(Unsupported, match="Custom Node/x"):
        await engine.resolve(asked)


async def test_a_node_with_slashes_in_its_name_is_found_behind_a_proxy_that_unquotes(
    engine: ComfyUI, server: Scripted
) -> None:
    server.classes["Save //Mine"] = server.classes["SaveImage"]
    graph = {**WORKFLOW, "9": {**WORKFLOW["9"], "class_type": "Save //Mine"}}
    asked = request(mode="workflow", workflow=graph, overrides={"4.ckpt_name": TINY})
    assert (await engine.resolve(asked)).checkpoint == TINY


async def test_a_workflow_that_saves_nothing_is_refused(engine: ComfyUI) -> None:
    only = {"4": WORKFLOW["4"]}
    with pytest.raises(Unsupported, match="saves or shows"):
        await engine.resolve(request(mode="workflow", workflow=only))


async def test_only_what_an_output_needs_is_checked(engine: ComfyUI) -> None:
    spare = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "gone.safetensors"}}
    asked = request(
        mode="workflow", workflow={**WORKFLOW, "77": spare}, overrides={"4.ckpt_name": TINY}
    )
    assert (await engine.resolve(asked)).checkpoint


@pytest.mark.parametrize(
    ("fields", "field"),
    [({"init_image": PICTURE}, "init_image"), ({"mask_image": PICTURE}, "mask_image")],
)
async def test_a_picture_the_workflow_has_no_place_for_is_refused(
    engine: ComfyUI, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(workflow(**fields))
    assert refusal.value.field == field


async def test_a_place_without_a_picture_is_refused(engine: ComfyUI) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "init_image"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    with pytest.raises(Unsupported, match="wants a picture"):
        await engine.resolve(request(mode="workflow", workflow=graph))
    await engine.resolve(request(mode="workflow", workflow=graph, init_image=PICTURE))


@pytest.mark.parametrize(("fields", "field"), [({"seed": 5}, "seed"), ({"count": 2}, "count")])
async def test_a_seed_that_would_have_no_effect_is_refused(
    engine: ComfyUI, fields: dict[str, Any], field: str
) -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "example.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    with pytest.raises(Unsupported) as refusal:
        await engine.resolve(request(mode="workflow", workflow=graph, **fields))
    assert refusal.value.field == field
