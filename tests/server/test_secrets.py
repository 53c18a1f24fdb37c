"""What is generated at first start."""

import base64
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from stablequeue.errors import SettingsError
from stablequeue.secrets import load_secrets, write_private
from stablequeue.settings import Settings

posix = pytest.mark.skipif(os.name != "posix", reason="file modes")


def test_secrets_are_made_once_and_then_stay(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    first = load_secrets(settings)
    assert load_secrets(settings) == first
    assert load_secrets(Settings(home=tmp_path / "other")) != first


def test_they_are_what_prefect_takes(tmp_path: Path) -> None:
    made = load_secrets(Settings(home=tmp_path))
    user, _, password = made.auth.get_secret_value().partition(":")
    assert user
    assert len(password) > 40
    assert len(base64.urlsafe_b64decode(made.encryption_key.get_secret_value())) == 32


@posix
def test_only_the_owner_can_read_them(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / "home")
    load_secrets(settings)
    assert stat.S_IMODE(settings.secrets_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(settings.home.stat().st_mode) == 0o700
    settings.secrets_file.chmod(0o644)  # as a careless restore leaves it
    load_secrets(settings)
    assert stat.S_IMODE(settings.secrets_file.stat().st_mode) == 0o600


def test_they_show_in_no_repr(tmp_path: Path) -> None:
    made = load_secrets(Settings(home=tmp_path))
    assert made.auth.get_secret_value() not in repr(made)
    assert made.encryption_key.get_secret_value() not in f"{made} {made!r}"


def test_processes_that_come_at_once_get_the_same(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from stablequeue.secrets import load_secrets;"
        "from stablequeue.settings import Settings; sys.stdin.read(1);"
        "print(load_secrets(Settings(home=Path(sys.argv[1]))).auth.get_secret_value())"
    )
    many = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in many:
        assert process.stdin
        process.stdin.write("x")
        process.stdin.flush()
    assert len({process.communicate()[0] for process in many}) == 1


@pytest.mark.parametrize("text", ["", "[]", "{", '{"prefect_auth": "a:b"}', "\x00" * 9])
def test_a_damaged_file_is_not_replaced_but_explained(tmp_path: Path, text: str) -> None:
    settings = Settings(home=tmp_path)
    settings.secrets_file.write_text(text)
    with pytest.raises(SettingsError, match=r"secrets\.json is damaged; restore it"):
        load_secrets(settings)
    assert settings.secrets_file.read_text() == text


def test_a_home_that_is_a_file_is_explained(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("")
    with pytest.raises(SettingsError, match="home"):
        load_secrets(Settings(home=tmp_path / "home"))


def test_writing_leaves_no_half_file(tmp_path: Path) -> None:
    target = tmp_path / "a"
    write_private(target, "one")
    write_private(target, "two")
    assert target.read_text() == "two"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]
