"""Which folders hold models."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stablequeue.errors import BadRequest, SettingsError
from stablequeue.models.folders import (
    Root,
    comfyui_roots,
    environment_roots,
    extra_model_paths,
    forge_roots,
    gather_roots,
    recognised_roots,
    target_in,
    unique,
)
from stablequeue.models.kinds import ModelType


def _made(base: Path, *folders: str) -> Path:
    for folder in folders:
        (base / folder).mkdir(parents=True)
    return base


def _named(roots: list[Root], base: Path) -> set[tuple[str, str]]:
    return {(root.kind.value, str(root.path.relative_to(base))) for root in roots}


def test_forges_folders_are_recognised_and_embeddings_are_not_under_models(tmp_path: Path) -> None:
    base = _made(
        tmp_path,
        *("models/Stable-diffusion", "models/Lora", "models/LyCORIS", "models/VAE"),
        *("embeddings", "models/text_encoder", "models/ESRGAN", "models/ControlNet"),
        "models/other",
    )

    assert _named(forge_roots(base), base) == {
        ("checkpoint", "models/Stable-diffusion"),
        ("lora", "models/Lora"),
        ("lora", "models/LyCORIS"),
        ("vae", "models/VAE"),
        ("embedding", "embeddings"),
        ("text_encoder", "models/text_encoder"),
        ("upscaler", "models/ESRGAN"),
        ("controlnet", "models/ControlNet"),
    }


def test_comfyuis_folders_are_recognised_old_names_too(tmp_path: Path) -> None:
    base = _made(
        tmp_path / "models",
        *("checkpoints", "diffusion_models", "unet", "loras", "clip", "text_encoders", "configs"),
    ).parent

    assert _named(comfyui_roots(base), base / "models") == {
        ("checkpoint", "checkpoints"),
        ("diffusion_model", "diffusion_models"),
        ("diffusion_model", "unet"),
        ("lora", "loras"),
        ("text_encoder", "clip"),
        ("text_encoder", "text_encoders"),
    }


@pytest.mark.parametrize("given", ["", "models"])
def test_an_installation_or_its_models_folder_may_be_given(given: str, tmp_path: Path) -> None:
    base = _made(tmp_path, "models/Lora", "models/loras", "embeddings")

    found = _named(recognised_roots(base / given), base)

    assert {("lora", "models/Lora"), ("lora", "models/loras"), ("embedding", "embeddings")} <= found


def test_a_folder_of_something_else_has_no_roots(tmp_path: Path) -> None:
    assert recognised_roots(tmp_path) == []
    assert recognised_roots(tmp_path / "missing") == []


def test_extra_model_paths_adds_folders_with_its_default_first(tmp_path: Path) -> None:
    webui = _made(
        tmp_path / "webui",
        *("models/Stable-diffusion", "models/Lora", "models/LyCORIS", "embeddings", "models/VAE"),
    )
    _made(tmp_path / "shared", "loras", "unet")
    comfyui = _made(tmp_path / "comfyui", "models/loras")
    (comfyui / "extra_model_paths.yaml").write_text(
        f"""
a111:
    base_path: {webui}/
    checkpoints: models/Stable-diffusion
    configs: models/Stable-diffusion
    vae: models/VAE
    loras: |
         models/Lora
         models/LyCORIS
    upscale_models: models/missing
    embeddings: embeddings
    hypernetworks: [not, text]
mine:
    base_path: ../shared
    is_default: true
    loras: loras
    unet: unet
