"""Nothing secret is left anywhere by an installation that has secrets wherever they can be put."""

import base64
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import pytest

from stablequeue.cli import main
from stablequeue.cli.app import GROUPS, names
from stablequeue.client import Client
from stablequeue.prefect_api import PrefectApi
from stablequeue.sandbox.serving import Sandbox, serve_sandbox
from stablequeue.secrets import write_private
from stablequeue.server_settings import clean_environment
from stablequeue.settings import load
from stablequeue.store_blocks import BUCKET_BLOCK
from tests.fakes.civitai import FakeCivitai, serve_civitai
from tests.fakes.model_files import safetensors
from tests.flows.acting import SMALL, WITHIN_S
from tests.flows.conftest import House
from tests.support.prefect import copied_home, stop_process
from tests.support.waiting import wait_until

pytestmark = [
    pytest.mark.prefect,
    pytest.mark.house,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name != "posix", reason="signals"),
]

HOLD_SECRETS = {"secrets.json", "stablequeue.yaml"}
"""Files below home whose job is to hold secrets; only their owner may read them."""


@dataclass
class Canaries:
    """Secrets that are easy to find, by where they were put."""

    known: dict[str, str] = field(default_factory=dict[str, str])

    def new(self, name: str, *, user: str = "") -> str:
        """Return a secret for one place; with a user, what HTTP Basic makes of it is one too."""
        secret = self.known[name] = f"CANARY{uuid4().hex}{name}"
        if user:
            both = f"{user}:{secret}".encode()
            self.known[f"{name}, encoded"] = base64.b64encode(both).decode()
        return secret

    def found(self, text: str) -> list[str]:
        """Return the names of those that stand in a text."""
        return [name for name, secret in self.known.items() if secret in text]


@dataclass
class Installation:
    """A `stablequeue up` with its own home; what is said there, by who said it."""

    home: Path
    up: "subprocess.Popen[bytes]"
    log: Path
    comfy: Sandbox
    forge: Sandbox
    civitai: FakeCivitai
    canaries: Canaries
    capsys: pytest.CaptureFixture[str]
    said: dict[str, str] = field(default_factory=dict[str, str])

    def ready(self) -> bool:
        """Whether `up` says so."""
        assert self.up.poll() is None, self.log.read_text(encoding="utf-8")[-2000:]
        return (self.home / "run" / "up.json").exists()

    def stop(self) -> None:
        """End everything; what `up` said is kept."""
        if self.up.poll() is None:
            assert stop_process(self.up, timeout_s=WITHIN_S) == 0
        self.said["stablequeue up"] = self.log.read_text(encoding="utf-8")

    def command(self, *words: str) -> str:
        """Run a command with -v; return its output."""
        self.capsys.readouterr()
        code = main([*words, "-v"])
        captured = self.capsys.readouterr()
        name = f"stablequeue {' '.join(words)}"
        self.said[name] = f"{code}\n{captured.out}\n{captured.err}"
        return captured.out

    def job(self, *words: str) -> str:
        """Queue a small job; return its id."""
        small = ("--checkpoint", SMALL["checkpoint"], "--steps", "2", "--size", "64x64")
        return self.command("submit", "a harbour at dawn", *map(str, small), *words).split()[0]


@pytest.fixture
def installation(
    house: House,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Installation]:
    """Start one that is a copy of the house: its servers have their pools already."""
    canaries = Canaries()
    home = tmp_path / "home"
    secrets_file = copied_home(house.server, home).secrets_file
    secrets = json.loads(secrets_file.read_text(encoding="utf-8"))
    secrets["prefect_auth"] = f"stablequeue:{canaries.new('prefect', user='stablequeue')}"
    canaries.known["encryption key"] = secrets["prefect_encryption_key"]
    write_private(secrets_file, json.dumps(secrets))
    models = tmp_path / "models"
    models.mkdir()
    civitai = FakeCivitai(key=canaries.new("civitai"))
    for name in [name for name in os.environ if name.startswith(("STABLEQUEUE_", "PREFECT_"))]:
        monkeypatch.delenv(name)
    ports = {f"STABLEQUEUE_{name}_PORT": "0" for name in ("PREFECT", "FILES", "SANDBOX")}
    ours = {"STABLEQUEUE_HOME": str(home), "STABLEQUEUE_LOG_LEVEL": "DEBUG", **ports}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    log = tmp_path / "up.txt"
    with (
        serve_sandbox("comfyui", name="canary-comfy") as comfy,
        serve_sandbox("forge", name="canary-forge") as forge,
        serve_civitai(civitai) as site,
        log.open("wb") as output,
    ):
        settings = {
            "s3": {"access_key": "AKIA", "secret_key": canaries.new("settings")},
            "models": {"folders": {"lora": [str(models)]}},
            "sources": {
                "civitai": {
                    "base_url": site,
                    "fallback_url": "",
                    "hosts": ["127.0.0.1", "localhost"],
                    "token_hosts": ["127.0.0.1"],
                    "token": civitai.key,
                    "loopback": True,
                },
                "huggingface": {"token": canaries.new("hub")},
            },
        }
        write_private(home / "stablequeue.yaml", json.dumps(settings))
        up = subprocess.Popen(
            [sys.executable, "-m", "stablequeue.cli", "up", "-v"],
            env={**clean_environment(), **ours},
            stdout=output,
            stderr=output,
        )
        there = Installation(home, up, log, comfy, forge, civitai, canaries, capsys)
        try:
            wait_until(there.ready, timeout_s=2 * WITHIN_S, every_s=0.2, why="up is ready")
            yield there
        finally:
            there.stop()


