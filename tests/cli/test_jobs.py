"""`ls`, `show`, `watch`, `cancel`, `retry`, `again`, `move`, `pause`, `resume`, `clear`."""

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest

from stablequeue.catalogue import AttemptState, JobState, NewAsset, Outcome
from stablequeue.client import Client
from stablequeue.engines.base import Kind, Ticket
from stablequeue.prefect_api import StateType
from stablequeue.settings import load
from stablequeue.storage import open_store
from tests.cli.conftest import Run

pytestmark = pytest.mark.prefect


def store_picture(queue: Client, job_id: str, folder: Path, content: bytes = b"pixels") -> None:
    """Record a picture of a job as the pipeline does; the file's bytes are no picture."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "made.png"
    file.write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    store = open_store(queue.settings)
    blob = store.put(file, f"2026-11-21/{sha256[:8]}.png", sha256=sha256, mime="image/png")
    catalogue = queue.session.catalogue
    attempt = catalogue.begin_attempt(
        job_id,
        0,
        server="gpu-a",
        engine="forge",
        make_ticket=lambda number: Ticket(engine="forge", remote_id=f"r{number}"),
    )
    catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
    catalogue.record_assets(
        attempt.id,
        [
            NewAsset(
                ordinal=0,
                kind=Kind.IMAGE,
                mime="image/png",
                sha256=sha256,
                size=len(content),
                width=64,
                height=64,
                store=store.name,
                key=blob.key,
                seed=7,
                server="gpu-a",
                infotext="a fox\nSteps: 2",
                models={"dream": "ab" * 32},
            )
        ],
    )


def end(queue: Client, job_id: str, state: JobState, kind: StateType, **about: Any) -> None:
    """End a job as its flow does: first the outcome, then the run's state."""
    queue.session.catalogue.finish(job_id, Outcome(state=state, **about))
    run = queue.session.catalogue.request(job_id).flow_run_id
    queue.session.api.set_state(run, kind, state.value.capitalize(), force=True)


def test_waiting_for_a_job_prints_where_its_pictures_are(
    run: Run, online: str, tmp_path: Path
) -> None:
    submitted = run("submit", "a", "--server", online).out.strip()

    def work() -> None:
        with Client(load()) as queue:
            store_picture(queue, submitted, tmp_path / "spool")
            end(queue, submitted, JobState.COMPLETED, StateType.COMPLETED, message="1 stored")

    worker = threading.Thread(target=work)
    worker.start()
    ran = run("watch", submitted[-8:], "--json")
    worker.join()
    assert ran.code == 0
    assert ran.json["job_id"] == submitted
    assert (ran.json["state"], ran.json["code"]) == ("completed", "")
    [file] = ran.json["files"]
    assert Path(file["path"]).read_bytes() == b"pixels"
    assert (file["seed"], file["sha256"]) == (7, hashlib.sha256(b"pixels").hexdigest())
    assert "Traceback" not in ran.err


