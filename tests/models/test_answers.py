"""What commands about models answer."""

import json
from pathlib import Path

import pytest

from stablequeue.errors import BadRequest, NotFound
from stablequeue.models.answers import identify_file, resolve_text
from stablequeue.models.folders import Root
from stablequeue.models.headers import Format
from stablequeue.models.identities import identify
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from tests.models.making import model

TINY = Path(__file__).parents[1] / "recordings" / "civitai" / "hashes" / "tiny.safetensors"


def test_a_file_is_identified_with_everything_it_says() -> None:
    found = identify_file(TINY)

    assert found.identities == identify(TINY)
    assert found.architecture.kind is ModelType.LORA
    assert found.architecture.evidence == "ss_base_model_version"
    assert (found.tensors, found.dtypes) == (2, {"F16": 2})
    assert found.metadata["ss_output_name"] == "tiny"
    assert found.embedded == ""  # it claims the hash of no bytes
    assert json.loads(json.dumps(found.to_json()))["identities"]["autov3"] == "a6339bcf8f7b"


def test_a_wrong_embedded_hash_is_shown_as_wrong(tmp_path: Path) -> None:
    wrong = model(tmp_path / "a.safetensors", "x", {"sshs_model_hash": "ab" * 32})
    right = model(tmp_path / "b.safetensors", "x")
    truth = identify(right).tensors_sha256
    model(right, "x", {"modelspec.hash_sha256": "0x" + truth})

    assert identify_file(wrong).embedded_wrong
    assert not identify_file(right).embedded_wrong
    assert identify_file(right).embedded == truth


def test_what_is_no_model_still_has_its_hashes(tmp_path: Path) -> None:
    path = tmp_path / "page.safetensors"
    path.write_text("<html>sign in</html>")

    found = identify_file(path)

    assert found.format is Format.UNKNOWN
    assert "web page" in found.problem
    assert found.identities == identify(path)


def test_long_metadata_is_cut(tmp_path: Path) -> None:
    path = model(tmp_path / "a.safetensors", "x", {"ssmd_cover_images": "x" * 10_000})

    assert len(identify_file(path).metadata["ssmd_cover_images"]) < 5000


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        identify_file(tmp_path / "nothing")


def test_a_text_is_resolved_and_explained_from_its_beginning(tmp_path: Path) -> None:
    path = model(tmp_path / "loras" / "crane.safetensors", "x")
    library = Library(tmp_path / "home")
    library.scan([Root(tmp_path / "loras", ModelType.LORA, "test")])

    found = resolve_text(library, "<lora:crane:0.5>")

    assert found.resolved.file is not None
    assert found.resolved.file.path == path
    assert found.resolved.steps[0] == "'<lora:crane:0.5:0.5>' is read as a tag of a prompt."
    assert json.loads(json.dumps(found.to_json()))["as"] == "Tag"
    with pytest.raises(BadRequest):
        resolve_text(library, "")


@pytest.mark.parametrize(
    "text",
    ["a", "0123456789", "1", "1@2", "model:1", "image:1", "hf:o/r/f.bin", "https://x.org/f.bin"],
)
def test_every_kind_of_text_is_explained(text: str, tmp_path: Path) -> None:
    found = resolve_text(Library(tmp_path), text)

    assert "is read as" in found.resolved.steps[0]
    assert found.to_json()["file"] is None
