"""Which file a reference means, and why."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import BadRequest
from stablequeue.models.infotext_models import models_of
from stablequeue.models.kinds import ModelType
from stablequeue.models.records import ModelFile
from stablequeue.models.references import CivitaiVersion, Hash, Name, parse_reference
from stablequeue.models.resolving import Resolved, is_fake_hash, resolve
from stablequeue.prompts import Infotext, parse_infotext

INFOTEXTS = Path(__file__).parents[1] / "recordings" / "infotext"


def _sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file(name: str, *, kind: ModelType = ModelType.LORA, **more: Any) -> ModelFile:
    file = ModelFile(
        path=Path("/models") / name,
        root=Path("/models"),
        name=name,
        kind=kind,
        sha256=_sha(name),
        tensors_sha256=_sha("tensors " + name),
        autov1=_sha("1" + name)[:8],
        crc32=_sha("c" + name)[:8],
        blake3=_sha("b" + name),
    )
    return replace(file, **more)


CRANE = _file("styles/Crane v1.safetensors", alias="paper_crane", version_id=70, model_id=6)
CRANE2 = _file("styles/Crane v2.safetensors", version_id=71, model_id=6)
COPY = _file("copy/Crane v1.safetensors", sha256=CRANE.sha256)
TWIN_A, TWIN_B = _file("a/twin.safetensors"), _file("b/twin.safetensors")
BASE = _file("base.safetensors", kind=ModelType.CHECKPOINT)
BROKEN = _file("broken.safetensors", sha256="", problem="it is cut off")
CLAIMS = _file("claims.safetensors", embedded="abcdef123456")
FILES = [CRANE, CRANE2, TWIN_A, TWIN_B, BASE, BROKEN, CLAIMS]


def _resolve(text: str, kind: ModelType | None = None) -> Resolved:
    return resolve(parse_reference(text), FILES, kind=kind)


@pytest.mark.parametrize(
    ("text", "file", "how"),
    [
        (CRANE.sha256, CRANE, "sha256"),
        (CRANE.blake3.upper(), CRANE, "blake3"),
        (CRANE.tensors_sha256, CRANE, "tensors"),
        (CRANE.autov3, CRANE, "autov3"),
        (CRANE.sha256[:12], CRANE, "sha256"),
        (CRANE.autov2, CRANE, "autov2"),
        (CRANE.autov1, CRANE, "autov1"),
        (CRANE.crc32, CRANE, "crc32"),
        ("abcdef123456", CLAIMS, "embedded hash"),
        ("styles/Crane v1.safetensors", CRANE, "name"),
        ("styles\\crane V1", CRANE, "name"),
        ("Crane v1", CRANE, "name"),
        ("/models/styles/Crane v1.safetensors", CRANE, "name"),
        ("<lora:Crane v1:0.8>", CRANE, "name"),
        ("<lora:paper_crane:0.8>", CRANE, "alias"),
        (f"renamed.safetensors [{CRANE.autov2}]", CRANE, "hash of the title"),
        ("version:70", CRANE, "version"),
        ("70", CRANE, "version"),
        ("civitai:6@71", CRANE2, "version"),
        ("a/twin", TWIN_A, "name"),
    ],
)
def test_every_kind_of_reference_finds_its_file(text: str, file: ModelFile, how: str) -> None:
    found = _resolve(text)

    assert (found.file, found.how) == (file, how)
    assert found.suggestions == ()
    assert found.steps


@pytest.mark.parametrize(
    ("text", "suggestions"),
    [
        ("twin", ("a/twin.safetensors", "b/twin.safetensors")),
        ("model:6", ("styles/Crane v1.safetensors", "styles/Crane v2.safetensors")),
        ("Crane v", ("styles/Crane v1.safetensors", "styles/Crane v2.safetensors")),
        ("Crame v1", ("styles/Crane v1.safetensors",)),
        ("hf:owner/repo/base.safetensors", ("base.safetensors",)),
        ("https://example.org/x/base.safetensors?sig=1", ("base.safetensors",)),
        ("image:5", ()),
        ("nothing like it", ()),
        ("broken", ()),
        ("version:99", ()),
        ("sha256:" + "0" * 64, ()),
    ],
)
def test_what_is_ambiguous_or_only_alike_is_never_chosen(
    text: str, suggestions: tuple[str, ...]
) -> None:
    found = _resolve(text)

    assert found.file is None
    assert set(suggestions) <= set(found.suggestions)
    assert bool(found.suggestions) == bool(suggestions)


def test_copies_of_the_same_bytes_are_one_model() -> None:
    found = resolve(parse_reference("Crane v1"), [CRANE, COPY])

    assert found.file == CRANE
    assert found.same == (COPY,)


def test_only_files_of_the_wanted_type_are_meant() -> None:
    assert _resolve("base", kind=ModelType.LORA).file is None
    assert _resolve("base", kind=ModelType.CHECKPOINT).file == BASE
    assert _resolve("<lora:base:1>").file is None


def test_an_image_model_alone_may_lie_among_forges_checkpoints() -> None:
    dit = _file("flux.safetensors", kind=ModelType.CHECKPOINT, shown_kind=ModelType.DIFFUSION_MODEL)

    found = resolve(Name("flux"), [dit], kind=ModelType.DIFFUSION_MODEL)

    assert found.file == dit


def test_a_title_whose_hash_is_of_other_bytes_is_not_used() -> None:
    found = _resolve("base.safetensors [0123456789]")

    assert found.file is None
    assert found.suggestions == ("base.safetensors",)
    assert any("with other bytes" in step for step in found.steps)


def test_a_title_finds_by_name_what_is_not_hashed_yet() -> None:
    unhashed = replace(BASE, sha256="", tensors_sha256="", autov1="", crc32="", blake3="")

    found = resolve(parse_reference("base.safetensors [0123456789]"), [unhashed])

    assert found.file == unhashed


def test_a_files_own_name_may_end_like_a_hash() -> None:
    odd = _file("plain [abcdef12].safetensors")

    assert resolve(parse_reference("plain [abcdef12]"), [odd]).file == odd


def test_a_file_named_like_a_hash_is_found_when_no_hash_fits() -> None:
    odd = _file("deadbeef.safetensors")

    found = resolve(parse_reference("deadbeef"), [odd])

    assert (found.file, found.how) == (odd, "name")


def test_forges_hash_of_a_name_is_known_for_what_it_is() -> None:
    fake = _sha("base.safetensors")[:10]
    other = replace(BASE, sha256="1" * 64)
    assert is_fake_hash(fake, "base")
    assert not is_fake_hash("0123456789", "base")

    found = resolve(parse_reference(f"base.safetensors [{fake}]"), [other])

    assert found.file == other
    assert any("Forge wrote in 2024" in step for step in found.steps)


def test_the_answer_explains_itself() -> None:
    steps = _resolve("deadbeef").steps

    assert steps[0].endswith("models are in the library.")
    assert "No file has the autov1 deadbeef." in steps
    assert any("cut off" in step for step in _resolve("broken").steps)


def test_unhashed_files_are_mentioned_when_a_hash_is_not_found() -> None:
    found = resolve(parse_reference("0123456789"), [replace(BASE, sha256="")])

    assert any("1 files are not hashed yet" in step for step in found.steps)


@given(st.text(max_size=30))
def test_any_text_is_resolved_or_not_and_never_fails(text: str) -> None:
    try:
        found = _resolve(text)
    except BadRequest:
        return
    assert found.file is None or not found.suggestions


def test_a_pasted_a1111_text_names_all_its_models_with_types() -> None:
    text = (INFOTEXTS / "parameters_a1111.txt").read_text()

    found = {(one.kind.value, one.name): one.references for one in models_of(parse_infotext(text))}

    assert set(found) == {
        ("checkpoint", "lanternFishXL_v20"),
        ("vae", "lantern_vae.safetensors"),
        ("lora", "paper_crane_style-10"),
        ("lora", "sub name.v1"),
        ("embedding", "quiet_embed"),
    }
    crane = found["lora", "paper_crane_style-10"]
    assert [str(one) for one in crane] == [
        "4ed7c7b88a02",
        "autov2:2c6ac23e4f",
        "paper_crane_style-10",
    ]
    assert isinstance(found["vae", "lantern_vae.safetensors"][0], Hash)


def test_a_pasted_forge_text_has_a_beginning_of_the_sha256_for_its_lora() -> None:
    text = (INFOTEXTS / "parameters_forge.txt").read_text()
    crane = _file("crane.safetensors", sha256="2c6ac23e4ffd" + "0" * 52)
    named = {one.kind: one for one in models_of(parse_infotext(text))}

    found = resolve(named[ModelType.LORA].references[0], [crane], kind=ModelType.LORA)

    assert (found.file, found.how) == (crane, "sha256")


def test_a_text_of_civitais_generator_has_exact_versions() -> None:
    text = (INFOTEXTS / "parameters_civitai_onsite.txt").read_text()

    found = models_of(parse_infotext(text))

    assert [(one.kind, one.references[0]) for one in found] == [
        (ModelType.CHECKPOINT, CivitaiVersion(9910202)),
        (ModelType.LORA, CivitaiVersion(9910301, 9900200)),
    ]


@pytest.mark.parametrize(
    "params",
    [
        {"Hashes": "{broken"},
        {"Hashes": '["a"]'},
        {"Hashes": '{"model": 7, "other:x": "0123456789"}'},
        {"Civitai resources": '[7, {}, {"type": "lora", "air": "nonsense"}, {"air": "urn:x"}]'},
        {"Civitai resources": '{"a": 1}'},
        {"Lora hashes": "no hash, : , a: xyz"},
        {"Model hash": "zz", "Model": "None"},
        {"Lora hashes": "x: e3b0c44298fc", "Model hash": "e3b0c44298"},
    ],
)
def test_damaged_lists_of_models_never_fail(params: dict[str, str]) -> None:
    for one in models_of(Infotext(params=params)):
        assert one.references
        assert not any(isinstance(ref, Hash) for ref in one.references)
