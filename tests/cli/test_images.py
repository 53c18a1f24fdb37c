"""`images search`, `images show`, `images verify`, on a catalogue without Prefect."""

from pathlib import Path

import pytest

from stablequeue.client import Client
from stablequeue.settings import load
from tests.cli.conftest import Run
from tests.cli.test_jobs import store_picture


@pytest.fixture
def job(run: Run, tmp_path: Path) -> str:
    """Return a job with a stored picture."""
    job_id = run("submit", "a red fox", "--tag", "mine").out.strip()
    with Client(load()) as queue:
        store_picture(queue, job_id, tmp_path / "spool")
    return job_id


def test_pictures_are_found_by_words_model_tag_and_time(run: Run, job: str) -> None:
    for options in (["fox"], ["re*"], ["--model", "dream"], ["--tag", "MINE"], ["--since", "1h"]):
        [found] = run("images", "search", *options, "--json").json
        assert found["job_id"] == job
    for options in (["cat"], ["--model", "other"], ["--until", "1h"], ["--kind", "video"]):
        assert run("images", "search", *options).out == "No picture fits.\n"


def test_hostile_searches_are_only_searches(run: Run, job: str) -> None:
    del job
    for text in ('"', "a AND (", "*", "';drop table", "\x00"):
        assert run("images", "search", text).code == 0


def test_a_picture_shows_everything(run: Run, job: str) -> None:
    [found] = run("images", "search", "--json").json
    data = run("images", "show", found["sha256"][:8], "--json").json
    assert (data["id"], data["infotext"]) == (found["id"], "a fox\nSteps: 2")
    text = run("images", "show", found["id"]).out
    assert job in text
    assert "Steps: 2" in text
    assert run("images", "show", "999999").code == 1


def test_verifying_tells_missing_and_changed_files(run: Run, job: str) -> None:
    del job
    [found] = run("images", "search", "--json").json
    assert run("images", "verify").out == "1 whole, 0 damaged, 0 missing\n"
    file = Path(found["path"])
    file.chmod(0o644)
    file.write_bytes(b"other")
    damaged = run("images", "verify", "--json")
    assert damaged.code == 1
    assert (damaged.json["damaged"], damaged.json["bad"][0]["condition"]) == (1, "damaged")
    file.unlink()
    missing = run("images", "verify", found["id"])
    assert missing.code == 1
    assert f"missing: {file}" in missing.out