@pytest.fixture
def queue(installation: Installation) -> Iterator[Client]:
    del installation
    with Client(load()) as client:
        yield client


def _save_servers(there: Installation, api: PrefectApi) -> None:
    new = there.canaries.new
    add = ("servers", "add", "--update", "--read-timeout", "2")
    comfy = (*add, "comfy", "--type", "comfyui", "--url", there.comfy.url)
    there.command(*comfy, "--token", new("token"), "--card", "here/0", "--store", "")
    forge = (*add, "forge", "--type", "forge", "--url", there.forge.url, "--store", "")
    basic = ("--username", "me", "--password", new("password", user="me"))
    pages = ("--ui-username", "me", "--ui-password", new("ui", user="me"))
    there.command(*forge, *basic, *pages, "--card", "here/1")
    endpoint = "http://127.0.0.1:9"  # one with a password in it is refused
    bucket = {"bucket": "b", "endpoint_url": endpoint, "region": "r", "access_key": "AKIA"}
    api.save_block_document(BUCKET_BLOCK, "away", {**bucket, "secret_key": new("bucket")})
    old = there.home.parent / "servers.json"
    entry = {"alias": "old", "apiUrl": f"http://me:{new('old')}@127.0.0.1:9", "type": "forge"}
    old.write_text(json.dumps([entry]), encoding="utf-8")
    there.command("servers", "import", str(old), "--dry-run")


def _whole_of(database: Path) -> str:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return "\n".join(connection.iterdump())


def _left_behind(home: Path) -> Iterator[tuple[str, str]]:
    """Yield every file below home with its text; of a database also what is in it."""
    for path in sorted(home.rglob("*")):
        if not path.is_file():
            continue
        if path.name in HOLD_SECRETS and path.parent == home:
            assert path.stat().st_mode & 0o077 == 0, f"others may read {path}"
            continue
        yield str(path.relative_to(home)), path.read_bytes().decode("latin-1")
        if path.suffix == ".db":
            yield f"{path.relative_to(home)}, its rows", _whole_of(path)


def _fetch_models(there: Installation, queue: Client) -> None:
    """Let a job and commands fetch files that only a key may have."""
    for version in (600, 601):
        there.civitai.add_file(
            safetensors(3_000, seed=version),
            version_id=version,
            file_id=version + 100,
            name=f"crane-{version}.safetensors",
        )
        there.civitai.login_needed.add(version)
    newest = there.civitai.models[500]["modelVersions"][0]
    newest["publishedAt"] = "2026-05-05T00:00:00.000Z"
    there.command("servers", "add", "--update", "comfy", "--models-from", "same")
    job = there.job("--server", "comfy", "--lora", "version:600")
    view = queue.wait(job, timeout=WITHIN_S)
    assert view.code == "not_delivered", "it is fetched, and the sandbox has folders of its own"
    for words in (
        "scan",
        "ls",
        "ls --json",
        "show crane-600",
        "show crane-600 --json",
        "resolve crane-600 --explain",
        f"identify {queue.models.file('crane-600').path}",
        "duplicates",
        "search",
        "fetch version:600",
        "fetch version:999999",
        "check-updates",
        "update crane-600 --direct",
        "downloads",
        "downloads --json",
        "tag crane-600 birds",
        "pin crane-600",
        "unpin crane-600",
        "rename crane-600 heron --yes",
        "rm heron --yes",
        "evict --to 1 --dry-run",
        "cache clear",
    ):
        there.command("models", *words.split())
    assert "crane-601" in there.said["stablequeue models update crane-600 --direct"]


