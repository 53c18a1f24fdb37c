"""What a warm process is spared, and only for flows of ours that keep no results."""

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from prefect import flow_engine, results, task_engine
from prefect.client.schemas.objects import State
from prefect.states import Completed, Pending, Running

from stablequeue.worker import lean

STORAGE = uuid4()
FLOWS, TASKS = cast("Any", flow_engine), cast("Any", task_engine)


@pytest.fixture(autouse=True)
def stock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Put what tells in place of Prefect's own; return what it was asked."""
    told: list[str] = []

    def emit(*, validated_state: State[Any], **_: Any) -> str:
        told.append(validated_state.name or "")
        return "an event"

    async def read_async() -> UUID:
        told.append("storage")
        return STORAGE

    def read() -> UUID:
        told.append("storage")
        return STORAGE

    monkeypatch.setattr(flow_engine, "observe_flow_run_suspension", lambda: told.append("observe"))
    monkeypatch.setattr(task_engine, "emit_task_run_state_change_event", emit)
    monkeypatch.setattr(results, "_read_server_default_result_storage_block_id", read)
    monkeypatch.setattr(results, "_aread_server_default_result_storage_block_id", read_async)
    lean.spare()
    before = lean.runs_ours.set(False)
    yield told
    lean.runs_ours.reset(before)


def emit(before: State[Any] | None, state: State[Any]) -> Any:
    """Tell of a task as Prefect's engine does."""
    return TASKS.emit_task_run_state_change_event(
        task_run=cast("Any", SimpleNamespace()), initial_state=before, validated_state=state
    )


def test_a_task_of_ours_is_told_of_when_it_runs(stock: list[str]) -> None:
    lean.runs_ours.set(True)
    assert emit(None, Pending()) is None
    assert emit(Pending(), Running()) == "an event"
    assert emit(Running(), Completed()) == "an event"
    assert stock == ["Running", "Completed"]


def test_a_task_that_waits_again_is_told_of(stock: list[str]) -> None:
    lean.runs_ours.set(True)
    emit(Running(), Pending())
    assert stock == ["Pending"]


def test_every_state_of_somebody_elses_task_is_told(stock: list[str]) -> None:
    lean.runs_ours.set(False)
    for before, state in ((None, Pending()), (Pending(), Running()), (Running(), Completed())):
        emit(before, state)
    assert stock == ["Pending", "Running", "Completed"]


async def test_a_store_for_results_is_asked_for_only_where_results_are_kept(
    stock: list[str],
) -> None:
    at_once = cast("Callable[[], Any]", results._read_server_default_result_storage_block_id)  # pyright: ignore[reportPrivateUsage]
    later = cast("Callable[[], Any]", results._aread_server_default_result_storage_block_id)  # pyright: ignore[reportPrivateUsage]
    lean.runs_ours.set(True)
    assert at_once() is None
    assert await later() is None
    assert stock == []
    lean.runs_ours.set(False)
    assert at_once() == STORAGE
    assert await later() == STORAGE


def test_nothing_is_opened_to_hear_of_a_suspension(stock: list[str]) -> None:
    before = threading.active_count()
    with FLOWS.observe_flow_run_suspension(uuid4(), timeout=1):
        assert threading.active_count() == before
    assert stock == []


def test_sparing_twice_is_sparing_once() -> None:
    once = TASKS.emit_task_run_state_change_event
    lean.spare()
    assert TASKS.emit_task_run_state_change_event is once


def test_what_a_release_of_prefect_does_not_have_is_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(flow_engine, "observe_flow_run_suspension")
    monkeypatch.delattr(task_engine, "emit_task_run_state_change_event")
    monkeypatch.delattr(results, "_read_server_default_result_storage_block_id")
    lean.spare()
    for module, name in (
        (flow_engine, "observe_flow_run_suspension"),
        (task_engine, "emit_task_run_state_change_event"),
        (results, "_read_server_default_result_storage_block_id"),
    ):
        assert not hasattr(module, name)
