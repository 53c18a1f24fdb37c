"""`models`: what is here, what a reference means, order, with a library in temporary folders."""

import hashlib
import io
import sys
from pathlib import Path

import pytest

from stablequeue.cli import models_care as commands
from stablequeue.client import Client
from stablequeue.client.model_needs import needed
from stablequeue.settings import load
from tests.cli.conftest import Run, Site
from tests.models.making import model


@pytest.fixture
def crane(run: Run, site: Site) -> Path:
    """A LoRA of the library, recorded."""
    path = model(site.loras / "sub" / "crane.safetensors", "crane", {"ss_output_name": "kirigami"})
    assert run("models", "scan", "-q").code == 0
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_scan_tells_what_is_new_moved_and_missing(run: Run, site: Site) -> None:
    one, two = (
        model(site.loras / "one.safetensors", "1"),
        model(site.loras / "two.safetensors", "2"),
    )
    first = run("models", "scan", "--json").json
    assert (first["files"], first["hashed"]) == (2, 2)
    assert set(first["added"]) == {str(one), str(two)}
    assert {folder["type"] for folder in first["folders"]} == {"lora", "checkpoint"}
    one.rename(site.loras / "uno.safetensors")
    two.unlink()
    ran = run("models", "scan")
    assert ran.out.splitlines()[0] == "1 models: 1 moved, 1 missing"
    assert "moved: " in ran.out
    assert run("models", "scan").out == "1 models, nothing new\n"
    assert [one["name"] for one in run("models", "ls", "--missing", "--json").json] == [
        "two.safetensors"
    ]


def test_a_scan_without_folders_says_how_to_name_them(run: Run, home: Path) -> None:
    del home
    ran = run("models", "scan")
    assert ran.code == 0
    assert "models.folders" in ran.err


