"""What other tools keep beside a model: read, merged, never lost."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from stablequeue.errors import UnreadableFile
from stablequeue.models.beside import find_preview, sidecar_files, write_preview
from stablequeue.models.sidecars import (
    Sidecars,
    merge_civitai_info,
    merge_user_metadata,
    read_sidecars,
    user_metadata_of,
)

RECORDING = Path(__file__).parents[1] / "recordings" / "civitai" / "model_version_by_hash.json"
VERSION: dict[str, Any] = json.loads(RECORDING.read_text())


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model file whose name has dots."""
    path = tmp_path / "crane.v1.5.safetensors"
    path.write_bytes(b"x")
    return path


def _write(model: Path, suffix: str, value: Any) -> Path:
    path = model.with_name(model.stem + suffix)
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def _picture(form: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    return buffer.getvalue()


def test_a_model_without_sidecars_tells_nothing(model: Path) -> None:
    assert read_sidecars(model) == Sidecars()


def test_the_name_is_cut_at_its_last_dot_only(model: Path) -> None:
    _write(model, ".json", {"notes": "mine"})
    model.with_name("crane.json").write_text('{"notes": "of another"}')

    assert read_sidecars(model).notes == "mine"


def test_all_kinds_are_read_and_forges_user_texts_come_first(model: Path) -> None:
    _write(
        model,
        ".json",
        {
            "description": "my words",
            "notes": "n",
            "sd version": "SD1",
            "activation text": "crane",
            "preferred weight": "0.7",
            "negative text": "bad",
        },
    )
    _write(model, ".civitai.info", {**VERSION, "model": {"name": "Crane", "description": "<p>"}})
    _write(
        model,
        ".metadata.json",
        {"sha256": "AB" * 32, "autov3": "4ed7c7b88a02", "tags": ["style", 7], "base_model": "Pony"},
    )
    _write(model, ".cm-info.json", {"ModelId": 5, "BaseModel": "SD 1.5"})

    found = read_sidecars(model)

    assert found.description == "my words"
    assert (found.notes, found.activation_text, found.negative_text) == ("n", "crane", "bad")
    assert found.preferred_weight == 0.7
    assert (found.base_model, found.base_model_source) == ("SDXL 1.0", "name.civitai.info")
    assert (found.model_id, found.version_id) == (9900200, 9910301)
    assert found.name == "Crane"
    assert found.trained_words[0] == "paper crane style"
    assert (found.sha256, found.autov3, found.tags) == ("ab" * 32, "4ed7c7b88a02", ("style",))


@pytest.mark.parametrize(
    ("suffix", "content", "attribute", "wanted"),
    [
        (".json", {"sd version": "Flux"}, "base_model", "Flux.1"),
        (".json", {"sd version": "Other"}, "base_model", ""),
        (".json", {"modelId": "77", "modelVersionId": 78}, "version_id", 78),
        (".civitai.info", {"id": "", "skeleton_file": True}, "version_id", 0),
        (".metadata.json", {"civitai": {"id": 9, "modelId": 8}}, "model_id", 8),
        (".metadata.json", {"sha256": "", "hash_status": "pending"}, "sha256", ""),
        (".cm-info.json", {"Hashes": {"SHA256": "CD" * 32}}, "sha256", "cd" * 32),
        (".cm-info.json", {"TrainedWords": ["a <lora:x:1>"]}, "trained_words", ("a",)),
        (".txt", "a text\n", "description", "a text"),
        (".description.txt", "a text", "description", "a text"),
        (".api_info.json", {"description": "d"}, "description", "d"),
    ],
)
def test_each_tools_file_is_understood_alone(
    suffix: str, content: Any, attribute: str, wanted: object, model: Path
) -> None:
    _write(model, suffix, content)

    assert getattr(read_sidecars(model), attribute) == wanted


def test_a_broken_sidecar_is_noted_and_the_rest_is_read(model: Path) -> None:
    _write(model, ".json", "{broken")
    _write(model, ".civitai.info", "[" * 100_000)
    _write(model, ".cm-info.json", {"ModelId": 5})

    found = read_sidecars(model)

    assert found.model_id == 5
    assert len(found.problems) == 2
    assert "left as it is" in found.problems[0]


def test_a_persons_text_is_never_replaced(model: Path) -> None:
    path = _write(
        model, ".json", {"notes": "mine", "activation text": "my word", "unknown key": {"a": [1]}}
    )

    merge_user_metadata(model, user_metadata_of(VERSION, sha256="ab" * 32))

    after = json.loads(path.read_text())
    assert after["notes"] == "mine"
    assert after["activation text"] == "my word"
    assert after["unknown key"] == {"a": [1]}
    assert after["sd version"] == "SDXL"
    assert after["sha256"] == "AB" * 32


def test_forges_spelling_is_kept_when_writing(model: Path) -> None:
    merge_user_metadata(model, {"notes": "naïve ünï"})

    assert model.with_name(model.stem + ".json").read_bytes() == (
        '{\n    "notes": "naïve ünï"\n}'.encode()
    )


@pytest.mark.parametrize("merge", [merge_user_metadata, merge_civitai_info])
def test_a_file_that_cannot_be_read_is_left_as_it_is(merge: Any, model: Path) -> None:
    paths = [_write(model, suffix, "{broken") for suffix in (".json", ".civitai.info")]

    with pytest.raises(UnreadableFile, match="left as it is"):
        merge(model, {"notes": "x"})

    assert [path.read_text() for path in paths] == ["{broken"] * 2


def test_civitai_info_keeps_what_other_tools_added(model: Path) -> None:
    path = _write(
        model,
        ".civitai.info",
        {
            "id": 1,
            "extensions": {"sd_civitai_helper": {"version": "1.2.3"}},
            "model": {"name": "Old", "description": "long", "tags": ["a"]},
            "stats": {"downloadCount": 1, "own": 2},
        },
    )

    merge_civitai_info(model, VERSION)

    after = json.loads(path.read_text())
    assert after["id"] == 9910301
    assert after["extensions"] == {"sd_civitai_helper": {"version": "1.2.3"}}
    assert after["model"]["name"] == "Paper Crane Style"
    assert after["model"]["description"] == "long"
    assert after["model"]["tags"] == ["a"]
    assert after["stats"] == {"downloadCount": 77, "thumbsUpCount": 9, "own": 2}


def test_a_description_that_the_api_no_longer_tells_stays(model: Path) -> None:
    _write(model, ".civitai.info", {"description": "kept"})

    assert merge_civitai_info(model, {"description": None, "air": None})["description"] == "kept"


VALUE = st.none() | st.integers() | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
OBJECT = st.dictionaries(st.text(max_size=3), VALUE | st.dictionaries(st.text(max_size=2), VALUE))


@given(before=OBJECT, new=OBJECT)
def test_merging_never_loses_a_key(
    before: dict[str, Any], new: dict[str, Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    model = tmp_path_factory.getbasetemp() / "merge.safetensors"
    _write(model, ".json", before)
    _write(model, ".civitai.info", before)

    user, civitai = merge_user_metadata(model, new), merge_civitai_info(model, new)

    assert set(before) <= set(user)
    assert set(before) <= set(civitai)
    assert all(user[key] == value for key, value in before.items() if value or key not in new)
    assert json.loads(model.with_name("merge.json").read_text()) == user


def test_merging_twice_changes_nothing_and_writes_nothing(model: Path) -> None:
    merge_civitai_info(model, VERSION)
    path = model.with_name(model.stem + ".civitai.info")
    before = path.stat()

    merge_civitai_info(model, VERSION)

    assert path.stat().st_ino == before.st_ino


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["a", "b"], "a, b"),
        (["a", "b, c"], "a || b, c"),
        (["a <lora:x:1>", "a", ""], "a"),
        (["<lora:x:1>"], ""),
        (None, ""),
        ([7, None, "a"], "a"),
    ],
)
def test_trained_words_become_an_activation_text(words: Any, wanted: str) -> None:
    assert user_metadata_of({"trainedWords": words})["activation text"] == wanted


