"""Resolving requests, against recorded lists."""

from typing import Any

import pytest
from starlette.responses import JSONResponse

from stablequeue.engines.forge import Forge, boot
from stablequeue.errors import (
    EngineAuthFailed,
    EngineBusy,
    EngineUnreachable,
    ModelMissing,
    ProtocolError,
    Unsupported,
)
from stablequeue.request import parse_request
from tests.engines.forge.making import OTHER, RANDOM, config, inside, request, resolved
from tests.engines.forge.scripted import Scripted, missing, nonsense, raised

MODULES = [
    {"model_name": "ae.safetensors", "filename": "/models/VAE/ae.safetensors"},
    {"model_name": "clip_l.safetensors", "filename": "/models/text_encoder/clip_l.safetensors"},
    {"model_name": "t5xxl.safetensors", "filename": "/models/text_encoder/t5xxl.safetensors"},
]


async def test_a_checkpoint_becomes_the_server_s_own_title(engine: Forge) -> None:
    resolution = await engine.resolve(request(checkpoint="SUB DIR\\other-sd15"))
    assert resolution.checkpoint == OTHER
    assert resolution.detail["model"] == "other-sd15"


async def test_an_unknown_checkpoint_is_refused_with_suggestions(engine: Forge) -> None:
    with pytest.raises(ModelMissing) as refused:
        await engine.resolve(request(checkpoint="randm-sd15"))
    assert refused.value.field == "checkpoint"
    assert refused.value.suggestions[0] == RANDOM


async def test_without_a_checkpoint_what_is_selected_is_sent_and_recorded(engine: Forge) -> None:
    resolution = await engine.resolve(request(checkpoint=""))
    assert resolution.checkpoint == RANDOM


async def test_without_a_checkpoint_the_selected_modules_are_kept(
    server: Scripted, engine: Forge
) -> None:
    server.lists["/sdapi/v1/sd-modules"] = MODULES
    server.memory["forge_additional_modules"] = ["/models/VAE/ae.safetensors"]
    assert (await engine.resolve(request(checkpoint=""))).detail["modules"] == ["ae.safetensors"]
    assert (await engine.resolve(request())).detail["modules"] == []


async def test_without_a_checkpoint_and_readable_settings_one_must_be_named(
    server: Scripted, engine: Forge
) -> None:
    server.always("GET /sdapi/v1/options", raised("ResponseValidationError", "1 error"))
    with pytest.raises(Unsupported, match="settings cannot be read") as refused:
        await engine.resolve(request(checkpoint=""))
    assert refused.value.field == "checkpoint"
    assert RANDOM in refused.value.allowed
    server.lists["/sdapi/v1/sd-models"] = [{"title": "only.safetensors", "hash": None}]
    assert (await engine.resolve(request(checkpoint=""))).checkpoint == "only.safetensors"


async def test_a_server_without_any_model_says_so(server: Scripted, engine: Forge) -> None:
    server.lists["/sdapi/v1/sd-models"] = []
    with pytest.raises(ModelMissing):
        await engine.resolve(request())


async def test_a_separate_image_model_is_a_checkpoint_with_modules(
    server: Scripted, engine: Forge
) -> None:
    server.lists["/sdapi/v1/sd-modules"] = MODULES
    job = await resolved(
        engine,
        checkpoint="",
        unet="other-sd15",
        text_encoders=["clip_l", "T5XXL"],
        vae="ae",
    )
    resolution = job.resolution
    assert (resolution.checkpoint, resolution.unet) == ("", OTHER)
    assert resolution.detail["modules"] == [
        "clip_l.safetensors",
        "t5xxl.safetensors",
        "ae.safetensors",
    ]


async def test_an_unknown_module_is_refused_because_it_would_be_dropped(
    server: Scripted, engine: Forge
) -> None:
    server.lists["/sdapi/v1/sd-modules"] = MODULES
    for field, value in (("vae", "nope"), ("text_encoders", ["clip_l", "nope"])):
        with pytest.raises(ModelMissing) as refused:
            await engine.resolve(request(**{field: value}))
        assert refused.value.field.startswith(field)


async def test_automatic1111_has_one_vae_and_whole_checkpoints(
    server: Scripted, engine: Forge
) -> None:
    server.flavour = "automatic1111"
    server.lists["/sdapi/v1/sd-vae"] = MODULES[:1]
    assert (await engine.probe()).flavour == "automatic1111"
    assert (await engine.resolve(request(vae="AE"))).vae == "ae.safetensors"
    for field, value in (("unet", "x"), ("text_encoders", ["clip_l"])):
        with pytest.raises(Unsupported, match="use Forge") as refused:
            await engine.resolve(request(checkpoint="", **{field: value}))
        assert refused.value.field == field


