"""Moving and editing waiting jobs on a real Prefect server."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from stablequeue.catalogue import JobState, Outcome
from stablequeue.client import Client, ViewState, Which
from stablequeue.errors import BadRequest, NotFound, Refused
from stablequeue.prefect_api import NewRun, Run, StateType, run_filter
from stablequeue.sending import send_many
from stablequeue.views import PINNED
from tests.support.deployed import deploy

pytestmark = pytest.mark.prefect


def run_of(queue: Client, job_id: str) -> Run:
    """Return a job's run."""
    return queue.session.api.read_run(queue.session.catalogue.request(job_id).flow_run_id)


def submitted(queue: Client, server: str, names: str, **about: Any) -> list[str]:
    """Queue a job for each letter; return their ids."""
    requests = [{"prompt": name, "server": server, **about} for name in names]
    return [job.job_id for job in queue.submit_many(requests)]


def order(queue: Client, server: str) -> str:
    """Return the prompts of the waiting jobs in their order."""
    return "".join(job.prompt for job in queue.waiting(server=server))


def live_runs(queue: Client, job_id: str) -> list[Run]:
    """Return the runs of a job that have not ended."""
    runs = queue.session.api.runs(run_filter(tags_all=[f"job:{job_id}"]))
    return [run for run in runs if not run.final]


@pytest.fixture
def other(queue: Client) -> str:
    """Give another server."""
    name = f"gpu-{uuid4().hex[:12]}"
    deploy(queue.session.api, name)
    return name


def test_jobs_moved_to_the_front_keep_their_order_and_are_pinned(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "abcd")
    assert all(change.done for change in queue.move([ids[3], ids[1]], front=True))
    assert order(queue, alias) == "dbac"
    assert PINNED in run_of(queue, ids[1]).tags
    assert PINNED not in run_of(queue, ids[0]).tags


def test_the_first_job_moved_to_the_front_is_pinned_too(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "ab")
    queue.move_front(ids[0])
    assert PINNED in run_of(queue, ids[0]).tags
    assert order(queue, alias) == "ab"


def test_a_moved_run_keeps_what_its_state_says(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "ab")
    queue.session.api.reschedule(run_of(queue, ids[1]).id, "Parked", message="the disk is full")
    queue.move_front(ids[1])
    run = run_of(queue, ids[1])
    assert (run.state_name, run.state_message) == ("Parked", "the disk is full")


def test_a_job_moved_behind_another_stands_right_there(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "abcd")
    queue.move_front(ids[3])
    queue.move([ids[3]], after=ids[1])
    assert order(queue, alias) == "abdc"
    assert PINNED not in run_of(queue, ids[3]).tags
    queue.move([ids[0], ids[1]], after=ids[2])
    assert order(queue, alias) == "dcab"


def test_moving_behind_another_makes_room_where_there_is_none(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "abcde")
    start = datetime(2026, 1, 1, tzinfo=UTC)
    for number, job_id in enumerate(ids):
        queue.session.api.set_state(
            run_of(queue, job_id).id,
            StateType.SCHEDULED,
            "Queued",
            scheduled_time=start + timedelta(microseconds=number),
        )
    queue.move([ids[4], ids[3]], after=ids[0])
    assert order(queue, alias) == "aedbc"


def test_moving_behind_the_last_or_itself_is_fine(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "abc")
    queue.move([ids[0], ids[2]], after=ids[2])
    assert order(queue, alias) == "bca"


def test_a_job_does_not_stand_behind_one_of_another_tier_or_server(
    queue: Client, alias: str, other: str
) -> None:
    [here] = submitted(queue, alias, "a")
    [there] = submitted(queue, other, "b")
    [bulk] = submitted(queue, alias, "c", tier="bulk")
    with pytest.raises(Refused, match="--server first"):
        queue.move([here], after=there)
    with pytest.raises(Refused, match="--tier first"):
        queue.move([here], after=bulk)


def test_another_tier_keeps_the_place_and_changes_tag_parameter_and_row(
    queue: Client, alias: str
) -> None:
    ids = submitted(queue, alias, "abc", tags=["own"])
    before = run_of(queue, ids[0])
    queue.move([ids[0]], tier="bulk")
    queue.move([ids[2]], tier="interactive")
    assert order(queue, alias) == "cba"
    now = run_of(queue, ids[0])
    assert set(now.tags) == {*before.tags, "tier:bulk"} - {"tier:normal"}
    assert now.parameters["request"]["tier"] == "bulk"
    assert now.raw["next_scheduled_start_time"] == before.raw["next_scheduled_start_time"]
    assert queue.session.catalogue.request(ids[0]).request.tier.value == "bulk"
    assert "already" in queue.move([ids[0]], tier="bulk")[0].message