#comment:
#    base_path: x
"""
    )

    found = extra_model_paths(comfyui / "extra_model_paths.yaml")

    assert [(root.kind.value, root.path) for root in found] == [
        ("lora", tmp_path / "shared" / "loras"),
        ("diffusion_model", tmp_path / "shared" / "unet"),
        ("checkpoint", webui / "models" / "Stable-diffusion"),
        ("vae", webui / "models" / "VAE"),
        ("lora", webui / "models" / "Lora"),
        ("lora", webui / "models" / "LyCORIS"),
        ("embedding", webui / "embeddings"),
    ]
    assert {root.path for root in found} < {root.path for root in comfyui_roots(comfyui)}


def test_paths_without_a_base_are_relative_to_the_file(tmp_path: Path) -> None:
    _made(tmp_path, "here")
    (tmp_path / "x.yaml").write_text("any:\n  loras: here\n")

    assert extra_model_paths(tmp_path / "x.yaml")[0].path == tmp_path / "here"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "not valid YAML"),
        ("- a\n", "expected sections"),
        ("\xff", "not valid YAML"),
        ("!!python/object/apply:os.system [true]", "not valid YAML"),
    ],
)
def test_a_broken_file_of_paths_is_a_clear_error(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(text.encode("latin-1"))

    with pytest.raises(SettingsError, match=words):
        extra_model_paths(file)


def test_a_missing_or_empty_file_of_paths(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        extra_model_paths(tmp_path / "missing.yaml")
    (tmp_path / "empty.yaml").write_text("")
    assert extra_model_paths(tmp_path / "empty.yaml") == []


def test_the_environment_names_folders_as_path_does(tmp_path: Path) -> None:
    _made(tmp_path, "a", "b", "c")
    environment = {
        "LORA_PATH": f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}",
        "CHECKPOINT_PATH": f"{tmp_path / 'c'}{os.pathsep}{tmp_path / 'missing'}",
    }

    assert _named(environment_roots(environment), tmp_path) == {
        ("lora", "a"),
        ("lora", "b"),
        ("checkpoint", "c"),
    }
    assert environment_roots({"LORA_PATH": ""}) == []


def test_a_folder_counts_once_however_it_is_reached(tmp_path: Path) -> None:
    _made(tmp_path, "models/loras/sub")
    (tmp_path / "link").symlink_to(tmp_path / "models" / "loras")

    found = gather_roots(
        explicit={ModelType.LORA: [tmp_path / "link", tmp_path / "models" / "loras" / "sub"]},
        installations=[tmp_path],
        environment={"LORA_PATH": str(tmp_path / "models" / "loras")},
    )

    assert [(root.path, root.origin) for root in found] == [(tmp_path / "link", "settings")]


def test_a_folder_around_one_given_before_takes_its_place(tmp_path: Path) -> None:
    _made(tmp_path, "loras/sub")
    inner = Root(tmp_path / "loras" / "sub", ModelType.LORA, "")
    outer = Root(tmp_path / "loras", ModelType.LORA, "")
    other = Root(tmp_path / "loras", ModelType.VAE, "")

    assert unique([inner, outer, other]) == [outer, other]


def test_a_link_to_itself_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    assert gather_roots(explicit={ModelType.LORA: [tmp_path / "loop"]}, environment={}) == []


def test_a_name_from_outside_stays_in_its_folder(tmp_path: Path) -> None:
    root = Root(_made(tmp_path, "loras"), ModelType.LORA, "")

    assert target_in(root, "sub\\a.safetensors") == tmp_path / "sub" / "a.safetensors"
    (tmp_path / "away").symlink_to(tmp_path.parent)
    for name in ("../a", "/etc/x", "a/../../b", "C:\\x", "a\0b", "", ".", "away/x", "a//b", "x "):
        with pytest.raises(BadRequest, match="no name of a file"):
            target_in(root, name)


@given(st.text(max_size=30) | st.lists(st.sampled_from(["..", "/", "\\", "a", "."])).map("".join))
def test_no_name_leaves_the_folder(name: str) -> None:
    root = Root(Path("/nowhere/models"), ModelType.LORA, "")
    try:
        target = target_in(root, name)
    except BadRequest:
        return
    assert Path(os.path.normpath(target)).is_relative_to(root.path)
    assert target != root.path
