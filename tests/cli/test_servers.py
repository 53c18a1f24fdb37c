"""`servers`: saving, testing, forgetting, importing; secrets go in and never come out."""

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from stablequeue.cli.servers_json import read_servers_json
from stablequeue.client import Client
from stablequeue.errors import BadRequest
from stablequeue.sandbox import Sandbox, serve_sandbox
from stablequeue.sandbox.models import CHECKPOINTS, LORAS, ModelShelf
from stablequeue.server_blocks import saved_server
from stablequeue.servers import ServerConfig
from stablequeue.settings import load
from tests.cli.conftest import Run, Site
from tests.fakes.model_files import safetensors
from tests.support.deployed import deploy

CANARY = "s3cr3t-canary"


@pytest.fixture(scope="module")
def comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    with serve_sandbox("comfyui", home=tmp_path_factory.mktemp("sandbox")) as sandbox:
        yield sandbox


def saved(alias: str) -> ServerConfig:
    """Return what Prefect has of a server."""
    with Client(load()) as queue:
        return saved_server(queue.session.api, alias)


def new_alias() -> str:
    """Return an alias no other test uses."""
    return f"srv-{uuid4().hex[:12]}"


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_server_is_saved_tested_listed_changed_and_forgotten(run: Run, comfyui: Sandbox) -> None:
    alias = new_alias()
    added = run("servers", "add", alias, "--type", "comfyui", "--url", comfyui.url, "--json")
    assert added.code == 0, added.err
    assert added.json["test"]["answers"]
    assert added.json["test"]["has"]["checkpoints"]
    again = run("servers", "add", alias, "--url", comfyui.url)
    assert again.code == 1
    assert "--update" in again.err
    assert run("servers", "add", alias, "--update", "--card", "host/0", "--no-test").code == 0
    assert (saved(alias).card, saved(alias).base_url) == ("host/0", comfyui.url)
    listed = {row["alias"]: row for row in run("servers", "ls", "--json").json}
    assert (listed[alias]["type"], listed[alias]["state"]) == ("comfyui", "not set up yet")
    tested = run("servers", "test", alias, "-v")
    assert tested.code == 0
    assert "checkpoints: " in tested.out
    assert run("servers", "rm", alias).out == f"{alias} is forgotten\n"
    gone = run("servers", "rm", alias)
    assert gone.code == 1
    assert "stablequeue servers ls" in gone.err


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_new_server_on_this_machine_that_lists_the_library_gets_what_it_lacks(
    run: Run, site: Site
) -> None:
    shelf = ModelShelf(folders={CHECKPOINTS: site.checkpoints, LORAS: site.loras})
    (site.checkpoints / "dream.safetensors").write_bytes(safetensors(3_000))
    with serve_sandbox("comfyui", models=shelf) as sandbox:
        reads, stranger = new_alias(), new_alias()
        added = run("servers", "add", reads, "--type", "comfyui", "--url", sandbox.url)
        assert added.code == 0, added.err
        assert "fetched for it" in added.err
        assert saved(reads).models_from == "same"
        (site.checkpoints / "dream.safetensors").unlink()
        (site.loras / "crane.safetensors").write_bytes(safetensors(3_000))
        shelf.folders = dict.fromkeys((CHECKPOINTS, LORAS), site.loras.parent / "other")
        added = run("servers", "add", stranger, "--type", "comfyui", "--url", sandbox.url)
        assert "--models-from same" in added.err
        assert saved(stranger).models_from == "none"


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_server_that_died_is_not_called_ready(run: Run) -> None:
    alias = new_alias()

    def state() -> str:
        listed = {row["alias"]: row for row in run("servers", "ls", "--json").json}
        return listed[alias]["state"]

    with serve_sandbox("comfyui") as server:
        run("servers", "add", alias, "--type", "comfyui", "--url", server.url)
        with Client(load()) as queue:
            deploy(queue.session.api, alias)
            beat = f"work_pools/{alias}/workers/heartbeat"
            queue.session.api.call("POST", beat, {"name": "its worker"})
        assert state() == "ready"
    assert state() == "does not answer"
    assert run("servers", "rm", alias).code == 0


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_what_a_server_speaks_is_found_out(run: Run, comfyui: Sandbox) -> None:
    alias = new_alias()
    assert run("servers", "add", alias, "--url", comfyui.url).code == 0
    assert saved(alias).type == "comfyui"
    nobody = run("servers", "add", new_alias(), "--url", "http://127.0.0.1:9")
    assert nobody.code == 2
    assert "--type" in nobody.err


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_a_server_that_does_not_answer_is_saved_all_the_same(run: Run) -> None:
    alias = new_alias()
    added = run("servers", "add", alias, "--type", "A1111", "--url", "http://127.0.0.1:9")
    assert added.code == 0
    assert "no answer" in added.err
    assert saved(alias).type == "forge"
    assert run("servers", "test", alias).code == 1


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_secrets_are_read_from_stdin_and_never_shown(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    alias = new_alias()
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{CANARY}-p\n{CANARY}-t\n{CANARY}-u\n"))
    url = "http://127.0.0.1:9"
    shown = [
        run(
            *("servers", "add", alias, "--type", "forge", "--url", url, "--username", "me", "-v"),
            *("--password", "-", "--token", "-", "--ui-username", "me", "--ui-password", "-"),
        )
    ]
    config = saved(alias)
    assert config.password.get_secret_value() == f"{CANARY}-p"
    assert config.token.get_secret_value() == f"{CANARY}-t"
    assert config.ui_password.get_secret_value() == f"{CANARY}-u"
    shown.append(run("servers", "add", alias, "--update", "--card", "x/0", "--json"))
    shown.append(run("servers", "add", alias, "--update", "--token", f"{CANARY}-x", "--no-test"))
    shown.append(run("servers", "add", alias, "--update", "--read-timeout", "0"))
    shown += [run("servers", "ls", *extra) for extra in ([], ["--json"], ["-v"])]
    shown += [run("servers", "test", alias, *extra) for extra in ([], ["--json"], ["-v"])]
    shown += [run("doctor", *extra) for extra in ([], ["--json"], ["-v"])]
    assert saved(alias).token.get_secret_value() == f"{CANARY}-x"
    assert not any(CANARY in one.out + one.err for one in shown)


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
@pytest.mark.parametrize(
    ("alias", "options", "said"),
    [
        ("My GPU", ["--type", "forge", "--url", "http://x"], "alias: use lower case"),
        ("gpu", ["--type", "forge"], "--url: needed for a new server"),
        ("gpu", ["--type", "dalle", "--url", "http://x"], "--type: there is no 'dalle'"),
        ("gpu", ["--type", "forge", "--url", "ftp://x"], "url: "),
        (
            "gpu",
            ["--type", "forge", "--url", f"http://me:{CANARY}@x"],
            "url: put user and password",
        ),
        ("any", ["--type", "forge", "--url", "http://127.0.0.1:9", "--no-test"], "another alias"),
    ],
)
def test_wrong_servers_are_refused(run: Run, alias: str, options: list[str], said: str) -> None:
    ran = run("servers", "add", alias, *options)
    assert ran.code == 2
    assert said in ran.err
    assert CANARY not in ran.out + ran.err


@pytest.mark.prefect
def test_a_server_with_waiting_jobs_is_not_forgotten_by_accident(run: Run, online: str) -> None:
    run("servers", "add", online, "--type", "forge", "--url", "http://127.0.0.1:9", "--no-test")
    run("submit", "a", "--server", online)
    refused = run("servers", "rm", online)
    assert refused.code == 1
    assert f"stablequeue cancel --all --server {online}" in refused.err
    assert run("servers", "rm", online, "--force").code == 0


@pytest.mark.prefect
@pytest.mark.usefixtures("online")
def test_the_older_servers_json_is_imported(run: Run, tmp_path: Path) -> None:
    one, two = new_alias(), new_alias()
    file = tmp_path / "servers.json"
    entries = [
        {"alias": one.upper(), "apiUrl": "http://127.0.0.1:7860/", "auth": None},
        {
            "alias": two,
            "apiUrl": "http://127.0.0.1:7861",
            "authUser": "me",
            "authPass": CANARY,
        },
    ]
    file.write_text(json.dumps(entries))
    assert f"{one} would be saved" in run("servers", "import", file, "--dry-run").out
    ran = run("servers", "import", file)
    assert ran.code == 0, ran.err
    assert CANARY not in ran.out + ran.err
    assert (saved(one).type, saved(one).base_url) == ("forge", "http://127.0.0.1:7860")
    assert saved(two).password.get_secret_value() == CANARY
    assert "kept" in run("servers", "import", file).out
    assert "changed" in run("servers", "import", file, "--update").out


def test_credentials_of_the_older_file_are_found_wherever_they_are(tmp_path: Path) -> None:
    file = tmp_path / "servers.json"
    url = "http://h:1"
    entries = [
        {"alias": "a", "apiUrl": url, "auth": {"username": "u", "password": "p"}},
        {"alias": "b", "apiUrl": url, "auth": "u:p:q"},
        {"alias": "c", "apiUrl": "http://u:p%40@h:1"},
        {"name": "d d", "url": url, "username": "u", "password": "p", "type": "ComfyUI"},
    ]
    file.write_text(json.dumps({"servers": entries}))
    read = [(one["alias"], one["url"], one["password"]) for one in read_servers_json(file)]
    assert read == [("a", url, "p"), ("b", url, "p:q"), ("c", url, "p@"), ("d-d", url, "p")]
    assert read_servers_json(file)[3]["type"] == "comfyui"


@pytest.mark.parametrize(
    "content", [b"", b"{", b"3", b"[3]", b'[{"alias": "!"}]', b"\xff", b"[" * 100_000, b"{}"]
)
def test_a_damaged_servers_json_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "servers.json"
    file.write_bytes(content)
    with pytest.raises(BadRequest, match="file"):
        read_servers_json(file)


@pytest.mark.parametrize("alias", ["../x", "a/b", "a?x=1", "\x1f", " ", "-a", "ä", "a" * 49])
@pytest.mark.parametrize(
    "command", [["servers", "add"], ["servers", "test"], ["servers", "rm"], ["pause"], ["resume"]]
)
def test_an_alias_that_is_none_never_gets_into_an_address(
    run: Run, command: list[str], alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def call(_: object, __: str, path: str, *___: object, **____: object) -> None:
        asked.append(path)

    monkeypatch.setattr("stablequeue.prefect_api.PrefectApi.call", call)
    assert run(*command, "--", alias).code in {1, 2}
    assert asked == []
