"""Submitting many jobs at once."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from stablequeue.catalogue import JobState, StoredRequest
from stablequeue.client import Client
from stablequeue.errors import BadRequest, PrefectRefused
from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType
from stablequeue.sending import send_many
from stablequeue.up.caretaker import Caretaker

needs_prefect = pytest.mark.prefect


def prompts(count: int, **about: Any) -> list[dict[str, Any]]:
    """Return requests that differ in their prompt."""
    return [{"prompt": f"picture {number}", **about} for number in range(count)]


def runs_of(queue: Client, rows: Sequence[StoredRequest]) -> list[Run]:
    """Return the runs of jobs, in the jobs' order."""
    return [queue.session.api.read_run(row.flow_run_id) for row in rows]


class Faulty(PrefectApi):
    """Prefect's API, in whose bulk answers some runs are missing at first."""

    faults = 1

    def create_runs(
        self, deployment: str | Deployment, new: Sequence[NewRun]
    ) -> list[str | PrefectRefused]:
        """Refuse one run, and say of another that it was made although it was rolled back."""
        answers = super().create_runs(deployment, new)
        if self.faults and len(new) > 2:
            self.faults -= 1
            self.delete_run(str(answers[1]))
            self.delete_run(str(answers[2]))
            answers[1] = PrefectRefused("Can't operate on closed transaction")
        return answers


@needs_prefect
def test_many_jobs_become_runs_in_their_order(queue: Client, alias: str) -> None:
    told: list[tuple[int, int]] = []
    jobs = queue.submit_many(
        prompts(120, tags=["own"]),
        server=alias,
        tags=["all"],
        on_progress=lambda accepted, sent: told.append((accepted, sent)),
    )
    assert [job.note for job in jobs] == [""] * 120
    assert told[0] == (120, 0)
    assert told[-1] == (120, 120)
    rows = queue.session.catalogue.requests_by_id(job.job_id for job in jobs)
    assert {row.state for row in rows.values()} == {JobState.SENT}
    seen = queue.jobs(server=alias, limit=200)
    assert [job.job_id for job in seen] == [job.job_id for job in jobs]
    assert seen[0].tags == ("own", "all")
    [last] = runs_of(queue, [rows[jobs[-1].job_id]])
    assert last.idempotency_key == jobs[-1].job_id


@needs_prefect
def test_a_run_that_prefect_refuses_or_loses_is_made_again(queue: Client, alias: str) -> None:
    session = queue.session
    away = session.settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    with Client(away) as alone:
        jobs = alone.submit_many(prompts(5, server=alias))
    rows = session.catalogue.requests_by_id(job.job_id for job in jobs)
    wanted = [rows[job.job_id] for job in jobs]
    user, _, password = session.settings.prefect_auth.get_secret_value().partition(":")
    with Faulty(session.api.url, f"{user}:{password}") as faulty:
        assert send_many(wanted, api=faulty, catalogue=session.catalogue) == {}
        assert faulty.faults == 0
    assert [job.job_id for job in queue.jobs(server=alias)] == [job.job_id for job in jobs]


