"""`move`, `edit`, `pause`, `resume`, `drain` for many jobs."""

from uuid import uuid4

import pytest

from stablequeue.client import Client
from stablequeue.settings import load
from tests.cli.conftest import Run
from tests.support.deployed import deploy


def submitted(run: Run, server: str, *names: str) -> list[str]:
    """Queue a job for each name."""
    return [run("submit", name, "--server", server, "--tag", "t").out.strip() for name in names]


def order(run: Run, server: str) -> str:
    """Return the prompts in the order of the list."""
    return "".join(job["prompt"] for job in run("ls", "--server", server, "--json").json)


@pytest.mark.prefect
def test_a_job_is_moved_behind_another_and_to_another_tier(run: Run, online: str) -> None:
    ids = submitted(run, online, "a", "b", "c")
    assert run("move", ids[0], "--after", ids[1][-8:]).code == 0
    assert order(run, online) == "bac"
    moved = run("move", ids[2], "--tier", "interactive")
    assert (moved.code, moved.out) == (0, f"{ids[2][-8:]} is interactive now\n")
    assert order(run, online) == "cba"


@pytest.mark.prefect
def test_a_job_is_sent_to_another_server(run: Run, online: str) -> None:
    other = f"gpu-{uuid4().hex[:12]}"
    with Client(load()) as queue:
        deploy(queue.session.api, other)
    [job] = submitted(run, online, "a")
    assert run("move", job, "--server", other).code == 0
    assert order(run, other) == "a"
    assert run("move", "--server", other, "--to-server", online).code == 0
    assert order(run, online) == "a"


@pytest.mark.prefect
def test_many_jobs_are_changed_only_when_somebody_says_yes(run: Run, online: str) -> None:
    submitted(run, online, "a", "b")
    would = run("move", "--server", online, "--to-tier", "bulk", "--dry-run", "--json")
    assert would.json["count"] == 2
    refused = run("move", "--server", online, "--to-tier", "bulk")
    assert refused.code == 1
    assert "2 waiting jobs fit" in refused.err
    assert run("ls", "--server", online, "--json").json[0]["tier"] == "normal"
    assert run("move", "--server", online, "--to-tier", "bulk", "--yes").code == 0
    changed = run("edit", "--tier", "bulk", "--server", online, "steps=9", "hires.scale=2", "--yes")
    assert changed.code == 0
    job = run("show", run("ls", "--server", online, "--json").json[0]["job_id"], "--json").json
    assert (job["tier"], job["request"]["steps"], job["request"]["hires"]) == (
        "bulk",
        9,
        {"scale": 2.0},
    )
    assert run("edit", "--tag", "nobody", "steps=9").out == "No waiting job fits.\n"


@pytest.mark.prefect
def test_a_wrong_edit_says_what_is_allowed(run: Run, online: str) -> None:
    [job] = submitted(run, online, "a")
    wrong = run("edit", job, "tier=soon")
    assert wrong.code == 2
    assert "'interactive', 'normal' or 'bulk'" in wrong.err
    assert "stablequeue move" in run("edit", job, "server=x").err


@pytest.mark.prefect
def test_a_tier_is_paused_and_a_server_drained(run: Run, online: str) -> None:
    assert run("pause", online, "--tier", "bulk").out == f"{online} (bulk) paused\n"
    assert run("resume", online, "--tier", "bulk", "--json").json == {
        "resumed": [f"{online} (bulk)"]
    }
    drained = run("drain", online, "--timeout", "5")
    assert drained.code == 0
    assert f"stablequeue resume {online}" in drained.out
    with Client(load()) as queue:
        assert queue.session.api.pool(online).paused


@pytest.mark.parametrize(
    "arguments",
    [
        ["move", "x"],
        ["move", "--front"],
        ["move", "x", "--front", "--after", "y"],
        ["move", "x", "--tag", "t", "--front"],
        ["edit", "x"],
        ["edit", "steps=3"],
        ["edit", "x", ".=3"],
        ["pause", "x", "--all"],
        ["drain"],
    ],
)
def test_unclear_changes_are_misuse(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2
