"""What becomes of runs whose process is gone: they wait again, or are cancelled.

A run left RUNNING by a dead process holds its place in the pool for ever, and with a limit of 1
nothing else of that server starts. Prefect itself never notices (PrefectHQ/prefect#16746).
"""

import logging
from collections.abc import Collection
from datetime import UTC, datetime

from stablequeue.errors import NotFound, PrefectError
from stablequeue.ids import short_id
from stablequeue.prefect_api import ACTIVE, PrefectApi, Run, StateType, run_filter
from stablequeue.processes import provably_dead
from stablequeue.settings import Settings
from stablequeue.worker.presence import claimer, is_here, is_present, kill, was_present

logger = logging.getLogger("stablequeue.worker")

BEGINS_WITHIN_S = 60.0
"""A run may be PENDING without a process for so long, while a worker starts one."""


RECOVERING = "Recovering"
"""State of a run that waits again because its process died."""

MOST_RECOVERIES = 3


def settle(api: PrefectApi, run_id: str, why: str, name: str = RECOVERING) -> str:
    """Bring a run whose process is gone into a state it can stay in.

    It waits again at its old place, or is Cancelled if that was wished. One that ended or waits
    already is left alone. A run that has recovered `MOST_RECOVERIES` times stays Crashed: perhaps
    it is what kills its processes.

    Args:
        api: Prefect's API.
        run_id: Flow run id.
        why: Shown beside the state.
        name: Of the state it waits in.

    Returns:
        The state's name it is in now; empty when it does not exist any more.

    Raises:
        PrefectUnreachable: Retryable; nothing was changed, or it was.
    """
    try:
        run = api.read_run(run_id)
        if run.state_type is StateType.CANCELLING:
            change = api.set_state(run.id, StateType.CANCELLED, message=why)
        elif run.state_type in {StateType.RUNNING, StateType.PENDING, StateType.CRASHED}:
            recovered = _recoveries(api, run.id) if name == RECOVERING else 0
            if recovered < MOST_RECOVERIES:
                place = run.expected_start or run.created
                change = api.reschedule(run.id, name, message=why, scheduled_time=place)
            elif run.state_type is StateType.CRASHED:
                return run.state_name
            else:
                advice = f"{why} That happened {recovered + 1} times; look at the worker's log,"
                message = f"{advice} then: stablequeue retry"
                change = api.set_state(run.id, StateType.CRASHED, message=message)
        else:
            return run.state_name
    except NotFound:
        return ""
    job = short_id(run.idempotency_key or run.id)
    if not change.accepted:
        logger.warning("job=%s stays %s: %s", job, run.state_name, change.reason)
        return run.state_name
    logger.info("job=%s was %s, is %s: %s", job, run.state_name, change.state_name, why)
    return change.state_name


def _recoveries(api: PrefectApi, run_id: str) -> int:
    states = api.call("GET", f"flow_run_states/?flow_run_id={run_id}")
    return sum(1 for state in states if state["name"] == RECOVERING)


def settle_lost(
    api: PrefectApi, settings: Settings, pools: Collection[str], *, ours: Collection[str] = ()
) -> list[str]:
    """Settle the runs of `pools` whose process on this host has died.

    Args:
        api: Prefect's API.
        settings: Where the locks of living processes are.
        pools: Names of work pools.
        ours: Flow run ids this worker is about to start or runs now: left alone.

    Returns:
        The ids of the settled runs.
    """
    settled: list[str] = []
    for run in api.runs(run_filter(pools=pools, states=ACTIVE)):
        if run.id in ours:
            continue
        if not is_lost(run, settings, datetime.now(UTC)):
            _end_orphan(run, settings)
            continue
        try:
            settle(api, run.id, "Its process had died.")
        except PrefectError as error:
            logger.warning("run %s is not settled yet: %s", run.id, error)
        else:
            settled.append(run.id)
    return settled


def is_lost(run: Run, settings: Settings, now: datetime) -> bool:
    """Whether a run that Prefect thinks active has provably no process.

    Args:
        run: As Prefect tells it.
        settings: Where the locks of living processes are.
        now: With a time zone, on Prefect's clock.
    """
    age_s = (now - run.state_time).total_seconds() if run.state_time else 0.0
    if run.process:
        return is_here(run.process) and not is_present(settings, run.id)
    if run.state_type is StateType.RUNNING:
        # Its worker may have died before it could say which process it is; else somebody runs it
        # without a worker.
        return was_present(settings, run.id)
    return age_s > BEGINS_WITHIN_S or provably_dead(claimer(run.state_message))


def _end_orphan(run: Run, settings: Settings) -> None:
    """End the process of a cancelled run whose worker died: nobody else tells it any more."""
    cancelled = run.state_type is StateType.CANCELLING
    if cancelled and is_here(run.process) and is_present(settings, run.id):
        kill(int(run.process.rpartition(":")[2]))