def test_a_degraded_job_is_a_success_with_a_warning(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    with Client(load()) as queue:
        end(queue, job, JobState.DEGRADED, StateType.COMPLETED, message="no hires pass")
    ran = run("watch", job)
    assert ran.code == 0
    assert "warning: no hires pass" in ran.err


def test_a_failed_job_says_why_and_the_code_is_one(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    with Client(load()) as queue:
        end(
            queue,
            job,
            JobState.FAILED,
            StateType.FAILED,
            code="model_missing",
            message="there is no 'x'\x1b[2J",
        )
    ran = run("watch", job, "--json")
    assert ran.code == 1
    assert (ran.json["state"], ran.json["code"], ran.json["files"]) == (
        "failed",
        "model_missing",
        [],
    )
    assert "there is no 'x'\\x1b[2J" in ran.err
    shown = run("show", job)
    assert "model_missing" in shown.out
    assert "\x1b" not in shown.out


def test_ctrl_c_leaves_the_job_and_says_how_to_follow_it(
    run: Run, online: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "wait", pressed)
    ran = run("submit", "a", "--server", online, "--wait")
    assert ran.code == 130
    assert f"stablequeue watch {ran.out.strip()}" in ran.err
    assert run("ls", "--server", online, "--json").json[0]["state"] == "waiting"


def test_show_tells_request_attempts_and_files(run: Run, online: str, tmp_path: Path) -> None:
    job = run("submit", "a fox", "--server", online, "--steps", "3").out.strip()
    with Client(load()) as queue:
        store_picture(queue, job, tmp_path / "spool")
    data = run("show", job, "--json", "-v").json
    assert data["request"]["steps"] == 3
    assert [one["state"] for one in data["attempts"]] == ["stored"]
    assert data["files"][0]["kind"] == "image"
    assert data["log"] == []
    text = run("show", job).out
    assert "a fox" in text
    assert "stored" in text
    assert data["files"][0]["path"] in text


def test_the_list_and_show_say_that_the_server_is_paused(run: Run, online: str) -> None:
    job = run("submit", "a fox", "--server", online).out.strip()
    assert run("pause", online).code == 0
    assert f"{online} is paused" in run("ls", "--server", online).out
    assert f"{online} is paused" in run("show", job).out
    assert run("resume", online).code == 0
    assert "is paused" not in run("ls", "--server", online).out


def test_jobs_are_cancelled_retried_and_cleared(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    assert run("cancel", job).out == f"{job[-8:]} cancelled\n"
    again = run("cancel", job)
    assert again.code == 1
    assert "ended already" in again.out
    assert run("retry", job[-8:]).code == 0
    assert run("ls", "--server", online, "--json").json[0]["state"] == "waiting"
    would = run("clear", "--waiting", "--server", online, "--dry-run")
    assert (would.code, would.out) == (0, f"{job[-8:]} waiting: would be cancelled\n")
    assert run("clear", "--waiting", "--finished", "--server", online).code == 0
    assert run("ls", "--server", online, "--json").json == []
    [history] = run("ls", "--server", online, "--json", "--all").json
    assert history["state"] == "cancelled"
    assert run("clear", "--finished", "--server", online).out == "Nothing to clear.\n"


def test_a_finished_job_is_offered_again(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online, "--seed", "3").out.strip()
    with Client(load()) as queue:
        end(queue, job, JobState.COMPLETED, StateType.COMPLETED)
    refused = run("retry", job)
    assert refused.code == 1
    assert f"stablequeue again {job[-8:]}" in refused.err
    new = run("again", job[-8:], "--seed", "4", "--set", "steps=5").out.strip()
    with Client(load()) as queue:
        request = queue.session.catalogue.request(new).request
    assert (request.prompt, request.seed, request.steps) == ("a", 4, 5)


def test_one_refusal_does_not_stop_the_other_jobs(run: Run, online: str) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    ran = run("cancel", "ffffffff", job, "--json")
    assert ran.code == 1
    assert [one["done"] for one in ran.json] == [False, True]


def test_moving_to_the_front_keeps_the_order_named(run: Run, online: str) -> None:
    ids = [run("submit", name, "--server", online).out.strip() for name in "abc"]
    assert run("move", ids[2], ids[1], "--front").code == 0
    order = [job["job_id"] for job in run("ls", "--server", online, "--json").json]
    assert order == [ids[2], ids[1], ids[0]]


def test_a_server_is_paused_and_resumed(run: Run, online: str) -> None:
    assert run("pause", online).out == f"{online} paused\n"
    with Client(load()) as queue:
        assert queue.session.api.pool(online).paused
    assert run("resume", online, "--json").json == {"resumed": [online]}
    missing = run("pause", "nobody")
    assert missing.code == 1
    assert "stablequeue servers ls" in missing.err


def test_watching_the_queue_into_a_pipe_prints_each_change(
    run: Run, online: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = run("submit", "a", "--server", online).out.strip()
    rounds = iter(range(3))

    def nap(_: float) -> None:
        if next(rounds) == 1:
            raise KeyboardInterrupt
        with Client(load()) as queue:
            queue.cancel(job)

    monkeypatch.setattr("stablequeue.cli.look.time.sleep", nap)
    ran = run("watch", "--server", online)
    assert ran.code == 130
    assert [line.split()[:2] for line in ran.out.splitlines()] == [
        [job[-8:], "waiting"],
        [job[-8:], "cancelled"],
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["cancel"],
        ["cancel", "x", "--all"],
        ["cancel", "x", "--tag", "y"],
        ["retry"],
        ["move", "x"],
        ["clear"],
        ["again"],
    ],
)
def test_incomplete_commands_are_misuse(run: Run, arguments: list[str]) -> None:
    assert run(*arguments).code == 2