def test_a_job_sent_to_another_server_keeps_id_place_and_one_live_run(
    queue: Client, alias: str, other: str
) -> None:
    ids = submitted(queue, alias, "ab")
    submitted(queue, other, "z")
    old = run_of(queue, ids[0])
    [change] = queue.move([ids[0]], server=other)
    assert change.done
    [new] = live_runs(queue, ids[0])
    assert (new.pool, new.parameters["request"]["server"]) == (other, other)
    assert queue.session.api.read_run(old.id).state_type is StateType.CANCELLED
    assert order(queue, other) == "az"
    assert queue.job(ids[0]).state is ViewState.WAITING
    assert queue.session.catalogue.request(ids[0]).server == other
    queue.move([ids[0]], server=alias)
    assert len(live_runs(queue, ids[0])) == 1
    assert order(queue, alias) == "ab"


def test_clearing_the_list_takes_old_runs_away_and_leaves_their_job_alone(
    queue: Client, alias: str, other: str
) -> None:
    [job] = submitted(queue, alias, "a")
    old = run_of(queue, job)
    queue.move([job], server=other)
    assert queue.clear_ended(server=other) == []
    with pytest.raises(NotFound):
        queue.session.api.read_run(old.id)
    assert queue.session.catalogue.request(job).state is JobState.SENT
    assert order(queue, other) == "a"


def test_a_move_to_another_server_that_died_half_way_is_finished_by_whoever_sends(
    queue: Client, alias: str, other: str
) -> None:
    ids = submitted(queue, alias, "abc")
    catalogue, api = queue.session.catalogue, queue.session.api
    requests = {
        job_id: catalogue.request(job_id).request.model_copy(update={"server": other})
        for job_id in ids
    }
    rows = catalogue.redirect(requests, deployment=f"generate/{other}")
    api.cancel(rows[ids[1]].flow_run_id)  # died after this step,
    api.cancel(rows[ids[2]].flow_run_id)
    catalogue.forget_runs({ids[2]: rows[ids[2]].flow_run_id})  # or after that one
    for job_id in ids:
        assert queue.job(job_id).state is ViewState.WAITING
        assert len(live_runs(queue, job_id)) <= 1
    unsent = catalogue.unsent(older_than_s=0, limit=10)
    assert send_many(unsent, api=api, catalogue=catalogue) == {}
    assert order(queue, other) == "abc"
    assert [len(live_runs(queue, job_id)) for job_id in ids] == [1, 1, 1]


def test_a_job_on_its_way_to_another_server_can_be_cancelled(
    queue: Client, alias: str, other: str
) -> None:
    [job] = submitted(queue, alias, "a")
    catalogue, api = queue.session.catalogue, queue.session.api
    request = catalogue.request(job).request.model_copy(update={"server": other})
    row = catalogue.redirect({job: request}, deployment=f"generate/{other}")[job]
    api.cancel(row.flow_run_id)
    assert queue.cancel(job).done
    assert catalogue.request(job).state is JobState.CANCELLED
    assert catalogue.unsent(older_than_s=0, limit=10) == []


def test_a_job_that_has_begun_is_not_sent_to_another_server(
    queue: Client, alias: str, other: str
) -> None:
    [job] = submitted(queue, alias, "a")
    stored = queue.session.catalogue.request(job)
    queue.session.catalogue.start(
        stored.request,
        job_id=job,
        seed=stored.seed,
        server=alias,
        flow_run_id=stored.flow_run_id,
        deployment=stored.deployment,
    )
    [change] = queue.move([job], server=other)
    assert not change.done
    assert run_of(queue, job).pool == alias


def test_an_unknown_server_or_tier_is_refused_before_anything_moves(
    queue: Client, alias: str
) -> None:
    [job] = submitted(queue, alias, "a")
    with pytest.raises((BadRequest, NotFound)):
        queue.move([job], server="gpu-of-nobody")
    with pytest.raises(BadRequest, match="interactive, normal, bulk"):
        queue.move([job], tier="soon")
    assert run_of(queue, job).state_type is StateType.SCHEDULED


def test_editing_changes_run_and_row_alike(queue: Client, alias: str) -> None:
    [job] = submitted(queue, alias, "a", tags=["old"])
    queue.edit([job], {"prompt": "b", "hires.scale": 2, "tags": ["new"], "seed": 7, "tier": "bulk"})
    run, stored = run_of(queue, job), queue.session.catalogue.request(job)
    assert run.parameters["request"] == stored.data
    assert (stored.request.prompt, stored.request.hires.scale, stored.seed) == ("b", 2, 7)
    assert set(run.tags) == {f"job:{job}", f"server:{alias}", "tier:bulk", "new"}
    assert run.name.startswith("b · ")
    assert run.state_type is StateType.SCHEDULED


