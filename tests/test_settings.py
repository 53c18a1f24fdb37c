"""Where values come from, and which one wins."""

import os
from pathlib import Path

import pytest

from stablequeue.errors import SettingsError
from stablequeue.settings import environment_names, load, load_with_origins, origin_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for names in environment_names().values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("STABLEQUEUE_HOME", str(tmp_path))
    return tmp_path


def test_the_command_line_goes_before_the_environment_before_the_file_before_defaults(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "stablequeue.yaml").write_text("files_port: 1\nprefect_port: 2\nkeep_runs_days: 3\n")
    monkeypatch.setenv("STABLEQUEUE_FILES_PORT", "4")
    monkeypatch.setenv("STABLEQUEUE_PREFECT_PORT", "5")

    settings, origins = load_with_origins({"prefect_port": 6})

    assert (settings.files_port, settings.prefect_port, settings.keep_runs_days) == (4, 6, 3)
    assert origins["prefect_port"] == "command line"
    assert origins["files_port"] == "environment STABLEQUEUE_FILES_PORT"
    assert origins["keep_runs_days"] == str(home / "stablequeue.yaml")
    assert origins["log_level"] == "default"


def test_names_other_tools_already_set_are_understood(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STABLEQUEUE_HOME")
    monkeypatch.setenv("CONFIG_DATA_PATH", str(home / "data"))
    monkeypatch.setenv("STABLE_DIFFUSION_SAVE_PATH", str(home / "out"))
    monkeypatch.setenv("PORT", "8080")

    settings = load()

    assert settings.home == home / "data"
    assert settings.pictures_folder == home / "out"
    assert settings.files_port == 8080


def test_a_part_of_s3_from_the_environment_joins_what_the_file_says(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "stablequeue.yaml").write_text("s3: {bucket: pictures, access_key: me}\n")
    monkeypatch.setenv("STABLEQUEUE_S3_SECRET_KEY", "canary-of-s3")

    settings = load()

    assert settings.s3.bucket == "pictures"
    assert settings.s3.secret_key.get_secret_value() == "canary-of-s3"
    assert "canary-of-s3" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("files_port: many", "files_port"),
        ("no_such: 1", "no_such"),
        ("a: [1", "line"),
        ("just words", "name: value"),
        ("log_level: LOUD", "log_level"),
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_file_and_the_setting(
    home: Path, text: str, told: str
) -> None:
    (home / "stablequeue.yaml").write_text(text)

    with pytest.raises(SettingsError) as refused:
        load()

    assert told in str(refused.value)
    assert "stablequeue.yaml" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_everything_lies_below_home_unless_told_otherwise(home: Path) -> None:
    settings = load()

    for folder in (settings.spool, settings.inputs, settings.thumbnails, settings.locks):
        assert folder.is_relative_to(home)
    assert settings.catalogue == f"sqlite:///{home / 'catalogue.db'}"


def test_tokens_and_model_folders_come_from_the_names_other_tools_set(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "stablequeue.yaml").write_text(
        "sources: {civitai: {token: of-the-file, requests_per_s: 2}}\nmodels: {most_gb: 3}\n"
    )
    monkeypatch.setenv("CIVITAI_API_KEY", "canary-of-civitai")
    monkeypatch.setenv("HF_TOKEN", "canary-of-hf")
    monkeypatch.setenv("STABLEQUEUE_MODEL_INSTALLATIONS", f"/a{os.pathsep}/b")

    settings, origins = load_with_origins()

    assert settings.sources.civitai.token.get_secret_value() == "canary-of-civitai"
    assert settings.sources.civitai.requests_per_s == 2
    assert settings.sources.huggingface.token.get_secret_value() == "canary-of-hf"
    assert settings.models.installations == [Path("/a"), Path("/b")]
    assert settings.models.most_gb == 3
    assert origins["sources.civitai.token"] == "environment CIVITAI_API_KEY"
    assert origins["models.most_gb"] == str(home / "stablequeue.yaml")
    assert "sources.civitai.hosts" not in origins
    assert "canary" not in repr(settings)


def test_our_own_names_go_before_those_of_other_tools(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del home
    monkeypatch.setenv("CIVITAI_TOKEN", "theirs")
    monkeypatch.setenv("STABLEQUEUE_CIVITAI_TOKEN", "ours")

    assert load().sources.civitai.token.get_secret_value() == "ours"


def test_the_command_line_reaches_into_sections(home: Path) -> None:
    (home / "stablequeue.yaml").write_text("models: {most_gb: 3, locks: /locks}\n")

    settings, origins = load_with_origins({"models.most_gb": "5"})

    assert (settings.models.most_gb, settings.model_locks) == (5, Path("/locks"))
    assert origin_of("models.most_gb", origins) == "command line"
    assert origin_of("models.locks.part", origins) == str(home / "stablequeue.yaml")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("models: {folders: {loraz: [/a]}}", "there is no type of models 'loraz'"),
        ("models: {folders: {lora: 3}}", "setting models.folders.lora"),
        ("models: {most_gb: -1}", "setting models.most_gb"),
        ("models: 3", "setting models"),
        ("sources: {civitai: {tokn: x}}", "setting sources.civitai.tokn"),
    ],
)
def test_a_wrong_setting_of_models_is_named_with_its_place(
    home: Path, text: str, told: str
) -> None:
    (home / "stablequeue.yaml").write_text(text)

    with pytest.raises(SettingsError) as refused:
        load()

    assert told in str(refused.value)
    assert "stablequeue.yaml" in str(refused.value)
