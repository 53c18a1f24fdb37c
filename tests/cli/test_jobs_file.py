"""`submit --file`."""

import json
from pathlib import Path

import pytest

from stablequeue.client import Client
from stablequeue.settings import load
from tests.cli.conftest import Run


def write(folder: Path, *lines: object) -> Path:
    """Write a file with a line for each."""
    file = folder / "jobs.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("\n".join(texts) + "\n")
    return file


def accepted() -> list[str]:
    """Return the prompts of the accepted jobs, oldest first."""
    with Client(load()) as queue:
        return [str(row.data["prompt"]) for row in queue.session.catalogue.requests()][::-1]


def test_each_line_of_a_file_is_a_job_with_the_common_options(run: Run, tmp_path: Path) -> None:
    file = write(
        tmp_path,
        {"prompt": "a", "tags": ["own"], "hires": {"scale": 2}},
        "",
        {"from": "b\nSteps: 7, Seed: 3, Size: 64x64", "seed": 4},
    )
    ran = run("submit", "--file", file, "--tag", "all", "--tier", "bulk", "--set", "hires.steps=5")
    assert ran.code == 0
    with Client(load()) as queue:
        first, second = [queue.session.catalogue.request(one).request for one in ran.out.split()]
    assert (first.tags, first.tier.value) == (["own", "all"], "bulk")
    assert (first.hires.scale, first.hires.steps) == (2, 5)
    assert (second.prompt, second.steps, second.seed, second.width) == ("b", 7, 4, 64)


def test_a_bad_line_refuses_the_whole_file_and_is_named(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "a"}, "", {"prompt": "b", "tier": "soon"})
    ran = run("submit", "--file", file)
    assert ran.code == 2
    assert "line 3: tier" in ran.err
    assert "'interactive', 'normal' or 'bulk'" in ran.err
    assert accepted() == []


@pytest.mark.parametrize("line", ["{", "[1]", '{"prompt": NaN}', '{"from": 3}', "[" * 100_000])
def test_a_line_that_is_no_request_is_named(run: Run, tmp_path: Path, line: str) -> None:
    ran = run("submit", "--file", write(tmp_path, {"prompt": "a"}, line))
    assert ran.code == 2
    assert "line 2: " in ran.err
    assert accepted() == []


def test_bad_lines_can_be_left_out_and_are_reported(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, "{", {"prompt": "a"}, {"prompt": "b", "steps": 0}, {"prompt": "c"})
    ran = run("submit", "--file", file, "--skip-bad", "--json")
    assert ran.code == 1
    assert accepted() == ["a", "c"]
    assert [(one["line"], one["field"]) for one in ran.json["left_out"]] == [
        (1, "request"),
        (3, "steps"),
    ]
    assert [one["line"] for one in ran.json["jobs"]] == [2, 4]


def test_a_file_again_is_new_jobs_unless_it_is_resumed(run: Run, tmp_path: Path) -> None:
    file = write(tmp_path, {"prompt": "a"}, {"prompt": "a"})
    first = run("submit", "--file", file).out
    assert run("submit", "--file", file, "--resume").out == first
    second = run("submit", "--file", file).out
    assert second != first
    resumed = run("submit", "--file", file, "--resume")
    assert resumed.out == second
    assert "2 of 2 jobs were accepted before" in resumed.err
    assert len(accepted()) == 4


def test_a_file_never_submitted_is_not_resumed_but_submitted(run: Run, tmp_path: Path) -> None:
    ran = run("submit", "--file", write(tmp_path, {"prompt": "a"}), "--resume")
    assert ran.code == 0
    assert "not submitted before" in ran.err
    assert accepted() == ["a"]


def test_a_corrected_file_with_its_key_adds_what_is_missing(run: Run, tmp_path: Path) -> None:
    bad = write(tmp_path, {"prompt": "a"}, {"prompt": "b", "steps": 0})
    run("submit", "--file", bad, "--skip-bad", "--key", "night")
    good = write(tmp_path, {"prompt": "b", "steps": 1}, {"prompt": "a"})
    assert run("submit", "--file", good, "--key", "night").code == 0
    assert accepted() == ["a", "b"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["a prompt", "--file", "x"],
        ["--file", "x", "--wait"],
        ["--file", "x", "--key", "a", "--resume"],
        ["a prompt", "--key", "a"],
        ["--file", "there-is-none.jsonl"],
    ],
)
def test_options_that_do_not_fit_a_file_are_misuse(run: Run, arguments: list[str]) -> None:
    assert run("submit", *arguments).code == 2


def test_an_empty_file_is_refused(run: Run, tmp_path: Path) -> None:
    ran = run("submit", "--file", write(tmp_path, "", ""))
    assert ran.code == 2
    assert "no request" in ran.err
