"""Environments of the server and its clients."""

import json
import os
import ssl
import stat
import subprocess
from pathlib import Path

import pytest
from pydantic import SecretStr

from stablequeue.errors import SettingsError
from stablequeue.secrets import load_secrets
from stablequeue.server_settings import (
    api_auth,
    api_url,
    clean_environment,
    client_environment,
    is_loopback,
    running_url,
    server_environment,
)
from stablequeue.settings import Settings

FOREIGN = "https://prefect.example/api"


def test_another_prefect_of_the_user_never_reaches_ours() -> None:
    given = {
        "PATH": "/bin",
        "PREFECT_API_URL": "https://elsewhere/api",
        "prefect_server_database_connection_url": "postgresql://theirs",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
    }
    assert clean_environment(given) == {"PATH": "/bin", "PREFECT_LOGGING_LEVEL": "DEBUG"}


def test_the_server_keeps_everything_below_home(tmp_path: Path) -> None:
    environment = server_environment(Settings(home=tmp_path / "h"), port=4321)
    assert environment["PREFECT_HOME"] == str(tmp_path / "h" / "prefect")
    assert str(tmp_path / "h") in environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"]
    assert environment["PREFECT_SERVER_API_HOST"] == "127.0.0.1"
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4321/api"
    if os.name == "posix":
        assert stat.S_IMODE((tmp_path / "h" / "prefect").stat().st_mode) == 0o700


def test_runs_are_kept_as_long_as_the_settings_say(tmp_path: Path) -> None:
    name = "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD"
    assert server_environment(Settings(home=tmp_path, keep_runs_days=2))[name] == "172800"
    shortest = server_environment(Settings(home=tmp_path, keep_runs_days=0.001))[name]
    assert int(shortest) > 3600  # Prefect refuses less


def test_a_client_of_our_server_gets_its_secret(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    environment = client_environment(settings)
    secret = load_secrets(settings).auth.get_secret_value()
    assert environment["PREFECT_API_AUTH_STRING"] == secret
    assert environment["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert "PREFECT_SERVER_ENCRYPTION_KEY" not in environment


def test_a_foreign_server_never_gets_our_secret(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, prefect_api_url=FOREIGN + "/")
    environment = client_environment(settings)
    assert environment["PREFECT_API_URL"] == FOREIGN
    assert "PREFECT_API_AUTH_STRING" not in environment
    given = settings.model_copy(update={"prefect_auth": SecretStr("a:b")})
    assert api_auth(given) == "a:b"


def test_one_certificate_stands_in_for_the_bundle_on_plain_http_only(tmp_path: Path) -> None:
    file = client_environment(Settings(home=tmp_path))["PREFECT_API_SSL_CERT_FILE"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(file)
    assert len(context.get_ca_certs()) == 1
    foreign = Settings(home=tmp_path, prefect_api_url=FOREIGN)
    assert "PREFECT_API_SSL_CERT_FILE" not in client_environment(foreign)


def test_a_free_port_is_known_only_while_the_server_runs(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, prefect_port=0)
    with pytest.raises(SettingsError, match="stablequeue up"):
        api_url(settings)
    settings.run_folder.mkdir()
    address = {"url": "http://127.0.0.1:5555/api", "pid": os.getpid()}
    (settings.run_folder / "prefect.json").write_text(json.dumps(address))
    assert api_url(settings) == address["url"]


@pytest.mark.skipif(os.name != "posix", reason="there is no harmless way to ask")
def test_the_address_of_a_killed_server_is_not_believed(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    settings.run_folder.mkdir()
    ended = subprocess.Popen(["true"])  # noqa: S607
    ended.wait()
    address = {"url": "http://127.0.0.1:5555/api", "pid": ended.pid}
    (settings.run_folder / "prefect.json").write_text(json.dumps(address))
    assert running_url(settings) == ""


@pytest.mark.parametrize("text", ["", "{", "[]", '{"url": 1}', '{"url": "x", "pid": "y"}'])
def test_a_damaged_address_file_counts_as_none(tmp_path: Path, text: str) -> None:
    settings = Settings(home=tmp_path)
    settings.run_folder.mkdir()
    (settings.run_folder / "prefect.json").write_text(text)
    assert running_url(settings) == ""


@pytest.mark.parametrize(
    ("url", "loopback"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost/api", True),
        ("http://[::1]:4200/api", True),
        ("http://192.168.1.5:4200/api", False),
        ("http://127.0.0.1.evil.example/api", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_rest(url: str, loopback: bool) -> None:
    assert is_loopback(url) is loopback
