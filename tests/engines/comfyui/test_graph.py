"""Graphs for plain requests."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.engines.base import EngineJob
from stablequeue.engines.comfyui.graph import Graph, Inputs, build_graph
from stablequeue.engines.comfyui.progress import is_link, reachable
from stablequeue.engines.comfyui.workflow_check import model_names
from tests.engines.comfyui.jobs import PICTURE, job, lora, request, resolution
from tests.engines.comfyui.recordings import recorded

INPUTS = Inputs(init_image="a.png", mask_image="m.png", width=100, height=50)
CLASSES = recorded("object_info")


def built(made: EngineJob) -> Graph:
    return build_graph(made, INPUTS, "stablequeue/x/img")


def only(graph: Graph, class_type: str) -> dict[str, Any]:
    (found,) = [node["inputs"] for node in graph.values() if node["class_type"] == class_type]
    return found


def count(graph: Graph, class_type: str) -> int:
    return sum(node["class_type"] == class_type for node in graph.values())


def source(graph: Graph, link: Any) -> str:
    return str(graph[link[0]]["class_type"])


def test_txt2img_is_the_classic_seven_nodes() -> None:
    graph = built(job(request(cfg_scale=5.5)))
    assert len(graph) == 7
    sampler = only(graph, "KSampler")
    assert (sampler["seed"], sampler["steps"], sampler["cfg"]) == (7, 3, 5.5)
    assert (sampler["sampler_name"], sampler["scheduler"], sampler["denoise"]) == (
        "euler",
        "normal",
        1.0,
    )
    assert only(graph, "EmptyLatentImage") == {"width": 64, "height": 64, "batch_size": 1}
    assert only(graph, "SaveImage")["filename_prefix"] == "stablequeue/x/img"


def test_loras_are_chained_for_model_and_text() -> None:
    graph = built(job(resolved=resolution(loras=(lora("a", 1.0), lora("b", -2.0)))))
    first, second = [n["inputs"] for n in graph.values() if n["class_type"] == "LoraLoader"]
    assert (first["lora_name"], first["strength_model"], first["strength_clip"]) == ("a", 1.0, 0.5)
    assert source(graph, second["model"]) == source(graph, second["clip"]) == "LoraLoader"
    assert second["clip"][1] == 1
    assert source(graph, only(graph, "KSampler")["model"]) == "LoraLoader"


def test_clip_skip_counts_as_forge_counts() -> None:
    graph = built(job(request(clip_skip=2)))
    assert only(graph, "CLIPSetLastLayer")["stop_at_clip_layer"] == -2
    texts = [n["inputs"] for n in graph.values() if n["class_type"] == "CLIPTextEncode"]
    assert {source(graph, text["clip"]) for text in texts} == {"CLIPSetLastLayer"}


def test_a_named_vae_replaces_the_checkpoints_own() -> None:
    graph = built(job(resolved=resolution(vae="v.safetensors")))
    assert source(graph, only(graph, "VAEDecode")["vae"]) == "VAELoader"


def test_flux_takes_separate_loaders_guidance_and_a_16_channel_latent() -> None:
    resolved = resolution(
        checkpoint="",
        unet="flux.safetensors",
        text_encoders=("clip_l.safetensors", "t5xxl.safetensors"),
        vae="ae.safetensors",
        detail={"family": "flux"},
    )
    graph = built(job(request(guidance=2.5), resolved))
    assert only(graph, "DualCLIPLoader")["type"] == "flux"
    assert only(graph, "FluxGuidance")["guidance"] == 2.5
    assert source(graph, only(graph, "KSampler")["positive"]) == "FluxGuidance"
    assert source(graph, only(graph, "KSampler")["latent_image"]) == "EmptySD3LatentImage"
    assert not count(graph, "CheckpointLoaderSimple")


@pytest.mark.parametrize(
    ("family", "encoders", "loader", "kind"),
    [
        ("sd15", ("a",), "CLIPLoader", "stable_diffusion"),
        ("sdxl", ("a", "b"), "DualCLIPLoader", "sdxl"),
        ("sd3", ("a", "b", "c"), "TripleCLIPLoader", None),
        ("hidream", ("a", "b", "c", "d"), "QuadrupleCLIPLoader", None),
    ],
)
def test_the_loader_fits_the_number_of_text_encoders(
    family: str, encoders: tuple[str, ...], loader: str, kind: str | None
) -> None:
    resolved = resolution(
        checkpoint="", unet="u", vae="v", text_encoders=encoders, detail={"family": family}
    )
    inputs = only(built(job(resolved=resolved)), loader)
    assert inputs.get("type") == kind
    assert [value for key, value in inputs.items() if key.startswith("clip_name")] == list(encoders)


def test_a_second_pass_can_enlarge_the_latent() -> None:
    graph = built(job(request(hires={"scale": 1.5}), resolution(upscaler="Latent")))
    enlarged = only(graph, "LatentUpscale")
    assert (enlarged["width"], enlarged["height"]) == (96, 96)
    assert enlarged["upscale_method"] == "bilinear"
    first, second = [n["inputs"] for n in graph.values() if n["class_type"] == "KSampler"]
    assert first["denoise"] == 1.0
    assert second["denoise"] == 0.5
    assert source(graph, second["latent_image"]) == "LatentUpscale"
    assert second["seed"] == first["seed"]


def test_a_second_pass_can_use_an_upscale_model() -> None:
    asked = request(hires={"scale": 2, "upscaler": "4x", "steps": 9, "denoising_strength": 0.3})
    graph = built(job(asked, resolution(upscaler="4x.pth", detail={"upscale_model": True})))
    assert only(graph, "UpscaleModelLoader")["model_name"] == "4x.pth"
    assert (only(graph, "ImageScale")["width"], only(graph, "ImageScale")["height"]) == (128, 128)
    second = [n["inputs"] for n in graph.values() if n["class_type"] == "KSampler"][1]
    assert (second["steps"], second["denoise"]) == (9, 0.3)
    assert source(graph, second["latent_image"]) == "VAEEncode"


def test_img2img_starts_from_the_picture_at_the_asked_size() -> None:
    graph = built(job(request(mode="img2img", init_image=PICTURE, denoising_strength=0.4)))
    assert only(graph, "LoadImage")["image"] == "a.png"
    assert only(graph, "ImageScale")["width"] == 64
    assert only(graph, "KSampler")["denoise"] == 0.4
    assert source(graph, only(graph, "KSampler")["latent_image"]) == "VAEEncode"


@pytest.mark.parametrize(
    ("fill", "latent"),
    [
        ("original", "SetLatentNoiseMask"),
        ("latent nothing", "SetLatentNoiseMask"),
        ("fill", "VAEEncodeForInpaint"),
    ],
)
def test_inpainting_keeps_what_is_not_masked(fill: str, latent: str) -> None:
    asked = request(mode="inpaint", init_image=PICTURE, mask_image=PICTURE, inpaint={"fill": fill})
    graph = built(job(asked))
    assert source(graph, only(graph, "KSampler")["latent_image"]) == latent
    assert count(graph, "LatentCompositeMasked") == (fill == "latent nothing")
    assert source(graph, only(graph, "SaveImage")["images"]) == "ImageCompositeMasked"
    kept = only(graph, "ImageCompositeMasked")
    assert source(graph, kept["destination"]) == "ImageScale"
    assert source(graph, kept["mask"]) == "ImageToMask"


def test_upscaling_ends_at_the_exact_size() -> None:
    asked = request(mode="upscale", init_image=PICTURE, upscale={"scale": 1.5})
    graph = built(job(asked, resolution(detail={"upscale_model": False})))
    assert [node["class_type"] for node in graph.values()] == [
        "LoadImage",
        "ImageScale",
        "SaveImage",
    ]
    scaled = only(graph, "ImageScale")
    assert (scaled["width"], scaled["height"]) == (150, 75)
    assert scaled["upscale_method"] == "lanczos"


FAMILIES: dict[str, int] = {"sd15": 1, "sdxl": 2, "sd3": 3, "flux": 2, "hidream": 4}


@st.composite
def jobs(draw: st.DrawFn) -> EngineJob:
    mode = draw(st.sampled_from(["txt2img", "img2img", "inpaint", "upscale"]))
    family = draw(st.sampled_from(sorted(FAMILIES)))
    separate = draw(st.booleans())
    names = st.text(min_size=1, max_size=12)
    model_upscale = draw(st.booleans())
    fields: dict[str, Any] = {
        "mode": mode,
        "clip_skip": draw(st.integers(0, 3)),
        "hires": {"scale": draw(st.sampled_from([0, 1.3, 2]))},
        "inpaint": {"fill": draw(st.sampled_from(["fill", "original", "latent nothing"]))},
    }
    if mode != "txt2img":
        fields["init_image"] = PICTURE
    if mode == "inpaint":
        fields["mask_image"] = PICTURE
    loras = draw(st.lists(names, max_size=3))
    resolved = resolution(
        checkpoint="" if separate else draw(names),
        unet=draw(names) if separate else "",
        text_encoders=tuple(draw(names) for _ in range(FAMILIES[family])) if separate else (),
        vae=draw(names) if separate or draw(st.booleans()) else "",
        loras=tuple(lora(name) for name in loras),
        upscaler=draw(names) if model_upscale else draw(st.sampled_from(["Latent", "Lanczos", ""])),
        detail={"family": family, "upscale_model": model_upscale, "prompt": draw(st.text())},
    )
    return job(request(**fields), resolved, seed=draw(st.integers(0, 2**53 - 1)))


@given(jobs())
def test_every_graph_is_whole(made: EngineJob) -> None:
    graph = built(made)
    (end,) = [node_id for node_id, node in graph.items() if node["class_type"] == "SaveImage"]
    assert reachable(graph, [end]) == set(graph), "a node nobody needs"
    for node in graph.values():
        described = CLASSES[node["class_type"]]
        required = set(described["input"]["required"])
        optional = set(described["input"].get("optional", {}))
        assert required <= set(node["inputs"]) <= required | optional
        for key, value in node["inputs"].items():
            if is_link(value):
                outputs = CLASSES[graph[value[0]]["class_type"]]["output"]
                spec = {**described["input"]["required"], **described["input"].get("optional", {})}
                assert outputs[value[1]] == spec[key][0], "a link of the wrong type"


@given(jobs())
def test_every_graph_names_exactly_the_models_that_were_resolved(made: EngineJob) -> None:
    resolved = made.resolution
    named = set(model_names(built(made)))
    every = {resolved.checkpoint, resolved.unet, resolved.vae, *resolved.text_encoders}
    every |= {use.name for use in resolved.loras} | {resolved.upscaler}
    assert named <= every
    if made.request.mode != "upscale":
        assert named >= {resolved.checkpoint or resolved.unet, *(u.name for u in resolved.loras)}


@given(jobs())
def test_the_same_job_gives_the_same_graph(made: EngineJob) -> None:
    assert json.dumps(built(made)) == json.dumps(built(made))
