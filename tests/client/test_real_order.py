"""The order in which waiting jobs are taken, from what the worker host wrote."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from stablequeue.client.real_order import HostState, host_state, really
from stablequeue.prefect_api import Run, StateType
from stablequeue.views import JobView, in_order, view
from stablequeue.wanting import WAITING, lacks_tag
from stablequeue.worker.state_file import STATE_FILE as FILE

START = datetime(2026, 11, 20, tzinfo=UTC)


def runs(*checkpoints: str, pool: str = "gpu-a", **about: Any) -> dict[str, Run]:
    """Return waiting runs in this order, by job id."""
    made: dict[str, Run] = {}
    for number, checkpoint in enumerate(checkpoints):
        job_id = f"{pool}-{number}"
        made[job_id] = Run.from_json(
            {
                "id": f"run-{job_id}",
                "name": job_id,
                "state_type": StateType.SCHEDULED.value,
                "work_pool_name": pool,
                "parameters": {
                    "job_id": job_id,
                    "request": {"checkpoint": checkpoint, "prompt": str(number)},
                },
                "next_scheduled_start_time": (START + timedelta(seconds=number)).isoformat(),
                "created": START.isoformat(),
                **about,
            }
        )
    return made


def views(*groups: dict[str, Run]) -> list[JobView]:
    """Return them as a list shows them."""
    return in_order([view(None, None, run) for group in groups for run in group.values()])


def written(folder: Path, **about: Any) -> HostState:
    """Read what a host wrote that has one checkpoint loaded."""
    servers = {"gpu-a": {"loaded": ["b"], "holds": 1, "swap_s": {"a": 8.0}, "picture_s": 1.0}}
    data = {"servers": servers, "overtaken": {}, "skipped": {}, "written": 1.0, **about}
    (folder / FILE).write_text(json.dumps(data))
    return host_state(folder)


def shown(found: list[JobView]) -> str:
    return "".join(job.prompt for job in found)


def test_jobs_of_the_loaded_checkpoint_come_first_and_say_so(tmp_path: Path) -> None:
    made = runs("a", "b", "a", "b")
    found = really(views(made), made, written(tmp_path), server="gpu-a", limit=50)
    assert shown(found) == "1302"
    assert "loaded" in found[0].why


def test_however_a_job_spells_its_checkpoint_it_is_the_one_that_is_loaded(tmp_path: Path) -> None:
    made = runs("a.safetensors", "sub dir\\B.safetensors [31e35c80fc]", "b", "other/b.ckpt")
    found = really(views(made), made, written(tmp_path), server="gpu-a", limit=50)
    assert shown(found) == "1230"


def test_a_job_moved_to_the_front_is_not_overtaken(tmp_path: Path) -> None:
    made = runs("a", "b") | {"p": runs("a", tags=["pinned"], id="run-p")["gpu-a-0"]}
    found = really(views(made), made, written(tmp_path), server="gpu-a", limit=50)
    assert found[0].why == "moved to the front"


def test_a_job_its_server_skips_comes_last_and_says_why(tmp_path: Path) -> None:
    made = runs("b", "b")
    skipped = {"run-gpu-a-0": {"gpu-a": "no such model"}}
    state = written(tmp_path, skipped=skipped)
    found = really(views(made), made, state, server="", limit=50)
    assert shown(found) == "10"
    assert found[1].why == "not on gpu-a: no such model"


def test_jobs_that_name_what_another_waits_for_come_last_and_say_so(tmp_path: Path) -> None:
    later = (datetime.now(UTC) + timedelta(minutes=4)).isoformat()
    tags = [lacks_tag("gpu-a", "a")]
    made = runs("a", "c") | {
        "w": runs("a", id="run-w", tags=tags, next_scheduled_start_time=later, state_name=WAITING)[
            "gpu-a-0"
        ]
    }
    made["w"] = replace(made["w"], parameters={**made["w"].parameters, "job_id": "w"})
    found = really(views(made), made, written(tmp_path), server="gpu-a", limit=50)
    assert [job.job_id for job in found] == ["gpu-a-1", "gpu-a-0", "w"]
    assert found[1].why == "another job waits for a model that it names, too"
    assert found[2].why == "", "it looks again by itself, and is woken before"


def test_a_job_that_is_due_later_says_when_and_is_not_next(tmp_path: Path) -> None:
    made = runs("b", "b")
    when = datetime.now(UTC) + timedelta(minutes=5)
    asked = {"job_id": "later", "request": {"checkpoint": "b", "prompt": "2"}}
    about = {"next_scheduled_start_time": when.isoformat(), "id": "run-later"}
    made["later"] = runs("b", parameters=asked, **about)["gpu-a-0"]
    found = really(views(made), made, written(tmp_path), server="gpu-a", limit=50)
    assert found[2].due == when
    assert found[2].why == f"not before {when.astimezone():%Y-%m-%d %H:%M}"
    assert all("not before" not in job.why for job in found[:2])
    without_a_host = really(views(made), made, HostState(), server="gpu-a", limit=50)
    assert without_a_host[2].why == found[2].why


def test_each_server_keeps_its_lines_in_the_whole_list(tmp_path: Path) -> None:
    here, there = runs("a", "b"), runs("x", "y", pool="gpu-b")
    made = here | there
    before = views(here, there)
    found = really(before, made, written(tmp_path), server="", limit=50)
    assert [job.pool for job in found] == [job.pool for job in before]
    assert shown([job for job in found if job.pool == "gpu-a"]) == "10"
    assert shown([job for job in found if job.pool == "gpu-b"]) == "01"


def test_a_server_in_quarantine_is_said(tmp_path: Path) -> None:
    made = runs("b")
    servers = {"gpu-a": {"quarantined": "three faults in a row"}}
    [job] = really(views(made), made, written(tmp_path, servers=servers), server="", limit=5)
    assert job.why == "gpu-a takes nothing now: three faults in a row"


def test_a_job_that_waits_for_its_server_to_come_back_is_not_called_next(tmp_path: Path) -> None:
    away = {"type": "SCHEDULED", "name": "Waiting for server", "message": "no answer"}
    made = runs("b", state=away)
    [job] = really(views(made), made, written(tmp_path), server="", limit=5)
    assert (job.message, job.why) == ("no answer", "")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"servers": 3, "overtaken": [], "skipped": {"r": 1}}',
        '{"servers": {"gpu-a": {"loaded": 1, "holds": "x", "swap_s": {"a": null}}}}',
        '{"overtaken": {"r": "x", "s": -1, "t": true, "u": NaN}}',
        "[" * 100_000,
    ],
)
def test_damaged_knowledge_is_no_knowledge(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    made = runs("a", "b")
    found = really(views(made), made, host_state(tmp_path), server="", limit=50)
    assert {job.prompt for job in found} == {"0", "1"}


def test_without_a_host_jobs_stand_by_tier_and_place(tmp_path: Path) -> None:
    made = runs("a", "b")
    found = really(views(made), made, host_state(tmp_path), server="", limit=50)
    assert found == views(made)
