"""`models` that ask Civitai: a fake one on loopback."""

import hashlib
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Run, Site
from tests.fakes.civitai import TOKEN
from tests.fakes.model_files import safetensors
from tests.models.making import model

DATA = safetensors(60_000, seed=5)
SHA256 = hashlib.sha256(DATA).hexdigest()


def fetched(run: Run, *arguments: object) -> list[dict[str, Any]]:
    ran = run("models", "fetch", *arguments, "--json")
    assert ran.code == 0, ran.err
    return ran.json


@pytest.mark.parametrize(
    "reference",
    [
        "civitai:500@600",
        "version:600",
        "500@600",
        "https://civitai.com/models/500/name?modelVersionId=600",
        "https://civitai.com/api/download/models/600?token=canary-123456",
        "urn:air:sdxl:lora:civitai:500@600",
        "civitai:500",
        SHA256.upper(),
        f"sha256:{SHA256}",
        SHA256[:10],
    ],
)
def test_a_model_is_fetched_by_any_reference_once(run: Run, site: Site, reference: str) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    ran = run("models", "fetch", reference, "--json")
    assert ran.code == 0, ran.err
    [one] = ran.json
    path = site.loras / "crane.safetensors"
    assert (one["state"], one["path"], one["sha256"]) == ("fetched", str(path), SHA256)
    assert path.read_bytes() == DATA
    assert "canary" not in ran.out.replace(reference, "") + ran.err
    assert not list(site.loras.glob("*.part*"))
    [again] = fetched(run, f"sha256:{SHA256}")
    assert again["state"] == "here"
    [known] = run("models", "ls", "--json").json
    assert (known["version_id"], known["sha256"]) == (600, SHA256)
    shown = run("models", "show", "crane", "--offline", "--json").json
    assert shown["sidecars"]["trained_words"] == ["tok"]


def test_a_name_alone_is_not_fetched(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    ran = run("models", "fetch", "crane")
    assert ran.code == 1
    assert "names are not guessed" in ran.err
    assert site.fake.seen == []


def test_another_file_of_the_same_name_is_left_alone(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    mine = model(site.loras / "crane.safetensors", "mine")
    before = mine.read_bytes()
    [one] = fetched(run, "version:600")
    assert Path(one["path"]).name == f"crane-{SHA256[:8]}.safetensors"
    assert mine.read_bytes() == before


def test_the_file_that_is_wished_for_is_fetched(run: Run, site: Site) -> None:
    other = safetensors(50_000, seed=6)
    site.fake.add_file(DATA, name="a.safetensors", metadata={"format": "SafeTensor", "fp": "fp16"})
    site.fake.add_file(
        other, file_id=701, name="a.safetensors", metadata={"format": "SafeTensor", "fp": "fp32"}
    )
    for reference in ("version:600", "civitai:500", "600"):
        [one] = fetched(run, reference, "--fp", "fp32")
        assert one["sha256"] == hashlib.sha256(other).hexdigest()
    [one] = fetched(run, "version:600", "--fp", "fp16")
    assert one["sha256"] == SHA256
    assert run("models", "fetch", "version:600", "--fp", "nf4").code == 1


def test_what_needs_a_key_says_so_and_is_had_with_one(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    site.fake.login_needed.add(600)
    ran = run("models", "fetch", "version:600")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "civitai: " in ran.err
    monkeypatch.setenv("CIVITAI_API_KEY", TOKEN)
    ran = run("models", "fetch", "version:600", "-v")
    assert ran.code == 0
    assert TOKEN not in ran.out + ran.err


def test_without_a_folder_of_its_type_nothing_is_fetched(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors", model_type="VAE")
    ran = run("models", "fetch", "version:600")
    assert ran.code == 2
    assert "models.folders.vae" in ran.err
    assert not site.fake.storage.seen


def test_a_picture_stands_for_all_its_models(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    other = safetensors(40_000, seed=7)
    site.fake.add_file(
        other,
        model_id=501,
        version_id=601,
        file_id=702,
        name="big.safetensors",
        model_type="Checkpoint",
    )
    site.fake.images.append({"id": 77, "url": "", "modelVersionIds": [600, 601], "meta": None})
    found = fetched(run, "https://civitai.com/images/77")
    assert {Path(one["path"]).name for one in found} == {"crane.safetensors", "big.safetensors"}
    assert (site.checkpoints / "big.safetensors").read_bytes() == other


def test_a_search_goes_on_page_by_page_to_its_end(run: Run, site: Site) -> None:
    for number in range(5):
        data = safetensors(2_000, seed=20 + number)
        site.fake.add_file(
            data, model_id=510 + number, version_id=610 + number, file_id=710 + number
        )
    first = run("models", "search", "Model 51", "--limit", "2", "--json")
    assert first.code == 0
    seen = [one["id"] for one in first.json["models"]]
    while not (ran := run("models", "search", "--next", "--json")).code:
        seen += [one["id"] for one in ran.json["models"]]
    assert sorted(seen) == [510, 511, 512, 513, 514]
    assert "the last page was the last one" in ran.err
    assert run("models", "search", "--next", "text").code == 2


def test_a_search_asks_for_all_kinds_of_lora_and_shows_references(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors", model_type="LoCon")
    ran = run("models", "search", "Model 500", "--type", "lora")
    assert "civitai:500@600" in ran.out
    assert "No model fits." in run("models", "search", "Model 500", "--type", "vae").out


def test_the_next_page_needs_a_search(run: Run, site: Site) -> None:
    del site
    assert "there was no search" in run("models", "search", "--next").err


def test_updates_are_told_and_fetched(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    fetched(run, "version:600")
    assert run("models", "check-updates").out == "1 models asked for, 0 newer versions\n"
    newer = safetensors(30_000, seed=8)
    site.fake.add_file(newer, version_id=650, file_id=750, name="crane_v2.safetensors")
    site.fake.models[500]["modelVersions"][0]["publishedAt"] = "2026-09-09T00:00:00.000Z"
    other = safetensors(30_000, seed=9)
    site.fake.add_file(other, version_id=660, file_id=760, name="crane_flux.safetensors")
    site.fake.models[500]["modelVersions"][0] |= {
        "publishedAt": "2026-10-10T00:00:00.000Z",
        "baseModel": "Flux.1 D",
    }
    [one] = run("models", "check-updates", "--json").json["updates"]
    assert (one["have"], one["version_id"]) == (600, 650)
    assert len(run("models", "check-updates", "--other-bases", "--json").json["updates"]) == 2
    ran = run("models", "update", "crane", "--json")
    assert [Path(found["path"]).name for found in ran.json] == ["crane_v2.safetensors"]
    assert (site.loras / "crane.safetensors").exists()
    assert "Nothing is newer." in run("models", "update", "crane_v2").out


def test_answers_are_kept_and_forgotten(run: Run, site: Site) -> None:
    site.fake.add_file(DATA, name="crane.safetensors")
    kept = ("--setting", "sources.civitai.cache_s=3600")
    run("models", "search", "Model", *kept)
    asked = len(site.fake.seen)
    run("models", "search", "Model", *kept)
    assert len(site.fake.seen) == asked
    assert run("models", "cache", "clear").out.endswith("answers forgotten\n")
    assert run("models", "cache", "clear").out == "0 answers forgotten\n"
    assert run("models", "cache", "burn").code == 2


def test_downloads_without_prefect_say_so_in_one_line(run: Run, site: Site) -> None:
    del site
    ran = run("models", "downloads")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
