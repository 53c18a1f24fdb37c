"""Which file a reference identifies at a source, asked of a fake Civitai."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import ValidationError

from stablequeue.errors import ModelGone, NoSuitableFile
from stablequeue.models.kinds import ModelType
from stablequeue.models.references import parse_reference
from stablequeue.models.roots import library_roots
from stablequeue.models.sources import Offer, Sources, open_sources
from stablequeue.models.sourcing import identifies, links_of, offer_for
from stablequeue.settings import ModelSettings
from stablequeue.source_settings import CivitaiSettings, DirectSettings, SourceSettings
from tests.fakes.civitai import FakeCivitai, serve_civitai
from tests.fakes.model_files import safetensors


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeCivitai, str]]:
    fake = FakeCivitai()
    with serve_civitai(fake) as url:
        yield fake, url


@pytest.fixture
async def sources(served: tuple[FakeCivitai, str], tmp_path: Path) -> AsyncIterator[Sources]:
    fake, url = served
    fake.reset()
    fake.models.pop(500, None)
    civitai = CivitaiSettings(
        base_url=url,
        fallback_url="",
        hosts=("127.0.0.1", "localhost"),
        loopback=True,
        requests_per_s=1000,
        burst=100,
    )
    direct = DirectSettings(hosts=("127.0.0.1", "example.org"), loopback=True)
    settings = SourceSettings(civitai=civitai, direct=direct)
    async with open_sources(settings, tmp_path / "cache") as sources:
        yield sources


async def asked(sources: Sources, text: str, kind: ModelType | None = ModelType.LORA) -> Offer:
    reference = parse_reference(text)
    assert identifies(reference)
    return await offer_for(reference, kind, sources)


@pytest.mark.parametrize("form", ["SHA256", "AutoV2", "AutoV3", "CRC32"])
async def test_every_kind_of_hash_finds_its_file_and_not_the_primary_one(
    served: tuple[FakeCivitai, str], sources: Sources, form: str
) -> None:
    fake, _ = served
    fake.add_file(safetensors(5000, seed=1), file_id=700, name="full.safetensors")
    file = fake.add_file(safetensors(4000, seed=2), file_id=701, name="pruned.safetensors")
    offer = await asked(sources, file["hashes"][form])
    assert offer.name == "pruned.safetensors"
    assert offer.sha256 == file["hashes"]["SHA256"].lower()


async def test_twelve_digits_of_forge_are_the_beginning_of_the_sha256(
    served: tuple[FakeCivitai, str], sources: Sources
) -> None:
    fake, _ = served
    file = fake.add_file(safetensors(5000, seed=3))
    sha256 = file["hashes"]["SHA256"].lower()
    assert (await asked(sources, sha256[:12])).sha256 == sha256
    with pytest.raises(ModelGone, match="no file with the hash"):
        await asked(sources, sha256[:10] + ("00" if sha256[10:12] != "00" else "11"))


async def test_a_title_with_a_hash_identifies_and_a_bare_name_does_not(
    served: tuple[FakeCivitai, str], sources: Sources
) -> None:
    fake, _ = served
    file = fake.add_file(safetensors(5000, seed=4), model_type="Checkpoint")
    offer = await asked(
        sources, f"whatever.safetensors [{file['hashes']['AutoV2']}]", ModelType.CHECKPOINT
    )
    assert offer.sha256 == file["hashes"]["SHA256"].lower()
    assert not identifies(parse_reference("whatever.safetensors"))
    assert not identifies(parse_reference("<lora:whatever:1>"))
    # Forge of 2024 wrote the hash of the name, which identifies nothing.
    assert identifies(parse_reference("x [2d711642b8]"))
    assert not identifies(parse_reference("x [2d711642b7]"))


async def test_ids_airs_pages_and_numbers_find_version_or_model(
    served: tuple[FakeCivitai, str], sources: Sources
) -> None:
    fake, _ = served
    fake.add_file(safetensors(5000, seed=5), model_id=501, version_id=601)
    for text in (
        "version:601",
        "urn:air:sdxl:lora:civitai:501@601",
        "civitai:501",
        "601",
        "501",
        "https://civitai.com/models/501/a-slug-7?modelVersionId=601",
        "https://civitai.com/api/download/models/601?type=Model&format=SafeTensor&token=secret",
    ):
        offer = await asked(sources, text)
        assert "/601?" in offer.url, text
        assert "secret" not in offer.url


async def test_another_type_of_model_than_the_field_needs_is_refused(
    served: tuple[FakeCivitai, str], sources: Sources
) -> None:
    fake, _ = served
    fake.add_file(safetensors(5000, seed=6), model_id=502, version_id=602)
    with pytest.raises(NoSuitableFile, match="is a lora, and a checkpoint is needed"):
        await asked(sources, "version:602", ModelType.CHECKPOINT)


async def test_a_picture_names_several_models_and_identifies_none(sources: Sources) -> None:
    reference = parse_reference("https://civitai.com/images/1")
    assert not identifies(reference)
    with pytest.raises(NoSuitableFile):
        await offer_for(reference, None, sources)


async def test_a_name_that_the_workflow_links_is_found_at_that_address(sources: Sources) -> None:
    entry = {
        "name": "ae.safetensors",
        "url": "https://example.org/files/ae.safetensors",
        "directory": "vae",
    }
    links = links_of({"nodes": [{"properties": {"models": [entry]}}]})
    reference = parse_reference("sub/AE.safetensors")
    assert identifies(reference, links)
    offer = await offer_for(reference, ModelType.VAE, sources, links)
    assert (offer.source, offer.url) == ("direct", entry["url"])
    assert links_of(None) == links_of("x") == []


def test_settings_name_folders_by_type_and_an_unknown_type_is_refused(tmp_path: Path) -> None:
    (tmp_path / "u").mkdir()
    roots = library_roots(ModelSettings(folders={"unet": [tmp_path / "u"]}), {})
    assert [(root.path, root.kind) for root in roots] == [
        (tmp_path / "u", ModelType.DIFFUSION_MODEL)
    ]
    with pytest.raises(ValidationError, match="posters"):
        ModelSettings(folders={"posters": []})