def _live_through_everything(there: Installation, queue: Client) -> None:
    """Let jobs succeed, fail, be refused, time out, be cancelled and be parked."""
    new = there.canaries.new
    told = (
        f"cannot read https://me:{new('url')}@host/x?X-Amz-Signature={new('signature')}&size=2,"
        f" sent Authorization: Bearer {new('header')}, known {there.canaries.known['token']}"
    )
    there.comfy.faults.add("error", "step 1", body=told)
    there.forge.faults.add("hang", "GET /sdapi/v1/sd-models")
    failed = there.job("--server", "comfy")
    lacking = there.command("submit", "x", "--server", "comfy", "--checkpoint", "nowhere").split()[
        0
    ]
    good = there.job("--server", "forge")
    form = queue.session.api.deployment("generate/forge").id
    body = {"parameters": {"request": {"prompt": "x", "mode": "img2img"}}}
    path = f"deployments/{form}/create_flow_run"
    refused = str(queue.session.api.call("POST", path, body)["id"])
    ends = {failed: "failed", lacking: "failed", good: "completed", refused: "failed"}
    assert {job: queue.wait(job, timeout=WITHIN_S).state.value for job in ends} == ends
    assert "X-Amz-Signature=***" in there.command("show", failed), "the server's words arrive"

    there.comfy.faults.clear()
    _fetch_models(there, queue)
    there.comfy.faults.add("status", "*", status=401, body=told, times=-1)
    parked = there.job("--server", "comfy")
    wait_until(lambda: queue.job(parked).phase == "Parked", timeout_s=WITHIN_S, every_s=0.3)
    there.command("servers", "test")
    there.command("doctor")
    there.comfy.faults.clear()
    there.command("servers", "add", "--update", "comfy", "--store", "away")
    there.command("resume", "comfy")

    def parked_by_the_store() -> bool:
        now = queue.job(parked)
        return now.phase == "Parked" and "away" in now.message

    wait_until(parked_by_the_store, timeout_s=WITHIN_S, every_s=0.3)
    there.command("pause", "forge")
    there.command("drain", "forge")
    waits = there.job("--server", "forge")
    there.command("edit", waits, "steps=3")
    there.command("again", good)
    there.command("move", "--front", waits)
    there.command("retry", good)
    there.command("watch", good)
    there.command("images", "show", str(queue.pictures(good)[0].asset.id))
    for job in (parked, waits):
        there.command("cancel", job)
    for words in (
        "ls --all",
        "ls --json",
        f"show {parked} --json",
        "servers ls",
        "servers ls --json",
        "servers test --json",
        "images search",
        "images verify",
        "config show --origin",
        "config show --origin --json",
        "config example",
        "doctor --json",
        "ui --print",
        "clear --ended --dry-run",
        "servers rm comfy",
    ):
        there.command(*words.split())
    database = f"postgresql+psycopg://me:{new('database')}@127.0.0.1:9/x?password={new('query')}"
    for words in ("doctor", "config show --origin", "ls", "images search"):
        there.command(*words.split(), "--setting", f"catalogue_url={database}")


def test_nothing_secret_is_left_anywhere(installation: Installation, queue: Client) -> None:
    there = installation
    _save_servers(there, queue.session.api)
    _live_through_everything(there, queue)
    used = {name.split()[1] for name in there.said}
    used |= {" ".join(name.split()[1:3]) for name in there.said if name.split()[1] in GROUPS}
    everything = {*names(), *(f"{group} {name}" for group in GROUPS for name in names(group))}
    assert everything - used == {"up"}
    with closing(queue):
        there.stop()

    places = {**dict(_left_behind(there.home)), **there.said}
    for known, where in {
        "a harbour at dawn": {"catalogue.db, its rows", "prefect/prefect.db, its rows"},
        "SERVER→FORGE".encode().decode("latin-1"): {"logs/worker.log"},
        "SERVER→FORGE": {"prefect/prefect.db, its rows"},
        "signature=***": {"catalogue.db, its rows", "prefect/prefect.db, its rows"},
        "Ready.": {"stablequeue up"},
        "comfy": {"stablequeue servers ls --json", "stablequeue doctor", "stablequeue show"},
    }.items():
        for place in where:
            texts = [text for name, text in places.items() if name.startswith(place)]
            assert any(known.casefold() in text.casefold() for text in texts), (known, place)
    leaks = {
        place: found for place, text in places.items() if (found := there.canaries.found(text))
    }
    assert leaks == {}