async def test_loras_are_found_and_tags_in_the_prompt_made_exact(engine: Forge) -> None:
    resolution = await engine.resolve(
        request(
            prompt="a <lora:TINY-LORA:0.5:0.7> cat <lora:tinyalias>",
            loras=[{"name": "tinyalias", "weight": 0.7, "text_weight": 0.3}],
        )
    )
    assert resolution.detail["prompt"] == "a <lora:tiny-lora:0.5:0.7> cat <lora:tinyalias>"
    assert resolution.detail["tags"] == ["tiny-lora", "tinyalias"]
    assert [lora.name for lora in resolution.loras] == ["tiny-lora"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"loras": [{"name": "nope"}]}, "loras.0.name"),
        ({"prompt": "a <lora:nope:1> cat"}, "prompt"),
    ],
)
async def test_an_unknown_lora_is_refused_because_it_would_be_left_out(
    engine: Forge, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises(ModelMissing) as refused:
        await engine.resolve(request(**fields))
    assert refused.value.field == field


async def test_a_lora_whose_name_cannot_be_a_tag_is_refused(
    server: Scripted, engine: Forge
) -> None:
    server.lists["/sdapi/v1/loras"] = [{"name": "a:b", "alias": "", "path": "/l/a:b.safetensors"}]
    with pytest.raises(Unsupported, match="rename"):
        await engine.resolve(request(loras=[{"name": "a:b"}]))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"sampler": "nope"}, "sampler"),
        ({"scheduler": "nope"}, "scheduler"),
        ({"hires": {"scale": 2, "upscaler": "nope"}}, "hires.upscaler"),
        ({"alwayson_scripts": {"ADetailer": {"args": []}}}, "alwayson_scripts.ADetailer"),
        ({"alwayson_scripts": {"controlnet": [1]}}, "alwayson_scripts.controlnet"),
        ({"clip_skip": 13}, "clip_skip"),
        ({"sections": {"forge": {"script_name": "nope"}}}, "sections.forge.script_name"),
        ({"sections": {"forge": {"styles": ["nope"]}}}, "sections.forge.styles.0"),
        ({"sections": {"forge": {"payload": {"seed": 3}}}}, "sections.forge.payload.seed"),
        (
            {"sections": {"forge": {"payload": {"refiner_checkpoint": "nope"}}}},
            "sections.forge.payload.refiner_checkpoint",
        ),
        (
            {"sections": {"forge": {"override_settings": {"sd_vae": "x"}}}},
            "sections.forge.override_settings.sd_vae",
        ),
        (
            {"sections": {"forge": {"override_settings": {"samples_format": "jpg"}}}},
            "sections.forge.override_settings.samples_format",
        ),
        (
            {"mode": "upscale", "init_image": "x", "upscale": {"upscaler": "nope"}},
            "upscale.upscaler",
        ),
    ],
)
async def test_what_the_server_cannot_do_is_refused_naming_the_field(
    engine: Forge, fields: dict[str, Any], field: str
) -> None:
    with pytest.raises((Unsupported, ModelMissing)) as refused:
        await engine.resolve(request(**fields))
    assert refused.value.field == field


async def test_a_workflow_is_refused(engine: Forge) -> None:
    workflow = parse_request({"mode": "workflow", "workflow": {"1": {"class_type": "X"}}})
    with pytest.raises(Unsupported, match="ComfyUI"):
        await engine.resolve(workflow)


async def test_scripts_are_sent_under_the_server_s_titles(engine: Forge) -> None:
    resolution = await engine.resolve(
        request(
            alwayson_scripts={"ControlNet": {"args": [{"x": 1}]}},
            sections={"forge": {"script_name": "X/Y/Z Plot"}},
        )
    )
    assert resolution.detail["alwayson_scripts"] == {"controlnet": {"args": [{"x": 1}]}}
    assert resolution.detail["script_name"] == "x/y/z plot"


async def test_names_in_the_section_s_own_fields_are_made_exact(engine: Forge) -> None:
    own = {"refiner_checkpoint": "other-sd15", "hr_sampler_name": "euler a", "eta": 0.5}
    resolution = await engine.resolve(request(sections={"forge": {"payload": own}}))
    assert resolution.detail["payload"] == {
        "refiner_checkpoint": OTHER,
        "hr_sampler_name": "Euler a",
        "eta": 0.5,
    }


