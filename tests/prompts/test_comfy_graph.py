"""What ComfyUI's graphs say, and requests made of them."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stablequeue.errors import BadRequest
from stablequeue.prompts import request_from_comfy_prompt, summarise
from stablequeue.prompts.comfy_graph import is_api_graph
from stablequeue.request import Lora, Mode

RECORDINGS = Path(__file__).parents[1] / "recordings" / "infotext"
GRAPH: dict[str, Any] = json.loads((RECORDINGS / "comfy_prompt.json").read_text(encoding="utf-8"))


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


FLUX = {
    "noise": node("RandomNoise", noise_seed=["number", 0]),
    "number": node("PrimitiveInt", value=77),
    "guider": node("BasicGuider", model=["lora", 0], conditioning=["guidance", 0]),
    "guidance": node("FluxGuidance", guidance=3.5, conditioning=["text", 0]),
    "text": node("CLIPTextEncodeFlux", clip_l="a fox", t5xxl="a red fox in snow", guidance=3.5),
    "pick": node("KSamplerSelect", sampler_name="euler"),
    "sigmas": node("BasicScheduler", scheduler="simple", steps=8, denoise=1.0, model=["unet", 0]),
    "empty": node("EmptySD3LatentImage", width=1024, height=768, batch_size=1),
    "sample": node(
        "SamplerCustomAdvanced",
        noise=["noise", 0],
        guider=["guider", 0],
        sampler=["pick", 0],
        sigmas=["sigmas", 0],
        latent_image=["empty", 0],
    ),
    "unet": node("UNETLoader", unet_name="flux1-dev.safetensors", weight_dtype="default"),
    "lora": node("LoraLoaderModelOnly", lora_name="x.safetensors", strength_model=0.5),
    "vae": node("VAELoader", vae_name="ae.safetensors"),
}


def test_the_recorded_graph_is_summarised() -> None:
    found = summarise(GRAPH)
    assert found.prompt == "a lantern fish, embedding:quiet_embed"
    assert found.negative_prompt == "lowres"
    assert found.models == ("xl\\lanternFishXL_v20.safetensors",)
    # The second LoRA has no strength at all.
    assert found.loras == (
        Lora(name="styles/paper_crane_style-10.safetensors", weight=0.8, text_weight=0.8),
    )
    assert found.vae == "lantern_vae.safetensors"
    assert (found.seed, found.steps, found.cfg_scale) == (5, 20, 7.0)
    assert (found.sampler, found.scheduler) == ("dpmpp_2m", "karras")
    assert (found.width, found.height) == (832, 1216)


def test_split_samplers_are_followed_to_their_parts() -> None:
    found = summarise(FLUX)
    assert found.prompt == "a red fox in snow\na fox"
    assert (found.seed, found.steps) == (77, 8)
    assert (found.sampler, found.scheduler) == ("euler", "simple")
    assert found.models == ("flux1-dev.safetensors",)
    assert found.loras == (Lora(name="x.safetensors", weight=0.5),)
    assert (found.width, found.height) == (1024, 768)


def test_prompts_are_found_behind_nodes_that_pass_them_on() -> None:
    graph = {
        "a": node("CLIPTextEncode", text="first"),
        "b": node("CLIPTextEncode", text=["joined", 0]),
        "joined": node("StringConcatenate", string_a="second", string_b=["c", 0], delimiter=" "),
        "c": node("PrimitiveString", value="third"),
        "bad": node("CLIPTextEncode", text="ugly"),
        "both": node("ConditioningCombine", conditioning_1=["a", 0], conditioning_2=["b", 0]),
        "net": node("ControlNetApplyAdvanced", positive=["both", 0], negative=["bad", 0]),
        "k": node("KSampler", positive=["net", 0], negative=["net", 1], latent_image=["e", 0]),
        "e": node("EmptyLatentImage", width=64, height=64),
    }
    found = summarise(graph)
    assert found.prompt == "first\nsecond\nthird"
    assert found.negative_prompt == "ugly"


def test_the_pass_from_an_empty_picture_is_the_first() -> None:
    later = node("KSampler", seed=2, positive=["t", 0], latent_image=["up", 0], steps=9)
    graph = {
        "2": {**later, "inputs": {**later["inputs"], "latent_image": ["load", 0]}},
        "1": node("KSampler", seed=1, positive=["t", 0], latent_image=["e", 0], steps=20),
        "load": node("VAEEncode", pixels=["picture", 0]),
        "picture": node("LoadImage", image="start.png"),
        "t": node("CLIPTextEncode", text="a cat"),
        "e": node("EmptyLatentImage", width=512, height=512),
    }
    found = summarise(graph)
    assert (found.seed, found.steps, found.width) == (1, 20, 512)
    assert found.inputs == ("start.png",)


def test_a_node_with_a_list_of_loras_is_read() -> None:
    graph = {
        "1": node(
            "Power Lora Loader (rgthree)",
            lora_1={"on": True, "lora": "a.safetensors", "strength": 0.5},
            lora_2={"on": False, "lora": "b.safetensors", "strength": 1},
            lora_3={"on": True, "lora": "c.safetensors", "strength": 99},
        )
    }
    assert summarise(graph).loras == (
        Lora(name="a.safetensors", weight=0.5),
        Lora(name="c.safetensors", weight=10),
    )


def test_a_graph_without_a_sampler_still_shows_its_texts() -> None:
    graph = {"1": node("CLIPTextEncode", text="a cat"), "2": node("Unknown", text="no")}
    assert summarise(graph).prompt == "a cat"


def test_everything_worth_searching_for_is_in_one_text() -> None:
    text = summarise(GRAPH).search_text
    for word in ("lantern fish", "lowres", "lanternFishXL_v20", "paper_crane_style-10"):
        assert word in text


def test_a_graph_that_runs_in_circles_ends() -> None:
    graph = {
        "k": node("KSampler", positive=["k", 0], latent_image=["k", 0], seed=["p", 0]),
        "p": node("Primitive", value=["q", 0]),
        "q": node("Primitive", value=["p", 0]),
        "t": node("CLIPTextEncode", text=["t", 0]),
    }
    found = summarise(graph)
    assert (found.prompt, found.seed, found.width) == ("", None, None)


def test_a_huge_graph_does_not_take_long() -> None:
    chain = {
        str(number): node("Primitive", value=[str(number + 1), 0], text=[str(number + 1), 0])
        for number in range(30_000)
    }
    chain["k"] = node("KSampler", positive=["0", 0], latent_image=["0", 0], seed=["0", 0])
    assert summarise(chain).seed is None


def test_a_graph_becomes_a_workflow_request() -> None:
    request, notes = request_from_comfy_prompt(GRAPH)
    assert request.mode is Mode.WORKFLOW
    assert request.workflow == GRAPH
    assert request.seed == -1
    assert notes == []
    _, notes = request_from_comfy_prompt({"1": node("LoadImage", image="start.png")})
    assert notes == ["the workflow loads 'start.png', which must be on the server"]


@pytest.mark.parametrize(
    "graph", [{}, {"1": {"inputs": {}}}, {"nodes": [], "links": []}, {"1": []}, {"1": None}]
)
def test_what_is_no_graph_is_a_bad_request(graph: dict[str, Any]) -> None:
    assert not is_api_graph(graph)
    with pytest.raises(BadRequest, match="workflow"):
        request_from_comfy_prompt(graph)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=4), JSON, max_size=6))
def test_any_json_can_be_summarised(graph: dict[str, Any]) -> None:
    summarise(graph)


def test_five_hundred_damaged_graphs_can_be_summarised() -> None:
    rng = random.Random(20261121)
    values: list[Any] = [
        None,
        "",
        [],
        {},
        ["4"],
        ["4", 0],
        ["nowhere", 0],
        [[], {}],
        1e308,
        -1,
        True,
    ]
    values += [float("nan"), float("inf"), 10**400, ["3", 10**30], {"lora": 3}, [None, None]]
    for number in range(500):
        graph: Any = json.loads(json.dumps(GRAPH if number % 2 else FLUX))
        for _ in range(rng.randint(1, 8)):
            name = rng.choice(list(graph))
            inputs = graph[name].get("inputs") if isinstance(graph[name], dict) else None
            if isinstance(inputs, dict) and inputs and rng.random() < 0.8:
                inputs[rng.choice(list(inputs))] = rng.choice(values)  # pyright: ignore[reportUnknownArgumentType]
            else:
                graph[name] = rng.choice([*values, {"class_type": 5}, {"class_type": "X"}])
        summarise(graph)
