"""The client against the Prefect server we start: what each call really does there."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from stablequeue.errors import NotFound, PrefectRefused
from stablequeue.prefect_api import Deployment, NewRun, PrefectApi, Run, StateType, run_filter
from tests.support.prefect_rows import make_deployment

pytestmark = [pytest.mark.prefect, pytest.mark.timeout(180)]
MISSING_RUN = "00000000-0000-0000-0000-000000000000"


@pytest.fixture
def target(prefect_api: PrefectApi) -> Deployment:
    return make_deployment(prefect_api)


def _running(api: PrefectApi, target: Deployment) -> Run:
    run = api.create_run(target, NewRun(parameters={}))
    assert api.set_state(run.id, StateType.PENDING).accepted
    assert api.set_state(run.id, StateType.RUNNING).accepted
    return run


def test_a_run_carries_all_it_was_given(prefect_api: PrefectApi, target: Deployment) -> None:
    when = datetime.now(UTC) + timedelta(hours=1)
    key = uuid4().hex
    made = prefect_api.create_run(
        target,
        NewRun(
            parameters={"request": {"prompt": "a {{ cat }} ü"}},
            idempotency_key=key,
            name="a cat · gpu-a",
            tags=("one", "two"),
            scheduled_time=when,
        ),
    )
    run = prefect_api.read_run(made.id)
    assert (run.name, run.state_type, run.state_name) == (
        "a cat · gpu-a",
        StateType.SCHEDULED,
        "Queued",
    )
    assert run.parameters == {"request": {"prompt": "a {{ cat }} ü"}}
    assert set(run.tags) == {"one", "two"}
    assert (run.pool, run.queue, run.deployment_id) == (target.pool, "default", target.id)
    assert run.expected_start == when
    assert run.idempotency_key == key
    assert made.was_new


def test_creating_twice_with_one_key_is_one_run(
    prefect_api: PrefectApi, target: Deployment
) -> None:
    new = NewRun(parameters={}, idempotency_key=uuid4().hex)
    first = prefect_api.create_run(target, new)
    second = prefect_api.create_run(target, new)
    assert second.id == first.id
    assert (first.was_new, second.was_new) == (True, False)


def test_a_key_used_on_another_server_is_refused_because_keys_are_per_flow(
    prefect_api: PrefectApi,
) -> None:
    flow = f"flow-{uuid4().hex[:8]}"
    one, other = make_deployment(prefect_api, flow=flow), make_deployment(prefect_api, flow=flow)
    new = NewRun(parameters={}, idempotency_key=uuid4().hex)
    prefect_api.create_run(one, new)
    with pytest.raises(PrefectRefused, match="another server already"):
        prefect_api.create_run(other, new)
    assert prefect_api.count_runs(run_filter(idempotency_keys=[new.idempotency_key])) == 1


def test_parameters_that_do_not_fit_are_refused_with_the_reason(prefect_api: PrefectApi) -> None:
    schema: dict[str, object] = {
        "type": "object",
        "properties": {"steps": {"type": "integer"}},
        "required": ["steps"],
    }
    target = make_deployment(prefect_api, schema=schema)
    with pytest.raises(PrefectRefused, match=r"409.*is not of type 'integer'"):
        prefect_api.create_run(target, NewRun(parameters={"steps": "many"}))


def test_parameters_that_are_checked_already_are_not_compared_with_the_schema(
    prefect_api: PrefectApi,
) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"n": {"type": "integer"}}}
    target = make_deployment(prefect_api, schema=schema)
    new = NewRun(parameters={"n": "x"}, checked=True)
    assert prefect_api.create_run(target, new).parameters == {"n": "x"}
    [made] = prefect_api.create_runs(target, [new])
    assert isinstance(made, str)


def test_a_deployment_that_is_not_there_is_not_found(prefect_api: PrefectApi) -> None:
    with pytest.raises(NotFound, match="no deployment generate/nowhere"):
        prefect_api.create_run("generate/nowhere", NewRun(parameters={}))


def test_many_runs_come_in_order_and_bad_ones_are_told(prefect_api: PrefectApi) -> None:
    schema: dict[str, object] = {"type": "object", "properties": {"n": {"type": "integer"}}}
    target = make_deployment(prefect_api, schema=schema)
    start = datetime.now(UTC)
    new = [
        NewRun(parameters={"n": number}, scheduled_time=start + timedelta(milliseconds=number))
        for number in range(105)
    ]
    new[103] = NewRun(parameters={"n": "x"})
    made = prefect_api.create_runs(target, new)
    assert [type(item) for item in made].count(str) == 104
    assert isinstance(made[103], PrefectRefused)
    found = prefect_api.runs(run_filter(pools=[target.pool]), sort="EXPECTED_START_TIME_ASC")
    assert [run.parameters["n"] for run in found] == [n for n in range(105) if n != 103]


def test_runs_are_found_by_what_they_are(prefect_api: PrefectApi, target: Deployment) -> None:
    tag = uuid4().hex
    waiting = prefect_api.create_run(target, NewRun(parameters={}, tags=(tag, "a")))
    running = _running(prefect_api, target)

    def found(**conditions: Any) -> set[str]:
        filters = run_filter(pools=[target.pool], **conditions)
        runs = prefect_api.runs(filters)
        assert prefect_api.count_runs(filters) == len(runs)
        return {run.id for run in runs}

    assert found() == {waiting.id, running.id}
    assert found(states=[StateType.RUNNING]) == {running.id}
    assert found(state_names=["Queued"]) == {waiting.id}
    assert found(tags_all=[tag, "a"]) == {waiting.id}
    assert found(tags_any=[tag, "zzz"]) == {waiting.id}
    assert found(ids=[running.id]) == {running.id}
    assert found(deployments=[target.name], queues=["default"]) == {waiting.id, running.id}
    assert found(queues=["other"]) == set()
    assert found(ended_before=datetime.now(UTC)) == set()


@pytest.mark.parametrize("condition", ["ids", "idempotency_keys", "states", "tags_any", "pools"])
def test_an_empty_list_matches_nothing_rather_than_everything(
    prefect_api: PrefectApi, target: Deployment, condition: str
) -> None:
    prefect_api.create_run(target, NewRun(parameters={}))
    nothing: dict[str, Any] = {condition: []}
    assert prefect_api.runs(run_filter(**nothing)) == []


def test_a_waiting_run_is_cancelled_at_once(prefect_api: PrefectApi, target: Deployment) -> None:
    run = prefect_api.create_run(target, NewRun(parameters={}))
    change = prefect_api.cancel(run.id)
    assert change.state_type is StateType.CANCELLED
    assert prefect_api.read_run(run.id).final


def test_a_running_run_becomes_cancelling(prefect_api: PrefectApi, target: Deployment) -> None:
    run = _running(prefect_api, target)
    assert prefect_api.cancel(run.id).accepted
    assert prefect_api.read_run(run.id).state_type is StateType.CANCELLING


def test_a_finished_run_stays_as_it_is(prefect_api: PrefectApi, target: Deployment) -> None:
    run = _running(prefect_api, target)
    assert prefect_api.set_state(run.id, StateType.COMPLETED, "Degraded").accepted
    change = prefect_api.cancel(run.id)
    assert (change.status, change.accepted) == ("ABORT", False)
    assert "terminal" in change.reason
    assert prefect_api.read_run(run.id).state_name == "Degraded"


def test_a_rescheduled_run_waits_without_a_process_and_can_be_cancelled(
    prefect_api: PrefectApi, target: Deployment
) -> None:
    """With its old process on record, a cancelled waiting run would stay Cancelling for ever."""
    run = _running(prefect_api, target)
    prefect_api.patch_run(run.id, infrastructure_pid="host:123")
    assert prefect_api.read_run(run.id).process == "host:123"
    assert prefect_api.reschedule(run.id, "Waiting for model").accepted
    waiting = prefect_api.read_run(run.id)
    assert (waiting.state_type, waiting.state_name, waiting.process) == (
        StateType.SCHEDULED,
        "Waiting for model",
        "",
    )
    prefect_api.cancel(run.id)
    assert prefect_api.read_run(run.id).state_type is StateType.CANCELLED


def test_a_crashed_run_can_wait_again(prefect_api: PrefectApi, target: Deployment) -> None:
    run = _running(prefect_api, target)
    assert prefect_api.set_state(run.id, StateType.CRASHED).accepted
    assert prefect_api.reschedule(run.id).accepted


def test_a_run_being_cancelled_cannot_wait_again(
    prefect_api: PrefectApi, target: Deployment
) -> None:
    run = _running(prefect_api, target)
    prefect_api.cancel(run.id)
    change = prefect_api.reschedule(run.id)
    assert not change.accepted
    assert "cancelling" in change.reason


def test_patching_keeps_what_is_not_named(prefect_api: PrefectApi, target: Deployment) -> None:
    run = prefect_api.create_run(target, NewRun(parameters={"a": 1}, name="first", tags=("kept",)))
    prefect_api.patch_run(run.id, infrastructure_pid="host:1")
    prefect_api.patch_run(run.id, name="second")
    found = prefect_api.read_run(run.id)
    assert (found.name, found.tags, found.parameters) == ("second", ("kept",), {"a": 1})
    assert found.process == "host:1"


def test_a_waiting_run_cannot_change_its_queue(prefect_api: PrefectApi, target: Deployment) -> None:
    run = prefect_api.create_run(target, NewRun(parameters={}))
    with pytest.raises(PrefectRefused, match="work_queue_name"):
        prefect_api.patch_run(run.id, work_queue_name="bulk")


def test_moving_to_the_front_is_an_earlier_time(
    prefect_api: PrefectApi, target: Deployment
) -> None:
    first = prefect_api.create_run(target, NewRun(parameters={}))
    second = prefect_api.create_run(target, NewRun(parameters={}))
    early = datetime.now(UTC) - timedelta(days=1)
    change = prefect_api.set_state(second.id, StateType.SCHEDULED, "Queued", scheduled_time=early)
    assert change.accepted
    found = prefect_api.runs(run_filter(pools=[target.pool]), sort="EXPECTED_START_TIME_ASC")
    offered = prefect_api.call("POST", f"work_pools/{target.pool}/get_scheduled_flow_runs", {})
    assert [row["flow_run"]["id"] for row in offered] == [second.id, first.id]
    assert {run.id for run in found} == {first.id, second.id}


def test_a_deleted_run_is_gone(prefect_api: PrefectApi, target: Deployment) -> None:
    run = prefect_api.create_run(target, NewRun(parameters={}))
    prefect_api.delete_run(run.id)
    for ask in (prefect_api.read_run, prefect_api.delete_run, prefect_api.cancel):
        with pytest.raises(NotFound):
            ask(run.id)


def test_logs_and_artifacts_of_a_run_are_read(prefect_api: PrefectApi, target: Deployment) -> None:
    run = prefect_api.create_run(target, NewRun(parameters={}))
    assert prefect_api.logs(run.id) == []
    now = datetime.now(UTC)
    lines = [
        {
            "name": "stablequeue.wire",
            "level": 20,
            "message": f"line {number}",
            "timestamp": (now + timedelta(seconds=number)).isoformat(),
            "flow_run_id": run.id,
        }
        for number in range(3)
    ]
    prefect_api.call("POST", "logs/", lines)
    assert [line.message for line in prefect_api.logs(run.id)] == ["line 0", "line 1", "line 2"]
    body = {"key": f"k-{uuid4().hex[:8]}", "type": "progress", "data": 5.0, "flow_run_id": run.id}
    prefect_api.call("POST", "artifacts/", body)
    (artifact,) = prefect_api.artifacts(run.id)
    assert (artifact.type, artifact.data) == ("progress", 5.0)
    prefect_api.delete_artifact(artifact.id)
    assert prefect_api.artifacts(run.id) == []


def test_a_pool_is_paused_limited_and_resumed(prefect_api: PrefectApi, target: Deployment) -> None:
    prefect_api.create_run(target, NewRun(parameters={}))
    prefect_api.pause_pool(target.pool)
    assert prefect_api.pool(target.pool).paused
    offer = f"work_pools/{target.pool}/get_scheduled_flow_runs"
    assert prefect_api.call("POST", offer, {}) == []
    prefect_api.limit_pool(target.pool, 2)
    prefect_api.resume_pool(target.pool)
    pool = prefect_api.pool(target.pool)
    assert (pool.paused, pool.limit) == (False, 2)
    prefect_api.limit_pool(target.pool, None)
    assert prefect_api.pool(target.pool).limit is None
    assert len(prefect_api.call("POST", offer, {})) == 1
    assert target.pool in {pool.name for pool in prefect_api.pools(kind="process")}
    assert prefect_api.pools(kind="no-such-kind") == []
    assert prefect_api.last_seen(target.pool) is None


def test_a_pool_that_is_not_there_is_not_found(prefect_api: PrefectApi) -> None:
    for ask in (
        prefect_api.pool,
        prefect_api.pause_pool,
        prefect_api.queues,
        prefect_api.delete_pool,
        prefect_api.last_seen,
    ):
        with pytest.raises(NotFound, match="no work pool nowhere"):
            ask("nowhere")


def test_deleting_a_deployment_takes_its_waiting_runs_and_leaves_the_others(
    prefect_api: PrefectApi, target: Deployment
) -> None:
    waiting = prefect_api.create_run(target, NewRun(parameters={}))
    running = _running(prefect_api, target)
    prefect_api.delete_deployment(target.id)
    prefect_api.delete_pool(target.pool)
    assert prefect_api.read_run(running.id).id == running.id
    with pytest.raises(NotFound):
        prefect_api.read_run(waiting.id)
    assert target.id not in {found.id for found in prefect_api.deployments()}


def test_deployments_are_listed_by_flow(prefect_api: PrefectApi) -> None:
    flow = f"flow-{uuid4().hex[:8]}"
    target = make_deployment(prefect_api, flow=flow)
    assert [found.id for found in prefect_api.deployments(flow=flow)] == [target.id]


def test_a_block_is_saved_changed_and_deleted(prefect_api: PrefectApi) -> None:
    name = f"tok-{uuid4().hex[:8]}"
    prefect_api.save_block_document("secret", name, {"value": "one"})
    prefect_api.save_block_document("secret", name, {"value": "two"})
    found = prefect_api.block_document("secret", name, secrets=True)
    assert found.data == {"value": "two"}
    assert "two" not in repr(found)
    listed = {item.name: item.data for item in prefect_api.block_documents("secret")}
    assert listed[name] == {"value": "********"}
    prefect_api.delete_block_document("secret", name)
    with pytest.raises(NotFound):
        prefect_api.block_document("secret", name)


def test_an_unknown_block_type_says_what_to_do(prefect_api: PrefectApi) -> None:
    assert prefect_api.block_documents("no-such-type") == []
    with pytest.raises(NotFound, match="stablequeue up"):
        prefect_api.save_block_document("no-such-type", "x", {})


def test_a_block_name_prefect_does_not_take_is_refused(prefect_api: PrefectApi) -> None:
    with pytest.raises(PrefectRefused):
        prefect_api.save_block_document("secret", "Not / a name", {"value": "x"})


def test_a_variable_is_made_and_changed(prefect_api: PrefectApi) -> None:
    name = f"v_{uuid4().hex[:8]}"
    prefect_api.set_variable(name, {"a": [1]})
    prefect_api.set_variable(name, 2)
    assert prefect_api.variable(name) == 2
    with pytest.raises(NotFound):
        prefect_api.variable(name + "x")


def test_a_run_that_is_not_there_is_not_found(prefect_api: PrefectApi) -> None:
    with pytest.raises(NotFound):
        prefect_api.patch_run(MISSING_RUN, name="x")


def test_the_version_is_told(prefect_api: PrefectApi) -> None:
    assert prefect_api.version().startswith("3.")