def test_a_wrong_edit_changes_nothing(queue: Client, alias: str) -> None:
    ids = submitted(queue, alias, "ab")
    for changes in ({"steps": 0}, {"stepps": 3}, {"server": "x"}, {"prompt.x": 1}):
        with pytest.raises(BadRequest):
            queue.edit(ids, changes)
    assert order(queue, alias) == "ab"
    assert "steps" not in run_of(queue, ids[0]).parameters["request"]


def test_a_run_made_in_prefects_pages_is_moved_and_edited(queue: Client, alias: str) -> None:
    made = NewRun(parameters={"request": {"positive_prompt": "f", "server": alias}}, tags=("x",))
    run = queue.session.api.create_run(f"generate/{alias}", made)
    queue.move([run.id], tier="bulk")
    queue.edit([run.id], {"prompt": "g"})
    now = queue.session.api.read_run(run.id)
    assert now.parameters == {
        "request": {"schema_version": 1, "prompt": "g", "server": alias, "tier": "bulk"}
    }
    assert {"x", "tier:bulk"} <= set(now.tags)


def test_a_job_that_began_meanwhile_is_left_alone(
    queue: Client, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = submitted(queue, alias, "ab")
    chosen = queue._choosing.these(ids)  # pyright: ignore[reportPrivateUsage]
    queue.session.api.set_state(run_of(queue, ids[0]).id, StateType.RUNNING, force=True)

    def as_before(_ids: list[str]) -> object:
        return chosen

    monkeypatch.setattr(queue._choosing, "these", as_before)  # pyright: ignore[reportPrivateUsage]
    changes = queue.move(ids, front=True)
    assert [change.done for change in changes] == [False, True]
    assert run_of(queue, ids[0]).state_type is StateType.RUNNING


def test_all_jobs_that_fit_are_moved(queue: Client, alias: str) -> None:
    submitted(queue, alias, "abc")
    submitted(queue, alias, "xyz", tags=["Night"])
    changes = queue.move(Which(tag="night", server=alias), front=True)
    assert len(changes) == 3
    assert order(queue, alias) == "xyzabc"
    queue.move(Which(text="B", server=alias), tier="interactive")
    assert order(queue, alias) == "bxyzac"
    assert queue.move(Which(server=alias, tag="nobody"), front=True) == []


def test_a_job_not_in_prefect_yet_changes_on_disk(alone: Client) -> None:
    job = alone.submit(prompt="a", server="gpu-a").job_id
    alone.move([job], tier="bulk")
    alone.edit([job], {"prompt": "b"})
    stored = alone.session.catalogue.request(job)
    assert (stored.request.prompt, stored.request.tier.value) == ("b", "bulk")
    assert not alone.move([job], front=True)[0].done


def test_an_ended_job_is_not_moved(queue: Client, alias: str) -> None:
    [job] = submitted(queue, alias, "a")
    queue.session.api.set_state(run_of(queue, job).id, StateType.COMPLETED, force=True)
    queue.session.catalogue.finish(job, Outcome(state=JobState.COMPLETED))
    with pytest.raises(Refused, match="only a job that waits"):
        queue.move([job], tier="bulk")


def test_a_tier_is_paused_on_every_server_or_on_one(queue: Client, alias: str, other: str) -> None:
    api = queue.session.api
    assert queue.pause(alias, tier="bulk") == [f"{alias} (bulk)"]
    assert {q.name for q in api.queues(alias) if q.paused} == {"bulk"}
    assert not any(q.paused for q in api.queues(other))
    assert queue.resume(alias, tier="bulk") == [f"{alias} (bulk)"]
    assert not any(q.paused for q in api.queues(alias))
    with pytest.raises(BadRequest):
        queue.pause(alias, tier="soon")


def test_draining_pauses_and_waits_for_what_runs(queue: Client, alias: str) -> None:
    running, waiting = submitted(queue, alias, "ab")
    api = queue.session.api
    api.set_state(run_of(queue, running).id, StateType.RUNNING, force=True)
    told: list[int] = []

    def end(left: int) -> None:
        told.append(left)
        if left:
            api.set_state(run_of(queue, running).id, StateType.COMPLETED, force=True)

    assert queue.drain(alias, on_left=end) == 0
    assert told == [1, 0]
    assert api.pool(alias).paused
    assert queue.job(waiting).state is ViewState.WAITING


def test_draining_gives_up_after_its_timeout(queue: Client, alias: str) -> None:
    [job] = submitted(queue, alias, "a")
    queue.session.api.set_state(run_of(queue, job).id, StateType.RUNNING, force=True)
    assert queue.drain(alias, timeout=0) == 1
    with pytest.raises(NotFound):
        queue.drain("gpu-of-nobody")