@pytest.mark.parametrize(
    ("base_model", "wanted"),
    [
        ("SD 1.5", "SD1"),
        ("Pony", "SDXL"),
        ("Pony V7", ""),
        ("Flux.1 D", "Flux"),
        ("Flux.2 D", ""),
        ("Wan Video", ""),
    ],
)
def test_forge_is_told_only_versions_it_knows(base_model: str, wanted: str) -> None:
    assert user_metadata_of({"baseModel": base_model})["sd version"] == wanted


@pytest.mark.parametrize(("form", "suffix"), [("JPEG", ".jpg"), ("PNG", ".png"), ("WEBP", ".webp")])
def test_a_preview_gets_the_suffix_of_what_it_is(form: str, suffix: str, model: Path) -> None:
    target = write_preview(model, _picture(form))

    assert target == model.with_name(f"{model.stem}.preview{suffix}")
    assert target.read_bytes() == _picture(form)


def test_there_is_one_preview_of_ours_and_a_chosen_picture_stays(model: Path) -> None:
    chosen = model.with_name(model.stem + ".png")
    chosen.write_bytes(_picture("PNG"))
    old = model.with_name(model.stem + ".preview.png")
    old.write_bytes(b"jpeg bytes under a wrong name")

    new = write_preview(model, _picture("JPEG"))

    assert not old.exists()
    assert chosen.exists()
    assert new.name.endswith(".preview.jpg")
    assert find_preview(model) == chosen


@pytest.mark.parametrize("data", [b"<html>no</html>", b"", b"\0\1\2"])
def test_what_is_no_picture_is_no_preview(data: bytes, model: Path) -> None:
    with pytest.raises(UnreadableFile):
        write_preview(model, data)
    assert find_preview(model) is None


def test_files_that_belong_to_a_model_are_found_and_no_others(model: Path) -> None:
    mine = [
        ".json",
        ".civitai.info",
        ".preview.jpeg",
        ".png",
        ".metadata.json",
        ".txt",
        ".example.3.png",
        ".vae.pt",
        ".yaml",
    ]
    for suffix in mine:
        _write(model, suffix, "x")
    for name in ("crane.v1.json", "crane.v1.5b.json", "crane.v1.5.2.safetensors", "other.png"):
        model.with_name(name).write_text("x")

    assert sidecar_files(model) == sorted(model.with_name(model.stem + one) for one in mine)


def test_sidecars_shared_with_another_file_of_the_same_stem_are_not_taken(model: Path) -> None:
    _write(model, ".json", {})
    model.with_suffix(".ckpt").write_bytes(b"x")

    assert sidecar_files(model) == []
