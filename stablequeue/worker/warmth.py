"""Runs flow runs in warm processes, with Prefect's own executor around each.

Prefect's executor keeps what is its business: the control channel by which a flow learns that it
is cancelled, crash detection, hooks. Only how a process is started is ours.
"""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

import anyio
import anyio.abc
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow, load_flow_from_flow_run
from prefect.runner._flow_run_executor import (
    FlowRunExecutionResult,
    FlowRunExecutorContext,
)
from prefect.runner._process_manager import ProcessHandle

from stablequeue.project import move_in
from stablequeue.worker.channel import Message
from stablequeue.worker.presence import kill
from stablequeue.worker.runners import Runners
from stablequeue.worker.warm_process import Runner, StaleRunner

logger = logging.getLogger("stablequeue.worker")

_MOST_STALE = 3


class _Process:
    """What Prefect calls a process: the part of a warm one that one run sees."""

    def __init__(self, runner: Runner) -> None:
        self.pid = runner.pid
        self.returncode: int | None = None


class _Scope:
    """Ends the process of a run, and never one that has gone on to another run."""

    wait_after_graceful_kill = os.name == "posix"

    def __init__(self, runner: Runner, run: str, still_there: Callable[[str], bool]) -> None:
        self._runner, self._run, self._still_there = runner, run, still_there

    def is_alive(self, pid: int) -> bool:
        """Also while the run's remote job is not known to have stopped: it is not over."""
        del pid
        return self._runner.works_on(self._run) or self._still_there(self._run)

    def graceful_kill(self, pid: int) -> None:
        self._end(pid, graceful=True)

    def hard_kill(self, pid: int) -> None:
        self._end(pid, graceful=False)

    def close(self) -> None:
        """Nothing is held."""

    def _end(self, pid: int, *, graceful: bool) -> None:
        if not self._runner.works_on(self._run):
            raise ProcessLookupError(pid)
        self._runner.reusable = False
        if not graceful or os.name != "posix":
            kill(pid)
            return
        import signal  # noqa: PLC0415

        os.killpg(pid, signal.SIGTERM)


class WarmStarter:
    """Prefect's `ProcessStarter`: hands a run to a warm process and waits for its end.

    Attributes:
        exit_code: How the run ended, once it has; 0 if its host hands it back.
    """

    def __init__(
        self,
        runners: Runners,
        order: Message,
        environment: Mapping[str, str] | None,
        register: Callable[[UUID], tuple[int, str]],
        still_there: Callable[[str], bool],
        *,
        goes_on: bool = False,
    ) -> None:
        self.exit_code: int | None = None
        self._goes_on = goes_on
        self._still_there = still_there
        self._runners = runners
        self._order = order
        self._environment = environment
        self._register = register

    async def start(
        self,
        flow_run: FlowRun,
        task_status: anyio.abc.TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Run it; what Prefect learns is the process and, at the end, an exit code.

        Not of a run that goes on after its process died, or that is handed back: Prefect would
        say Crashed, and whoever waits for the job would take that for its end.
        """
        order = {**self._order, "run": flow_run.model_dump(mode="json")}
        try:
            port, token = self._register(flow_run.id)
        except RuntimeError:  # the channel could not be opened: then cancelling means killing
            logger.warning("run %s cannot be told when it is cancelled", flow_run.id)
        else:
            order["env"] = {
                **order["env"],
                "PREFECT__CONTROL_PORT": str(port),
                "PREFECT__CONTROL_TOKEN": token,
            }
        runner = await self._fresh()
        process = _Process(runner)
        handle = ProcessHandle(
            process,  # pyright: ignore[reportArgumentType]  only pid and returncode count
            termination_scope=self._scope(runner, flow_run),
        )
        runner.run = str(flow_run.id)
        task_status.started(handle)
        for _ in range(_MOST_STALE):
            performed = runner
            try:
                self.exit_code = await runner.perform(order)
            except StaleRunner:
                runner = await self._fresh()
                process.pid = runner.pid
                handle.termination_scope = self._scope(runner, flow_run)
            else:
                break
            finally:
                self._runners.give_back(performed)
        else:
            self.exit_code = 1
        if runner.let_go:
            self.exit_code = 0
        process.returncode = 0 if self._goes_on else self.exit_code

    def _scope(self, runner: Runner, flow_run: FlowRun) -> _Scope:
        return _Scope(runner, str(flow_run.id), self._still_there)

    async def _fresh(self) -> Runner:
        return await self._runners.take(self._environment)


class Warmth:
    """Warm processes, and one executor context for all runs of a host.

    Args:
        hear: Gets what a process says about its run: the card, measurements, faults.
        still_there: Whether a cancelled run's remote job may still be on its server.
    """

    def __init__(
        self,
        hear: Callable[[str, Message], None],
        still_there: Callable[[str], bool] = lambda _run: False,
        **options: Any,
    ) -> None:
        self._still_there = still_there
        self.runners = Runners(lambda runner, message: hear(runner.run, message), **options)
        self._executors = FlowRunExecutorContext()

    async def start(self) -> None:
        """Open what every run shares; the first process is made ready meanwhile."""
        move_in()  # Prefect loads flows in this process when a run's hooks are due
        await self.runners.start()
        await self._executors.__aenter__()

    async def close(self) -> None:
        """End every process and close what was open."""
        await self.runners.close()
        await self._executors.__aexit__(None, None, None)

    def let_go(self, pid: int) -> None:
        """End a process whose run its host hands back."""
        for runner in self.runners.all:
            if runner.pid == pid:
                runner.let_go = True
        kill(pid)

    async def perform(
        self,
        flow_run: FlowRun,
        order: Message,
        environment: Mapping[str, str] | None,
        started: Callable[[int], None],
        *,
        goes_on: bool = False,
    ) -> FlowRunExecutionResult | None:
        """Run a flow run to its end under Prefect's executor.

        Args:
            flow_run: As it is now.
            order: `env`, `entrypoint` and `given` of the run.
            environment: Variables of its own, which need a process of its own; None: none.
            started: Called with the process id once it is handed over.
            goes_on: Whether the run waits again when its process dies, instead of having crashed.
        """
        starter = WarmStarter(
            self.runners,
            order,
            environment,
            self._executors.control_channel.register,
            self._still_there,
            goes_on=goes_on,
        )
        executor = self._executors.create_executor(
            flow_run, starter, resolve_flow=_load, propose_submitting=False
        )
        result: FlowRunExecutionResult | None = None

        async def submit(*, task_status: anyio.abc.TaskStatus[ProcessHandle]) -> None:
            nonlocal result
            result = await executor.submit(task_status=task_status)

        async with anyio.create_task_group() as group:
            handle = await group.start(submit)
            started(handle.pid or 0)
        if result is not None and starter.exit_code is not None:
            result = replace(result, status_code=starter.exit_code)
        return result


async def _load(flow_run: FlowRun) -> Flow[..., Any]:
    """Load a run's flow in this process, to look for hooks."""
    return await load_flow_from_flow_run(flow_run)
