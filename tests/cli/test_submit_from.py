"""`submit --from`: the models of a pasted picture are identified, in the library or on Civitai."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from stablequeue.client import Client
from stablequeue.request import GenerationRequest
from stablequeue.settings import load
from tests.cli.conftest import Ran, Run, Site
from tests.cli.test_submit import picture
from tests.fakes.model_files import hashes, safetensors
from tests.models.making import model

LORA, CHECKPOINT, VAE = (safetensors(40_000 + n, seed=50 + n) for n in range(3))


@pytest.fixture
def shop(site: Site) -> Site:
    """A Civitai with a LoRA, a checkpoint and a VAE."""
    site.fake.add_file(LORA, name="crane.safetensors")
    for number, (data, name, kind) in enumerate(
        ((CHECKPOINT, "dream.safetensors", "Checkpoint"), (VAE, "clear.safetensors", "VAE")), 1
    ):
        site.fake.add_file(
            data,
            model_id=500 + number,
            version_id=600 + number,
            file_id=700 + number,
            name=name,
            model_type=kind,
        )
    return site


def infotext(**pairs: str) -> str:
    listed = ", ".join(f"{key.replace('_', ' ')}: {value}" for key, value in pairs.items())
    return f"a bird <lora:crane:0.6>\nNegative prompt: blurry\nSteps: 9, Seed: 77, {listed}"


def submitted(run: Run, *arguments: object) -> tuple[GenerationRequest, Ran]:
    ran = run("submit", *arguments, "--json")
    assert ran.code == 0, ran.err
    with Client(load()) as queue:
        return queue.session.catalogue.request(ran.json["job_id"]).request, ran


def test_models_are_identified_on_civitai_by_their_hashes(
    run: Run, shop: Site, tmp_path: Path
) -> None:
    text = infotext(
        Model="dream",
        Model_hash=hashes(CHECKPOINT)["AutoV2"].lower(),
        VAE="clear.safetensors",
        VAE_hash=hashes(VAE)["AutoV2"].lower(),
        Lora_hashes=f'"crane: {hashes(LORA)["AutoV3"].lower()}"',
    )
    for source in (text, picture(tmp_path / "p.png", text)):
        request, ran = submitted(run, "--from", source)
        assert request.checkpoint == "civitai:501@601+701"
        assert request.vae == "civitai:502@602+702"
        assert [(one.name, one.weight) for one in request.loras] == [("civitai:500@600+700", 0.6)]
        assert ran.json["warnings"] == []
        assert "checkpoint 'dream' is dream.safetensors on Civitai" in ran.err
    assert shop.fake.storage.seen == []


def test_what_is_in_the_library_is_asked_for_by_its_bytes_and_civitai_is_not_asked(
    run: Run, shop: Site
) -> None:
    path = shop.loras / "renamed.safetensors"
    path.write_bytes(LORA)
    run("models", "scan", "-q")
    text = infotext(Lora_hashes=f'"crane: {hashes(LORA)["AutoV3"]}"')
    request, _ = submitted(run, "--from", text)
    assert request.loras[0].name == f"sha256:{hashlib.sha256(LORA).hexdigest()}"
    assert shop.fake.seen == []


def test_a_forge_hash_of_a_lora_is_the_beginning_of_its_sha256(run: Run, shop: Site) -> None:
    del shop
    digits = hashlib.sha256(LORA).hexdigest()[:12]
    request, _ = submitted(run, "--from", infotext(Lora_hashes=f'"crane: {digits}"'))
    assert request.loras[0].name == "civitai:500@600+700"


def test_a_file_of_that_name_with_other_bytes_is_not_taken(run: Run, shop: Site) -> None:
    model(shop.loras / "crane.safetensors", "another")
    run("models", "scan", "-q")
    request, _ = submitted(
        run, "--from", infotext(Lora_hashes=f'"crane: {hashes(LORA)["AutoV3"]}"')
    )
    assert request.loras[0].name == "civitai:500@600+700"
    request, ran = submitted(run, "--from", infotext(Lora_hashes='"crane: 0123456789ab"'))
    assert request.loras[0].name == "crane"
    [warning] = ran.json["warnings"]
    assert "crane.safetensors of the library has other bytes" in warning


def test_a_hash_of_a_name_and_one_of_nothing_identify_no_model(run: Run, shop: Site) -> None:
    fake = hashlib.sha256(b"dream.safetensors").hexdigest()[:10]
    nothing = hashlib.sha256().hexdigest()[:12]
    text = infotext(Model="dream", Model_hash=fake, Lora_hashes=f'"crane: {nothing}"')
    request, ran = submitted(run, "--from", text)
    assert (request.checkpoint, request.loras[0].name) == ("dream", "crane")
    assert len(ran.json["warnings"]) == 2
    assert shop.fake.seen == []


def test_a_hit_that_is_another_type_of_model_is_none(run: Run, shop: Site) -> None:
    del shop
    text = infotext(Model="dream", Model_hash=hashes(LORA)["AutoV2"].lower())
    request, ran = submitted(run, "--from", text)
    assert request.checkpoint == "dream"
    assert any("checkpoint 'dream'" in one for one in ran.json["warnings"])


def test_without_civitai_names_are_kept_and_that_is_said(run: Run, shop: Site, home: Path) -> None:
    settings = home / "stablequeue.yaml"
    settings.write_text(settings.read_text().replace(shop.url, "http://127.0.0.1:9"))
    text = infotext(Model="dream", Model_hash=hashes(CHECKPOINT)["AutoV2"])
    request, ran = submitted(run, "--from", text)
    assert request.checkpoint == "dream"
    assert any("Civitai cannot be asked" in one for one in ran.json["warnings"])


def test_without_any_folder_of_models_nothing_is_asked_and_names_stay(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LORA_PATH", "CHECKPOINT_PATH"):
        monkeypatch.delenv(name, raising=False)
    text = infotext(Model="dream", Model_hash="0123456789")
    request, ran = submitted(run, "--from", text)
    assert (request.checkpoint, ran.json["warnings"]) == ("dream", [])
    assert not (home / "cache").exists()


def test_models_of_the_site_generator_are_asked_for_by_version(run: Run, shop: Site) -> None:
    del shop
    resources = json.dumps(
        [
            {"type": "checkpoint", "modelVersionId": 601, "modelName": "Dream"},
            {"type": "lora", "weight": 0.3, "modelVersionId": 600, "modelName": "Crane"},
        ]
    )
    text = f"a bird\nSteps: 9, Seed: 7, Size: 512x512, Civitai resources: {resources}"
    request, ran = submitted(run, "--from", text)
    assert request.checkpoint == "civitai:501@601+701"
    assert [(one.name, one.weight) for one in request.loras] == [("civitai:500@600+700", 0.3)]
    assert ran.json["warnings"] == []


def test_an_embedding_that_is_not_here_is_said(run: Run, shop: Site) -> None:
    del shop
    text = 'a bird, badhands\nSteps: 9, Seed: 7, Size: 512x512, TI hashes: "badhands: 0123456789ab"'
    _, ran = submitted(run, "--from", text)
    assert ran.json["warnings"] == [
        "embedding 'badhands' is not in the library; the prompt names it all the same"
    ]


def image(site: Site, **meta: Any) -> str:
    site.fake.images.append({"id": 88, "modelVersionIds": [601, 600], "meta": meta or None})
    return "https://civitai.com/images/88"


def test_a_picture_on_civitai_is_made_again(run: Run, shop: Site) -> None:
    source = image(
        shop,
        prompt="a bird <lora:crane:0.4>",
        negativePrompt="blurry",
        seed=5,
        steps=11,
        sampler="Euler a",
        cfgScale=4.5,
        clipSkip=2,
        Size="640x512",
        Model="dream",
        hashes={"model": hashes(CHECKPOINT)["AutoV2"], "lora:crane": hashes(LORA)["AutoV2"]},
        resources=[{"type": "lora", "name": "crane", "weight": 0.4}],
    )
    request, _ = submitted(run, "--from", source)
    assert request.model_dump(exclude_defaults=True, mode="json") == {
        "prompt": "a bird",
        "negative_prompt": "blurry",
        "seed": 5,
        "steps": 11,
        "sampler": "Euler a",
        "cfg_scale": 4.5,
        "clip_skip": 2,
        "width": 640,
        "checkpoint": "civitai:501@601+701",
        "loras": [{"name": "civitai:500@600+700", "weight": 0.4}],
    }


def test_a_picture_that_names_no_models_has_those_it_is_listed_under(run: Run, shop: Site) -> None:
    request, _ = submitted(run, "--from", image(shop, meta={"prompt": "a bird", "seed": 1}))
    assert request.checkpoint == "civitai:501@601+701"
    assert [one.name for one in request.loras] == ["civitai:500@600+700"]


def test_a_workflow_on_civitai_is_run_as_it_is(run: Run, shop: Site) -> None:
    graph = {"1": {"class_type": "KSampler", "inputs": {"seed": 1}}}
    comfy = json.dumps({"prompt": graph}).replace("1}", "NaN}")
    request, _ = submitted(run, "--from", image(shop, prompt="x", comfy=comfy))
    assert request.mode == "workflow"
    assert request.workflow["1"]["class_type"] == "KSampler"  # type: ignore[index, call-overload]


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("https://civitai.com/images/12345", 2, "no picture 12345"),
        ("https://civitai.com/images/9930003", 1, "without how it was made"),
        ("nowhere.png", 2, "there is no file"),
    ],
)
def test_what_tells_nothing_is_one_line(
    run: Run, shop: Site, source: str, code: int, said: str
) -> None:
    del shop
    ran = run("submit", "--from", source)
    assert (ran.code, ran.err.count("\n")) == (code, 1)
    assert said in ran.err
    assert run("ls", "--json").json == []


def test_a_workflow_that_says_where_its_models_are_takes_that_along(
    run: Run, tmp_path: Path
) -> None:
    from PIL import Image  # noqa: PLC0415
    from PIL.PngImagePlugin import PngInfo  # noqa: PLC0415

    entry = {"name": "vae.safetensors", "url": "https://x.example/v", "directory": "vae"}
    workflow = {"nodes": [{"id": 1, "properties": {"models": [entry]}}], "links": []}
    info = PngInfo()
    info.add_text("prompt", json.dumps({"1": {"class_type": "KSampler", "inputs": {}}}))
    info.add_text("workflow", json.dumps(workflow))
    Image.new("RGB", (8, 8)).save(tmp_path / "w.png", pnginfo=info)
    request, ran = submitted(run, "--from", tmp_path / "w.png")
    section = request.sections.comfyui
    assert section is not None
    assert section.extra_pnginfo == {"workflow": workflow}
    assert "note: the workflow says where to fetch vae.safetensors" in ran.err
