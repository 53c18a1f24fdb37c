"""`config show`: what is in force, why, and never a secret."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run

CANARY = "s3cr3t-canary"


def test_each_value_says_where_it_comes_from(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "stablequeue.yaml").write_text("files_port: 5001\nprefect_port: 5002\n")
    monkeypatch.setenv("STABLEQUEUE_PREFECT_PORT", "5003")
    data = run("config", "show", "--origin", "--json", "--setting", "sandbox-port=5004").json
    assert data["files_port"] == {"value": 5001, "origin": str(home / "stablequeue.yaml")}
    assert data["prefect_port"] == {"value": 5003, "origin": "environment STABLEQUEUE_PREFECT_PORT"}
    assert data["sandbox_port"] == {"value": 5004, "origin": "command line"}
    assert data["keep_runs_days"]["origin"] == "default"
    assert "command line" in run("config", "show", "--origin", "--setting", "log_level=DEBUG").out


def test_the_home_given_in_front_goes_before_the_environment(run: Run, tmp_path: Path) -> None:
    other = tmp_path / "other"
    assert run("--home", other, "config", "show", "--json").json["home"] == str(other)
    assert run("config", "show", f"--home={other}", "--json").json["home"] == str(other)


def test_no_secret_is_shown(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"postgresql+psycopg://me:{CANARY}@db/queue?password={CANARY}"
    monkeypatch.setenv("STABLEQUEUE_PREFECT_AUTH", f"me:{CANARY}")
    monkeypatch.setenv("STABLEQUEUE_S3_SECRET_KEY", CANARY)
    monkeypatch.setenv("CIVITAI_TOKEN", CANARY)
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("STABLEQUEUE_CATALOGUE_URL", url)
    for options in ([], ["--json"], ["--origin"], ["--origin", "--json"]):
        ran = run("config", "show", *options)
        assert ran.code == 0
        assert CANARY not in ran.out + ran.err
    assert "postgresql+psycopg://me:***@db/queue?password=***" in ran.out


def test_settings_within_sections_are_shown_with_their_own_origin(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir()
    (home / "stablequeue.yaml").write_text("models: {folders: {lora: [/a, /b]}, most_gb: 3}\n")
    monkeypatch.setenv("CIVITAI_TOKEN", CANARY)
    data = run("config", "show", "--origin", "--json", "--setting", "models.most_gb=4").json
    assert data["models"]["value"]["folders"] == {"lora": ["/a", "/b"]}
    assert data["models"]["origin"]["models.folders.lora"] == str(home / "stablequeue.yaml")
    assert data["models"]["origin"]["models.most_gb"] == "command line"
    assert data["sources"]["origin"]["sources.civitai.token"] == "environment CIVITAI_TOKEN"
    assert data["sources"]["origin"]["sources.huggingface.token"] == "default"
    lines = run("config", "show", "--origin").out.splitlines()
    [line] = [line for line in lines if line.startswith("sources.civitai.token ")]
    assert line.split() == ["sources.civitai.token", "(set)", "environment", "CIVITAI_TOKEN"]
    assert any("models.folders.lora" in line and "/a, /b" in line for line in lines)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("nothing", "--setting: 'nothing' is not NAME=VALUE"),
        ("files_port=x", "setting files_port (from command line)"),
        ("colour=red", "setting colour (from command line)"),
    ],
)
def test_a_wrong_setting_is_misuse_and_says_where_it_came_from(
    run: Run, setting: str, said: str
) -> None:
    ran = run("config", "show", "--setting", setting)
    assert ran.code == 2
    assert said in ran.err


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00", "s3: 3", "colour: red"])
def test_a_damaged_settings_file_is_named(run: Run, home: Path, text: str) -> None:
    home.mkdir()
    (home / "stablequeue.yaml").write_text(text)
    for command in (["config", "show"], ["ls"], ["submit", "a"]):
        ran = run(*command)
        assert ran.code == 2
        assert ran.err.startswith("stablequeue: ")
        assert "unexpected" not in ran.err


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "~nobody-of-this-name/x"])
def test_a_home_that_is_no_folder_is_named(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(f"home: {value}\n")
    monkeypatch.delenv("STABLEQUEUE_HOME")
    monkeypatch.setenv("STABLEQUEUE_CONFIG", str(file))
    ran = run("config", "show")
    assert ran.code == 2
    assert f"setting home (from {file})" in ran.err
