"""Flow runs and what belongs to them: states, logs, artifacts."""

from collections.abc import Collection, Sequence
from datetime import datetime
from http import HTTPStatus
from typing import Any

from stablequeue.errors import PrefectRefused
from stablequeue.prefect_api.model import (
    JSON,
    Artifact,
    Deployment,
    LogLine,
    NewRun,
    Run,
    StateChange,
    StateType,
    parse_time,
    state_json,
)
from stablequeue.prefect_api.transport import Transport

BULK = 100
"""The most runs Prefect creates in one call."""

_BULK_S = 120.0


def run_filter(
    *,
    ids: Collection[str] | None = None,
    idempotency_keys: Collection[str] | None = None,
    tags_all: Collection[str] | None = None,
    tags_any: Collection[str] | None = None,
    states: Collection[StateType] | None = None,
    state_names: Collection[str] | None = None,
    pools: Collection[str] | None = None,
    queues: Collection[str] | None = None,
    deployments: Collection[str] | None = None,
    ended_before: datetime | None = None,
    due_from: datetime | None = None,
) -> JSON:
    """Return Prefect's filter for runs that match everything given; nothing given: all runs.

    None means not given; an empty collection matches no run.

    Args:
        ids: Flow run ids.
        idempotency_keys: Our job ids.
        tags_all: Every one of these.
        tags_any: At least one of these.
        states: Types of state.
        state_names: As people see them.
        pools: Names of work pools.
        queues: Names of work queues.
        deployments: Names without the flow's, e.g. an alias.
        ended_before: Ended earlier than this.
        due_from: Waits, and is due then or later.
    """
    about = {
        "id": _any_of(ids),
        "idempotency_key": _any_of(idempotency_keys),
        "tags": {**_any_of(tags_any), **({"all_": list(tags_all)} if tags_all else {})},
        "state": _set({"type": _any_of(states), "name": _any_of(state_names)}),
        "end_time": {"before_": ended_before.isoformat()} if ended_before else {},
        "next_scheduled_start_time": {"after_": due_from.isoformat()} if due_from else {},
    }
    return _set(
        {
            "flow_runs": _set(about),
            "work_pools": _set({"name": _any_of(pools)}),
            "work_pool_queues": _set({"name": _any_of(queues)}),
            "deployments": _set({"name": _any_of(deployments)}),
        }
    )


def _any_of(values: Collection[str] | None) -> JSON:
    return {} if values is None else {"any_": [str(value) for value in values]}


def _set(conditions: JSON) -> JSON:
    return {name: condition for name, condition in conditions.items() if condition}


