"""Hugging Face, plain addresses and the links of workflow templates."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from stablequeue.errors import (
    AccessDenied,
    LoginNeeded,
    ModelGone,
    NoSuitableFile,
    UnsafeAddress,
)
from stablequeue.models.downloads import download
from stablequeue.models.sources import (
    HuggingFace,
    Offer,
    SourceSettings,
    Wanted,
    access_for,
    direct_offer,
    model_links,
    open_sources,
)
from stablequeue.models.sources.civitai_urls import CivitaiRef, parse
from stablequeue.models.sources.huggingface import HuggingFaceRef, parse_ref, parse_url
from stablequeue.models.sources.kinds import KINDS, of_civitai, of_comfyui
from stablequeue.source_settings import (
    CivitaiSettings,
    DirectSettings,
    HuggingFaceSettings,
)
from tests.fakes.huggingface import COMMIT, HF_TOKEN, FakeHuggingFace, serve_huggingface
from tests.fakes.model_files import safetensors
from tests.fakes.serving import serve
from tests.fakes.storage import FakeStorage, Fault
from tests.models.conftest import QUICK, CivitaiSite

DATA = safetensors(50_000, seed=3)
SHA256 = hashlib.sha256(DATA).hexdigest()
REF = HuggingFaceRef(repo="owner/repo", path="split_files/vae/ae.safetensors")


@pytest.fixture(scope="module")
def _hub() -> Iterator[tuple[str, FakeHuggingFace]]:
    fake = FakeHuggingFace()
    with serve_huggingface(fake) as url:
        yield url, fake


@pytest.fixture
def hub(_hub: tuple[str, FakeHuggingFace]) -> tuple[str, FakeHuggingFace]:
    url, fake = _hub
    fresh = FakeHuggingFace(storage=fake.storage, storage_url=fake.storage_url)
    fake.__dict__.update(fresh.__dict__)
    fake.storage.reset()
    fake.add(REF.repo, REF.path, DATA)
    return url, fake


def hub_settings(url: str, token: str = "") -> HuggingFaceSettings:
    return HuggingFaceSettings(
        base_url=url,
        token=SecretStr(token),
        token_hosts=("127.0.0.1",),
        hosts=("127.0.0.1", "localhost"),
        loopback=True,
    )


@pytest.fixture
async def huggingface(hub: tuple[str, FakeHuggingFace]) -> AsyncIterator[HuggingFace]:
    async with HuggingFace(hub_settings(hub[0])) as client:
        yield client


async def test_the_hub_tells_commit_size_and_hash_in_one_request(
    hub: tuple[str, FakeHuggingFace], huggingface: HuggingFace
) -> None:
    offer = await huggingface.offer(REF, Wanted(url="", kind="vae"))

    assert offer == Offer(
        source="huggingface",
        ident=f"huggingface:owner/repo/{REF.path}@{COMMIT}",
        url=f"{hub[0]}/owner/repo/resolve/{COMMIT}/{REF.path}",
        name="ae.safetensors",
        kind="vae",
        size=len(DATA),
        sha256=SHA256,
        facts=offer.facts,
    )
    assert offer.facts["commit"] == COMMIT
    assert [seen.method for seen in hub[1].seen] == ["HEAD"]


async def test_a_file_of_the_hub_is_downloaded_with_the_token_for_the_hub_only(
    hub: tuple[str, FakeHuggingFace], tmp_path: Path, locks: Path
) -> None:
    url, fake = hub
    fake.gated.add(REF.repo)
    settings = hub_settings(url, HF_TOKEN)
    fake.storage.faults.append(Fault("cut", 20_000))
    async with HuggingFace(settings) as client:
        offer = await client.offer(REF)
        access = access_for(offer, SourceSettings(huggingface=settings))
        done = await download(offer, tmp_path / "ae.safetensors", access, locks=locks, limits=QUICK)

    assert done.sha256 == SHA256
    assert all(one.headers["authorization"] == f"Bearer {HF_TOKEN}" for one in fake.seen)
    assert all("authorization" not in one.headers for one in fake.storage.seen)


async def test_a_renamed_repository_is_followed(
    hub: tuple[str, FakeHuggingFace], huggingface: HuggingFace
) -> None:
    hub[1].renamed["old/name"] = REF.repo

    offer = await huggingface.offer(HuggingFaceRef(repo="old/name", path=REF.path))

    assert offer.sha256 == SHA256


async def test_a_small_file_outside_lfs_has_no_sha256(
    hub: tuple[str, FakeHuggingFace], huggingface: HuggingFace
) -> None:
    hub[1].small.add(REF.path)

    offer = await huggingface.offer(REF)

    assert offer.sha256 == ""


async def test_refusals_of_the_hub_say_what_helps(hub: tuple[str, FakeHuggingFace]) -> None:
    url, fake = hub
    async with HuggingFace(hub_settings(url)) as client:
        with pytest.raises(LoginNeeded):
            await client.offer(HuggingFaceRef(repo="no/such", path="a.safetensors"))
        with pytest.raises(ModelGone):
            await client.offer(HuggingFaceRef(repo=REF.repo, path="no.safetensors"))
        with pytest.raises(ModelGone):
            await client.offer(HuggingFaceRef(repo=REF.repo, path=REF.path, revision="nope"))
        with pytest.raises(NoSuitableFile):
            await client.offer(HuggingFaceRef(repo=REF.repo, path="README.md"))
        fake.gated.add(REF.repo)
        with pytest.raises(AccessDenied, match="accept its terms"):
            await client.offer(REF)


def test_addresses_of_the_hub_are_read_in_all_their_forms() -> None:
    expected = HuggingFaceRef(repo="o/r", path="a b/c.safetensors", revision="refs/pr/1")
    for verb in ("resolve", "blob", "raw"):
        address = f"https://huggingface.co/o/r/{verb}/refs%2Fpr%2F1/a%20b/c.safetensors"
        assert parse_url(f"{address}?download=true") == expected
    assert parse_ref("o/r/x.safetensors@v1") == HuggingFaceRef(
        repo="o/r", path="x.safetensors", revision="v1"
    )
    for wrong in (
        "https://huggingface.co.evil.example/o/r/resolve/main/a.safetensors",
        "https://huggingface.co/o/r/tree/main",
        "https://huggingface.co/o/r/resolve/main/..%2F..%2Fapi/a.safetensors",
        "https://[broken",
    ):
        assert parse_url(wrong) is None
    assert parse_ref("o/r/../x.safetensors") is None
    assert parse_ref("o/r") is None


@pytest.mark.parametrize(
    "url",
    [
        "http://github.com/a.safetensors",
        "https://127.0.0.1/a.safetensors",
        "https://evil.example/a.safetensors",
        "https://user:secret@github.com/a.safetensors",
        "not an address",
        "https://github.com:99999999/a.safetensors",
    ],
)
def test_a_plain_address_outside_the_allow_list_is_refused(url: str) -> None:
    with pytest.raises(UnsafeAddress):
        direct_offer(Wanted(url=url), DirectSettings())


def test_a_plain_address_needs_a_model_files_name() -> None:
    settings = DirectSettings()
    with pytest.raises(NoSuitableFile):
        direct_offer(Wanted(url="https://github.com/o/r/releases/download/v1/x.exe"), settings)
    named = Wanted(
        url="https://github.com/get?id=5&sig=abcdef#part", name="up/4x.pth", sha256=SHA256
    )

    offer = direct_offer(named, settings)

    assert (offer.name, offer.sha256) == ("4x.pth", SHA256)
    assert offer.url == "https://github.com/get?id=5&sig=abcdef"
    assert "abcdef" not in offer.ident


async def test_a_plain_file_host_is_downloaded_from_and_resumed(
    tmp_path: Path, locks: Path
) -> None:
    host = FakeStorage(signed=False)
    host.put("models/4x.safetensors", DATA)
    host.faults.append(Fault("cut", 20_000))
    with serve(host) as url:
        settings = DirectSettings(hosts=("127.0.0.1",), loopback=True)
        offer = direct_offer(Wanted(url=f"{url}/models/4x.safetensors"), settings)
        access = access_for(offer, SourceSettings(direct=settings))
        done = await download(offer, tmp_path / offer.name, access, locks=locks, limits=QUICK)

    assert (done.size, done.sha256) == (len(DATA), SHA256)
    assert host.seen[1].headers["if-range"]


NOTE = """## Model links
**VAE**
- [ae.safetensors](https://other.example/ae.safetensors)
- [u.safetensors](https://huggingface.co/o/r/resolve/main/diffusion_models/u.safetensors?download=true)
[Docs](https://docs.example/x)
"""


def template(**more: Any) -> dict[str, Any]:
    return {
        "nodes": [
            {
                "type": "VAELoader",
                "properties": {
                    "models": [
                        {
                            "name": "ae.safetensors",
                            "url": "https://huggingface.co/o/r/resolve/main/split_files/vae/ae.safetensors",
                            "directory": "vae",
                            "hash": SHA256.upper(),
                            "hash_type": "SHA256",
                        }
                    ]
                },
                "widgets_values": ["ae.safetensors"],
            },
            {
                "type": "MarkdownNote",
                "widgets_values": [NOTE],
            },
        ],
        "definitions": {
            "subgraphs": [
                {
                    "nodes": [
                        {
                            "type": "LoraLoader",
                            "properties": {
                                "models": [
                                    {
                                        "name": "l.safetensors",
                                        "url": "https://civitai.com/api/download/models/5",
                                        "directory": "loras/sub",
                                        "hash": "ab",
                                        "hash_type": "AutoV2",
                                    }
                                ]
                            },
                        }
                    ]
                }
            ]
        },
        **more,
    }


def test_a_template_tells_its_models_in_nodes_subgraphs_and_notes_each_once() -> None:
    found = model_links(template())

    assert [(one.name, one.kind, one.folder) for one in found] == [
        ("ae.safetensors", "vae", "vae"),
        ("l.safetensors", "lora", "loras/sub"),
        ("u.safetensors", "unet", "diffusion_models"),
    ]
    assert [one.sha256 for one in found] == [SHA256, "", ""]
    assert "huggingface" in found[0].url


def test_a_templates_own_list_counts_too_and_nonsense_does_not_hurt() -> None:
    listed = {"name": "t.gguf", "url": "https://h.example/t.gguf", "directory": "text_encoders"}

    assert model_links(template(models=[listed, None, 5, {"name": 3}]))[2].kind == "text_encoder"
    nonsense: list[Any] = [None, [], "x", {"nodes": 5}, {"nodes": [None, {"properties": []}]}]
    for one in nonsense:
        assert model_links(one) == []
    assert model_links({"3": {"class_type": "KSampler", "inputs": {}}}) == []


async def test_each_address_finds_its_source(
    hub: tuple[str, FakeHuggingFace], civitai: CivitaiSite, tmp_path: Path
) -> None:
    civitai.fake.add_file(DATA)
    settings = SourceSettings(
        civitai=CivitaiSettings(
            base_url=civitai.url, fallback_url="", hosts=("127.0.0.1",), loopback=True
        ),
        huggingface=hub_settings(hub[0]),
    )
    async with open_sources(settings, tmp_path) as sources:
        offers = [
            await sources.offer(Wanted(url="https://civitai.com/model-versions/600")),
            await sources.offer(Wanted(url=f"{REF.repo}/{REF.path}@main")),
            await sources.offer(Wanted(url="https://github.com/o/r/releases/a.safetensors")),
        ]

    assert [offer.source for offer in offers] == ["civitai", "huggingface", "direct"]
    assert [access_for(one, settings).source for one in offers] == [one.source for one in offers]
    again = [Offer.from_json(offer.to_json()) for offer in offers]
    assert again == offers


@pytest.mark.parametrize(
    ("url", "ref"),
    [
        ("https://civitai.com/models/12/slug-34", CivitaiRef(model_id=12)),
        (
            "HTTPS://WWW.Civitai.Red/models/12?modelVersionId=5&token=secret",
            CivitaiRef(model_id=12, version_id=5),
        ),
        ("https://civitai.green/model-versions/7", CivitaiRef(version_id=7)),
        ("https://civitai.com/api/v1/models/3", CivitaiRef(model_id=3)),
        ("https://civitai.com/api/v1/model-versions/3", CivitaiRef(version_id=3)),
        (
            "https://civitai.com/api/download/models/3?fileId=9&type=Model",
            CivitaiRef(version_id=3, file_id=9),
        ),
        ("https://civitai.com/images/8", CivitaiRef(image_id=8)),
        ("https://civitai.com/posts/8", CivitaiRef(post_id=8)),
        (
            "https://civarchive.com/models/1?modelVersionId=2",
            CivitaiRef(model_id=1, version_id=2),
        ),
        ("https://civarchive.com/images/1", None),
        ("https://civitai.com/user/someone", None),
        ("https://civitai.com/models/99999999999999999999", None),
        ("https://civitai.com.evil.example/models/1", None),
        ("ftp://civitai.com/models/1", None),
        ("https://[", None),
    ],
)
def test_pasted_addresses_of_civitai_are_understood(url: str, ref: CivitaiRef | None) -> None:
    assert parse(url) == ref


def test_kinds_are_told_by_civitais_types_and_comfyuis_folders() -> None:
    assert of_civitai("LoCon") == of_civitai("DoRA", "Model") == "lora"
    assert of_civitai("Checkpoint", "Diffusion Model") == "unet"
    assert of_civitai("Checkpoint", "VAE") == "vae"
    assert of_civitai("Wildcards") == ""
    assert of_comfyui("models\\loras\\x") == "lora"
    assert of_comfyui("unknown") == ""
    assert {of_comfyui(one) for one in ("clip", "unet", "checkpoints")} <= set(KINDS)


def test_a_session_may_be_opened_and_closed_without_asking(tmp_path: Path) -> None:
    async def only_open() -> None:
        async with open_sources(SourceSettings(), tmp_path):
            pass

    asyncio.run(only_open())
    assert list(tmp_path.iterdir()) == []
