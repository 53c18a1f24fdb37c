"""What an ended download means to a job that wants its file."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from stablequeue import modelwait
from stablequeue.errors import NotFetched
from stablequeue.modelwait import refuse_what_failed
from tasks import download as task

MISSING = SimpleNamespace(name="a.safetensors")


def job(*_: object) -> Any:
    async def phase(*_: str) -> None: ...

    server = SimpleNamespace(alias="gpu")
    return SimpleNamespace(
        missing=MISSING, wait=None, phase=phase, job=SimpleNamespace(server=server)
    )


@pytest.mark.parametrize(
    ("problem", "fetched", "looked_again", "refused"),
    [
        ("", False, False, False),
        ("it cannot be fetched", False, False, True),
        ("it was fetched and is not there", True, False, False),
        ("it was fetched and is not there", True, True, True),
    ],
)
async def test_a_file_that_came_meanwhile_is_looked_for_once_more_before_the_job_fails(
    monkeypatch: pytest.MonkeyPatch,
    problem: str,
    *,
    fetched: bool,
    looked_again: bool,
    refused: bool,
) -> None:
    def became(*_: object) -> tuple[str, bool]:
        return problem, fetched

    monkeypatch.setattr(modelwait, "_problem", became)
    asking = refuse_what_failed(job(), (), looked_again=looked_again)
    if refused:
        with pytest.raises(NotFetched, match=problem):
            await asking
    else:
        assert await asking is bool(problem)


async def test_a_download_that_ends_while_the_job_looks_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = job()
    plans = [SimpleNamespace(fetch=("file",), here=()), SimpleNamespace(fetch=(), here=("file",))]
    used: list[object] = []

    async def plan(*_: object) -> Any:
        return plans.pop(0)

    async def use(_job: object, here: object) -> None:
        used.append(here)

    async def over(*_: object, looked_again: bool) -> bool:
        assert not looked_again
        return True

    monkeypatch.setattr(task, "plan", plan)
    monkeypatch.setattr(task, "use", use)
    monkeypatch.setattr(task, "refuse_what_failed", over)
    monkeypatch.setattr(task, "earlier", job)
    await cast("Any", task.obtain).fn(run)
    assert (run.wait, run.missing, used) == (None, None, [("file",)])