class RunCalls(Transport):
    """Calls about flow runs. Each raises what `Transport.request` raises."""

    def deployment(self, full_name: str) -> Deployment:
        """Return the deployment FLOW/NAME.

        Raises:
            NotFound: There is none.
        """
        missing = f"Prefect has no deployment {full_name}; stablequeue servers ls shows the servers"
        return Deployment.from_json(
            self.call("GET", f"deployments/name/{full_name}", missing=missing)
        )

    def create_run(self, deployment: str | Deployment, new: NewRun) -> Run:
        """Create a run, or return the one that has its idempotency key already.

        Raises:
            NotFound: No such deployment.
            PrefectRefused: The parameters do not fit its schema; or the key belongs to a run of
                another deployment (keys are per flow) that has not ended; it is left as it is.
        """
        target = self.deployment(deployment) if isinstance(deployment, str) else deployment
        response = self.request("POST", f"deployments/{target.id}/create_flow_run", new.to_json())
        created = response.status_code == HTTPStatus.CREATED
        run = Run.from_json(response.json(), was_new=created)
        if run.deployment_id != target.id and not run.final:
            message = (
                f"job {new.idempotency_key} has a run of another server already (run {run.id},"
                f" {run.state_name}); cancel it first"
            )
            raise PrefectRefused(message)
        return run

    def create_runs(
        self, deployment: str | Deployment, new: Sequence[NewRun]
    ) -> list[str | PrefectRefused]:
        """Create many runs of one deployment, up to 100 a call.

        Give them increasing `scheduled_time`, else their order is undefined. One with a known
        idempotency key gives the id of the run that has it, perhaps one of another deployment.

        Returns:
            For each, in order, the id of its run, or why there is none; those can be sent again.
            A run counts as made only when it is read afterwards: all of a call are made in one
            transaction, and one that fails in it takes the others with it.
        """
        target = self.deployment(deployment) if isinstance(deployment, str) else deployment
        outcome: list[str | PrefectRefused] = []
        for start in range(0, len(new), BULK):
            body = [item.to_json() for item in new[start : start + BULK]]
            path = f"deployments/{target.id}/create_flow_run/bulk"
            for result in self.call("POST", path, body, timeout_s=_BULK_S)["results"]:
                if result["status"] == "CREATED":
                    outcome.append(result["flow_run_id"])
                else:
                    outcome.append(PrefectRefused(f"Prefect refused: {result.get('error')}"))
        return outcome

    def read_run(self, run_id: str) -> Run:
        """Return one run.

        Raises:
            NotFound: It does not exist, or no longer.
        """
        return Run.from_json(
            self.call("GET", f"flow_runs/{run_id}", missing=f"Prefect has no run {run_id}")
        )

    def runs(
        self, filters: JSON | None = None, *, limit: int | None = None, sort: str = ""
    ) -> list[Run]:
        """Return the runs that match `run_filter(...)`, all pages of them.

        Args:
            filters: From `run_filter`; None: all.
            limit: At most so many.
            sort: Prefect's FlowRunSort, e.g. EXPECTED_START_TIME_ASC; empty: newest id first.
        """
        body: JSON = {**(filters or {}), "sort": sort or "ID_DESC"}
        return [Run.from_json(row) for row in self.pages("flow_runs/filter", body, limit=limit)]

    def count_runs(self, filters: JSON | None = None) -> int:
        """Return how many runs match `run_filter(...)`."""
        return int(self.call("POST", "flow_runs/count", filters or {}))

    def set_state(
        self,
        run_id: str,
        kind: StateType,
        name: str = "",
        *,
        message: str = "",
        scheduled_time: datetime | None = None,
        force: bool = False,
    ) -> StateChange:
        """Ask for a state. Prefect's rules may set another one or none: look at the answer.

        Args:
            run_id: Flow run id.
            kind: Type of state.
            name: What people see; empty: Prefect's own name for the type.
            message: Beside it.
            scheduled_time: For SCHEDULED; None: now.
            force: Skip Prefect's rules.
        """
        state = state_json(kind, name, message=message, scheduled_time=scheduled_time)
        answer = self.call(
            "POST",
            f"flow_runs/{run_id}/set_state",
            {"state": state, "force": force},
            missing=f"Prefect has no run {run_id}",
        )
        now: JSON = answer.get("state") or {}
        details: JSON = answer.get("details") or {}
        return StateChange(
            status=answer["status"],
            state_type=StateType(now["type"]) if now else None,
            state_name=now.get("name") or "",
            reason=details.get("reason") or "",
        )

    def cancel(self, run_id: str) -> StateChange:
        """Cancel a run: a waiting one is Cancelled at once, a running one becomes Cancelling.

        A run that has ended stays as it is (status ABORT).
        """
        return self.set_state(run_id, StateType.CANCELLING)

    def reschedule(
        self,
        run_id: str,
        name: str = "Queued",
        *,
        message: str = "",
        scheduled_time: datetime | None = None,
    ) -> StateChange:
        """Make a run wait (again), and forget the process it had.

        With an old process on record Prefect would send a later cancel to that process, and the
        run would stay Cancelling. Accepted for runs that wait, run or crashed; not for Cancelling.
        """
        self.patch_run(run_id, infrastructure_pid=None)
        return self.set_state(
            run_id, StateType.SCHEDULED, name, message=message, scheduled_time=scheduled_time
        )

    def patch_run(self, run_id: str, **changes: Any) -> None:
        """Change name, parameters, tags, infrastructure_pid or job_variables of a run.

        Pool and queue cannot be changed once a run exists.
        """
        self.call("PATCH", f"flow_runs/{run_id}", changes, missing=f"Prefect has no run {run_id}")

    def delete_run(self, run_id: str) -> None:
        """Delete a run with its states and logs.

        Raises:
            NotFound: It does not exist, or no longer.
        """
        self.call("DELETE", f"flow_runs/{run_id}", missing=f"Prefect has no run {run_id}")

    def logs(self, run_id: str, *, limit: int | None = None) -> list[LogLine]:
        """Return a run's log, oldest first; lines appear about 2 s after they were written."""
        body = {
            "logs": {"flow_run_id": {"any_": [run_id]}},
            "sort": "TIMESTAMP_ASC",
        }
        lines: list[LogLine] = []
        for row in self.pages("logs/filter", body, limit=limit):
            time = parse_time(row["timestamp"])
            if time:
                lines.append(
                    LogLine(
                        time=time, level=row["level"], message=row["message"], logger=row["name"]
                    )
                )
        return lines

    def artifacts(self, run_id: str) -> list[Artifact]:
        """Return a run's artifacts, those of its tasks included, newest first."""
        body = {
            "artifacts": {"flow_run_id": {"any_": [run_id]}},
            "sort": "CREATED_DESC",
        }
        return [
            Artifact(
                id=row["id"],
                key=row.get("key") or "",
                type=row.get("type") or "",
                data=row.get("data"),
                description=row.get("description") or "",
            )
            for row in self.pages("artifacts/filter", body)
        ]

    def delete_artifact(self, artifact_id: str) -> None:
        """Delete an artifact."""
        self.call("DELETE", f"artifacts/{artifact_id}")