@needs_prefect
async def test_what_a_killed_submission_accepted_is_sent_by_up(
    queue: Client, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As if the process were gone: nothing after it happens."""

    def kill(accepted: int, sent: int) -> None:
        if accepted == 8 and not sent:
            raise Killed

    with pytest.raises(Killed):
        queue.submit_many(prompts(8), key="k", server=alias, on_progress=kill)
    assert len(queue.session.catalogue.unsent(older_than_s=0, limit=20)) == 8
    monkeypatch.setattr("stablequeue.up.caretaker.UNSENT_AFTER_S", 0.0)
    await Caretaker(queue.session.catalogue, queue.session.api).send_accepted()
    again = queue.submit_many(prompts(10), key="k", server=alias)
    assert [job.new for job in again] == [False] * 8 + [True] * 2
    assert [job.job_id for job in queue.jobs(server=alias)] == [job.job_id for job in again]


@needs_prefect
def test_a_job_that_ran_meanwhile_is_not_sent_again(queue: Client, alias: str) -> None:
    session = queue.session
    with Client(
        session.settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    ) as alone:
        [job] = alone.submit_many(prompts(1, server=alias))
    stale = session.catalogue.request(job.job_id)
    assert send_many([stale], api=session.api, catalogue=session.catalogue) == {}
    run = session.catalogue.request(job.job_id).flow_run_id
    session.api.set_state(run, StateType.COMPLETED, force=True)
    assert send_many([stale], api=session.api, catalogue=session.catalogue) == {}
    assert session.catalogue.request(job.job_id).flow_run_id == run
    keys = {"any_": [job.job_id, f"{job.job_id}/2"]}
    assert len(session.api.runs({"flow_runs": {"idempotency_key": keys}})) == 1


@needs_prefect
def test_jobs_of_a_server_without_a_deployment_do_not_hold_up_the_others(
    queue: Client, alias: str
) -> None:
    session = queue.session
    with Client(
        session.settings.model_copy(update={"prefect_api_url": "http://127.0.0.1:9/api"})
    ) as alone:
        lost, good = alone.submit_many(
            [{"prompt": "a", "server": "gpu-of-nobody"}, {"prompt": "b", "server": alias}]
        )
    rows = session.catalogue.unsent(older_than_s=0, limit=10)
    refused = send_many(rows, api=session.api, catalogue=session.catalogue)
    assert list(refused) == [lost.job_id]
    assert session.catalogue.request(good.job_id).state is JobState.SENT


def test_one_bad_request_refuses_all_and_nothing_is_kept(alone: Client) -> None:
    with pytest.raises(BadRequest) as refused:
        alone.submit_many([*prompts(3), {"prompt": "a", "width": 513}])
    assert refused.value.field == "requests.3.width"
    assert alone.session.catalogue.requests() == []


def test_bad_requests_can_be_left_out(alone: Client) -> None:
    bad: list[tuple[int, str]] = []
    jobs = alone.submit_many(
        [{"prompt": "a", "stepps": 3}, {"prompt": "b"}, {"prompt": "c", "key": ""}],
        on_bad=lambda position, error: bad.append((position, error.field)),
    )
    assert bad == [(0, "stepps"), (2, "key")]
    assert [alone.session.catalogue.request(job.job_id).data["prompt"] for job in jobs] == ["b"]


def test_submitting_again_with_a_key_adds_only_what_is_missing(alone: Client) -> None:
    same = {"prompt": "same"}
    first = alone.submit_many([same, {"prompt": "a"}, same], key="k")
    again = alone.submit_many([{"prompt": "new"}, same, same, same, {"prompt": "a"}], key="k")
    assert len({job.job_id for job in first}) == 3
    assert [job.new for job in again] == [True, False, False, True, False]
    assert len(alone.session.catalogue.requests()) == 5
    assert {job.new for job in alone.submit_many([same], key="other")} == {True}


def test_a_requests_own_key_stands_for_its_content(alone: Client) -> None:
    [first] = alone.submit_many([{"prompt": "a", "key": "1"}])
    second, third = alone.submit_many([{"prompt": "b", "key": "1"}, {"prompt": "a", "key": "2"}])
    assert (second.job_id, second.new) == (first.job_id, False)
    assert third.new
    assert alone.session.catalogue.request(first.job_id).data["prompt"] == "a"


def test_without_a_key_every_submission_makes_new_jobs(alone: Client) -> None:
    one = alone.submit_many(prompts(2))
    two = alone.submit_many(prompts(2))
    assert len({job.job_id for job in [*one, *two]}) == 4


def test_a_picture_many_jobs_start_from_is_kept_once(alone: Client, tmp_path: Path) -> None:
    picture = tmp_path / "start.png"
    Image.new("RGB", (16, 16)).save(picture)
    jobs = alone.submit_many(prompts(3, mode="img2img", init_image=str(picture)))
    rows = alone.session.catalogue.requests_by_id(job.job_id for job in jobs)
    assert len({row.data["init_image"] for row in rows.values()}) == 1
    assert all(row.data["init_image"].startswith("sha256:") for row in rows.values())