async def test_probing_tells_forge_and_its_memory(server: Scripted, engine: Forge) -> None:
    server.lists["/sdapi/v1/memory"] = {
        "ram": {},
        "cuda": {"system": {"free": 1000, "used": 3000, "total": 4000}},
    }
    server.lists["/app_id"] = {}
    server.busy()
    info = await engine.probe()
    assert (info.app_type, info.flavour, info.sandbox) == ("forge", "forge", False)
    assert (info.vram_total, info.vram_free, info.queue_length) == (4000, 1000, 1)
    assert "web_page" in info.features


async def test_probing_without_a_card_or_a_web_page(server: Scripted, engine: Forge) -> None:
    server.webui = False
    info = await engine.probe()
    assert (info.vram_total, "web_page" in info.features) == (0, False)


async def test_our_sandbox_is_recognised(server: Scripted, engine: Forge) -> None:
    server.always("GET /app_id", JSONResponse({"app_id": 1, "stablequeue_sandbox": True}))
    assert (await engine.probe()).sandbox


async def test_an_api_that_is_off_is_busy_at_first_and_then_advice(
    server: Scripted, engine: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.api = False
    with pytest.raises(EngineBusy, match="--api"):
        await engine.probe()
    monkeypatch.setattr(boot, "LATE_ROUTES_S", 0.0)
    with pytest.raises(Unsupported, match="start it with --api"):
        await engine.probe()


async def test_lora_routes_that_come_late_are_waited_for(
    server: Scripted, engine: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.script("GET /sdapi/v1/loras", missing())
    wanted = request(loras=[{"name": "tiny-lora"}])
    with pytest.raises(EngineBusy):
        await engine.resolve(wanted)
    assert (await engine.resolve(wanted)).loras[0].name == "tiny-lora"
    monkeypatch.setattr(boot, "LATE_ROUTES_S", 0.0)
    server.always("GET /sdapi/v1/loras", missing())
    with pytest.raises(Unsupported, match="LoRA"):
        await engine.resolve(wanted)


async def test_flags_that_cannot_be_told_are_read_from_the_error(
    server: Scripted, engine: Forge
) -> None:
    assert await inside(engine, "session").names_files()
    assert server.count("GET /sdapi/v1/cmd-flags") == 1
    assert (await inside(engine, "client").flags())["always_cpu"] is True


async def test_another_server_at_the_address_is_told_apart(server: Scripted, engine: Forge) -> None:
    server.always("GET /sdapi/v1/sd-models", nonsense("<html>hello"))
    with pytest.raises(ProtocolError, match="Is there a Forge"):
        await engine.probe()


async def test_refused_credentials_and_no_server_at_all(server: Scripted, engine: Forge) -> None:
    refusal = JSONResponse({"detail": "Not authenticated"}, 401)
    server.always("GET /sdapi/v1/sd-models", refusal)
    with pytest.raises(EngineAuthFailed):
        await engine.probe()
    async with Forge(config("http://127.0.0.1:9")) as nobody:
        with pytest.raises(EngineUnreachable):
            await nobody.probe()


async def test_inventory_lists_everything_under_its_exact_names(
    server: Scripted, engine: Forge
) -> None:
    server.lists["/sdapi/v1/sd-modules"] = MODULES
    inventory = await engine.inventory()
    assert inventory.checkpoints == (RANDOM, OTHER) == inventory.unets
    assert inventory.loras == ("tiny-lora",)
    assert inventory.vaes == ("ae.safetensors",)
    assert inventory.text_encoders == ("clip_l.safetensors", "t5xxl.safetensors")
    assert "Euler a" in inventory.samplers
    assert "Karras" in inventory.schedulers
    assert "Lanczos" in inventory.upscalers


async def test_free_memory_unloads_the_model(server: Scripted, engine: Forge) -> None:
    await engine.free_memory()
    assert server.count("POST /sdapi/v1/unload-checkpoint") == 1
    server.busy()
    with pytest.raises(EngineBusy, match="somebody uses it"):
        await engine.free_memory()
    assert server.count("POST /sdapi/v1/unload-checkpoint") == 1


async def test_upscaling_needs_no_model(engine: Forge) -> None:
    job = await resolved(engine, mode="upscale", init_image="x")
    assert job.resolution.upscaler == "Lanczos"
    assert engine.ticket(job).data["kind"] == "upscale"