def test_the_folders_of_the_environment_are_scanned(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model(tmp_path / "mine" / "a.safetensors", "a")
    monkeypatch.setenv("LORA_PATH", str(tmp_path / "mine"))
    monkeypatch.delenv("CHECKPOINT_PATH", raising=False)
    assert run("models", "scan", "--json").json["files"] == 1
    assert "a.safetensors  lora" in run("models", "ls").out


def test_models_are_listed_by_type_family_tag_and_use(run: Run, site: Site, crane: Path) -> None:
    model(site.checkpoints / "big.safetensors", "big")
    run("models", "scan", "-q")
    run("models", "tag", "crane", "paper", "birds")
    with Client(load()) as queue:
        queue.models.library.record_use([queue.models.file("big")])

    def names(*options: str) -> list[str]:
        return [one["name"] for one in run("models", "ls", *options, "--json").json]

    assert names("--type", "lora") == names("--tag", "PAPER") == ["sub/crane.safetensors"]
    assert names("kirigami") == names("--unused") == ["sub/crane.safetensors"]
    assert set(names()) == {"sub/crane.safetensors", "big.safetensors"}
    assert names("--family", "flux1") == []
    assert "birds, paper" in run("models", "ls", "crane").out
    assert run("models", "ls", "--type", "lorra").code == 2
    assert crane.exists()


def test_an_empty_library_says_what_to_do(run: Run, site: Site) -> None:
    del site
    assert "stablequeue models scan" in run("models", "ls").out
    ran = run("models", "show", "nothing")
    assert ran.code == 1
    assert ran.err.count("\n") == 1
    assert "stablequeue models ls" in ran.err


@pytest.mark.parametrize(
    "form", ["sub/crane", "sub\\crane.safetensors", "kirigami", "hash", "AUTO"]
)
def test_a_reference_in_any_form_means_the_file(run: Run, crane: Path, form: str) -> None:
    digits = sha256(crane)
    text = {"hash": f"sha256:{digits}", "AUTO": digits[:10].upper()}.get(form, form)
    ran = run("models", "resolve", text)
    assert (ran.code, ran.out) == (0, f"{crane}\n")
    data = run("models", "resolve", text, "--json").json
    assert (data["file"]["sha256"], data["suggestions"]) == (digits, [])


def test_resolving_explains_itself_and_never_guesses(run: Run, crane: Path) -> None:
    del crane
    ran = run("models", "resolve", "crame", "--explain")
    assert ran.code == 1
    assert "'crame' is read as a name." in ran.out
    assert "Did you mean: sub/crane.safetensors?" in ran.err
    assert run("models", "resolve", "crane", "--type", "vae").code == 1
    assert run("models", "resolve", "<lora:").code == 2


def test_identifying_tells_all_hashes_of_any_file(run: Run, tmp_path: Path) -> None:
    file = model(tmp_path / "elsewhere.safetensors", "x", {"ss_output_name": "\x1b[31mred"})
    data = run("models", "identify", file, "--json").json
    assert data["identities"]["sha256"] == sha256(file)
    assert data["metadata"]["ss_output_name"] == "\x1b[31mred"
    text = run("models", "identify", file).out
    assert sha256(file) in text
    assert "\x1b" not in text
    assert run("models", "identify", tmp_path / "none").code == 1


def test_duplicates_are_told_with_what_they_waste(run: Run, site: Site, crane: Path) -> None:
    copy = site.loras / "copy.safetensors"
    copy.write_bytes(crane.read_bytes())
    run("models", "scan", "-q")
    [group] = run("models", "duplicates", "--json").json
    assert set(group["paths"]) == {str(crane), str(copy)}
    assert group["wasted"] == crane.stat().st_size
    assert "could be freed" in run("models", "duplicates").out


def test_showing_tells_hashes_sidecars_and_what_civitai_says(
    run: Run, site: Site, crane: Path
) -> None:
    site.fake.add_file(crane.read_bytes(), name="crane.safetensors")
    crane.with_suffix(".json").write_text('{"activation text": "paper crane", "notes": "mine"}')
    run("models", "scan", "-q")
    data = run("models", "show", "crane", "--json").json
    assert data["sidecars"]["activation_text"] == "paper crane"
    assert data["civitai"]["versions"][0]["reference"] == "civitai:500@600"
    text = run("models", "show", "crane").out
    assert "civitai:500@600" in text
    assert sha256(crane) in text
    offline = run("models", "show", "crane", "--offline", "--json").json
    assert offline["civitai"] is None


def test_showing_works_while_civitai_does_not(run: Run, site: Site, crane: Path) -> None:
    del crane
    settings = Path(load().home) / "stablequeue.yaml"
    settings.write_text(settings.read_text().replace(site.url, "http://127.0.0.1:9"))
    ran = run("models", "show", "crane", "--setting", "sources.civitai.burst=5")
    assert ran.code == 0
    assert "note: civitai: " in ran.err
    assert "crane.safetensors" in ran.out


def test_tags_and_pins_stay_with_the_bytes(run: Run, crane: Path) -> None:
    assert run("models", "tag", "crane", "a", "b").out == "sub/crane.safetensors: a, b\n"
    assert run("models", "tag", "crane", "--remove", "a").out == "sub/crane.safetensors: b\n"
    assert run("models", "pin", "crane").code == 0
    crane.rename(crane.with_name("other.safetensors"))
    run("models", "scan", "-q")
    [found] = run("models", "ls", "other", "--json").json
    assert (found["tags"], found["pinned"]) == (["b"], True)
    refused = run("models", "rm", "other", "--yes")
    assert refused.code == 1
    assert "pinned" in refused.err
    assert run("models", "unpin", "other").code == 0
    assert run("models", "rm", "other", "--yes").code == 0
    assert run("models", "ls", "--json").json == []


def test_renaming_and_deleting_ask_first(
    run: Run, crane: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preview = crane.with_suffix(".preview.png")
    preview.write_bytes(b"x")
    for command in (["rename", "crane", "bird"], ["rm", "crane"]):
        ran = run("models", *command)
        assert ran.code == 1
        assert "--yes" in ran.err
    assert crane.exists()

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal("n\n"))
    assert "nothing was changed" in run("models", "rm", "crane").err
    monkeypatch.setattr(sys, "stdin", Terminal("y\n"))
    assert run("models", "rename", "crane", "sub/bird").out.endswith("bird.safetensors\n")
    assert not preview.exists()
    assert (crane.parent / "bird.preview.png").exists()
    assert run("models", "rename", "bird", "../../out", "--yes").code == 2
    gone = run("models", "rm", "bird", "--yes", "--json").json
    assert len(gone["deleted"]) == 2
    assert list(crane.parent.iterdir()) == []


def test_eviction_needs_a_size_and_somebody_who_knows_what_waits(run: Run, crane: Path) -> None:
    ran = run("models", "evict")
    assert ran.code == 2
    assert "--to" in ran.err
    assert run("models", "evict", "--to", "-1").code == 2
    # Without Prefect nobody knows what waiting jobs need: nothing is deleted.
    assert run("models", "evict", "--to", "0", "--yes").code == 1
    assert crane.exists()


@pytest.mark.prefect
def test_eviction_deletes_the_least_used_and_leaves_what_jobs_need(
    run: Run, site: Site, crane: Path, online: str
) -> None:
    used, free = (model(site.loras / f"{name}.safetensors", name) for name in ("used", "free"))
    run("models", "scan", "-q")
    job = run("submit", "a <lora:crane:1>", "--server", online)
    assert job.code == 0, job.err
    with Client(load()) as queue:
        queue.models.library.record_use([queue.models.file("used")])
    limit = (crane.stat().st_size + used.stat().st_size) / commands.GB
    dry = run("models", "evict", "--to", limit, "--dry-run", "--json").json
    assert dry["would_delete"] == [str(free)]
    assert dry["kept"] == [{"path": str(crane), "why": "a waiting job needs it"}]
    assert free.exists()
    assert run("models", "evict", "--to", limit, "--yes").code == 0
    assert not free.exists()
    short = run("models", "evict", "--to", "0", "--yes")
    assert short.code == 1
    assert "what is safe alone is larger" in short.out
    assert crane.exists()
    assert not used.exists()


def test_whatever_a_request_could_mean_is_needed(run: Run, site: Site, crane: Path) -> None:
    big = model(site.checkpoints / "a" / "big.safetensors", "big")
    run("models", "scan", "-q")
    with Client(load()) as queue:
        files = queue.models.files()
    for request in (
        {"checkpoint": "big"},
        {"checkpoint": "A\\BIG.safetensors [0123456789]"},
        {"checkpoint": f"sha256:{sha256(big)}"},
        {"checkpoint": sha256(big)[:10]},
        {"workflow": {"1": {"inputs": {"ckpt_name": "a\\big.safetensors"}}}},
    ):
        assert needed([request], files) == {str(big)}, request
    for request in (
        {"prompt": "a bird <lora:crane:0.5>"},
        {"loras": [{"name": "kirigami"}]},
    ):
        assert needed([request], files) == {str(crane)}, request
    assert needed([{"prompt": "big cranes", "checkpoint": ""}], files) == set()
