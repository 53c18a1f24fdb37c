"""A job as a Prefect flow run: how it begins, and every way it can end.

`open_run` is what every flow starts with. Inside it the steps of `stablequeue.pipeline` do the
work; an expected failure ends the run with one line and is written to the catalogue, a cancelled
run sends its interrupts, a run that cannot keep its pictures is parked.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Self
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Completed, Failed, Scheduled

from stablequeue.catalogue import Catalogue, JobState, Outcome, StoredRequest, open_catalogue
from stablequeue.catalogue.location import sqlite_path
from stablequeue.errors import (
    BadRequest,
    EngineBusy,
    EngineUnreachable,
    NotFound,
    OutOfMemory,
    QueueError,
    Refused,
    StoreUnavailable,
)
from stablequeue.fetches import WAITING
from stablequeue.flowshow import Run, is_over
from stablequeue.giving_back import back_to_scheduled, given_back
from stablequeue.ids import run_name
from stablequeue.modelwait import ModelWait, any_over, ask_for
from stablequeue.pipeline.accept import begin, job_of_run
from stablequeue.pipeline.generate import Failure
from stablequeue.pipeline.job import PARKING, check_job_id, open_job
from stablequeue.prefect_api import open_prefect
from stablequeue.request import GenerationRequest
from stablequeue.sending import job_tags
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings
from stablequeue.storage import Store
from stablequeue.uninterrupted import forget_cancels, the_end
from stablequeue.views import DELETED
from stablequeue.warm import given

__all__ = ["Ending", "FindServer", "OpenStore", "Run", "RunEnded", "open_run"]

logger = logging.getLogger("stablequeue.run")

AWAY = (EngineUnreachable, EngineBusy)
"""Failures of a server that every other job there would meet too, and that pass."""

TOO_SMALL = "too-small:"
"""Begins the tag of a run of `any` that names a server whose card has not enough memory for it."""

LOOK_AGAIN = timedelta(seconds=60)
"""A job of `any` that must go on on a parked server asks again after this time."""

_LONGEST_MESSAGE = 2000

FindServer = Callable[[StoredRequest, str, Catalogue], Awaitable[ServerConfig]]
OpenStore = Callable[[ServerConfig, Settings], Awaitable[Store]]


class RunEnded(Exception):
    """The run is over before its first step; leave the flow's block."""


@dataclass
class Ending:
    """How a run ended; `state` is what its flow returns.

    To be entered before `open_run`: a job that ends before its first step (refused, expired) leaves
    the block from there.
    """

    state: State[Any] = field(default_factory=lambda: Failed(message="the run did not begin"))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        return isinstance(error, RunEnded)


@asynccontextmanager
async def open_run(
    request: Mapping[str, Any] | GenerationRequest,
    job_id: str,
    *,
    flow_run_id: UUID,
    deployed_for: str,
    settings: Settings,
    find_server: FindServer,
    open_store: OpenStore,
    ending: Ending,
) -> AsyncGenerator[Run]:
    """Begin a job's run; whatever happens inside decides `ending.state`.

    Args:
        request: As the run's parameters have it.
        job_id: Ours, or empty for a run created elsewhere: then the flow run's id.
        flow_run_id: This run.
        deployed_for: Alias the deployment is fixed to, or `any`.
        settings: This installation's.
        find_server: Loads, or for `any` chooses, the server.
        open_store: Opens the store of that server.
        ending: Receives the state to return.

    Raises:
        Abort: The run went back to Scheduled (parked, or handed back by a stopping worker), or
            was deleted in Prefect.
        CancelledError: It was cancelled; the interrupts are sent.
        RunEnded: It ended before the first step; `Ending` takes that.
    """
    catalogue = await asyncio.to_thread(_open_or_kept, settings.catalogue)
    async with AsyncExitStack() as stack:
        if catalogue not in _kept.values():
            stack.push_async_callback(asyncio.to_thread, catalogue.close)
        life = _Life(
            client=await stack.enter_async_context(get_client()),
            catalogue=catalogue,
            flow_run_id=flow_run_id,
            deployed_for=deployed_for,
            ending=ending,
        )
        try:
            stored = await life.begin(request, job_id, settings)
            if stored is None:
                raise RunEnded
            stored, config = await life.take_server(stored, find_server)
            job = await stack.enter_async_context(
                open_job(
                    stored,
                    config,
                    settings=settings,
                    catalogue=catalogue,
                    store=await open_store(config, settings),
                )
            )
            job.wants_interrupt = life.is_over
            life.run = Run(flow_run_id=flow_run_id, job=job, client=life.client)
            yield life.run
            await life.run.quiet()
            await life.finished(life.run)
        except PARKING as error:
            await life.quiet()
            await life.park(error)
        except ModelWait as wait:
            await life.quiet()
            await life.wait_for_models(wait, settings)
        except QueueError as error:
            await life.quiet()
            await life.failed(error)
            if life.run is None:
                raise RunEnded from error
        except (asyncio.CancelledError, SystemExit) as error:
            # SystemExit: Prefect's console logging, once nobody reads what a dead worker's child
            # prints. The worker may end this process for a cancel that the run saw itself.
            left_with = await the_end(life.interrupted(error))
            if left_with is error:
                raise
            forget_cancels()
            raise left_with from error


_kept: dict[tuple[str, int, int], Catalogue] = {}
"""The catalogue that a warm process leaves open, by its address and its file."""


def _open_or_kept(url: str) -> Catalogue:
    """Open the catalogue; in a warm process the file that is open already, if it is the same.

    Opening it again makes SQLAlchemy compile every statement again, a tenth of a run's CPU.
    """
    file = sqlite_path(url)
    if given.get() is None or file is None:  # a server may end connections nobody uses
        return open_catalogue(url)
    try:
        now = file.stat()
        catalogue = _kept.get((url, now.st_dev, now.st_ino))
    except OSError:
        catalogue = None
    if catalogue is None:
        for old in _kept.values():
            old.close()
        _kept.clear()
        catalogue = open_catalogue(url)
        now = file.stat()
        _kept[url, now.st_dev, now.st_ino] = catalogue
    return catalogue


class _Life:
    """What `open_run` does to one run, step by step."""

    def __init__(
        self,
        *,
        client: PrefectClient,
        catalogue: Catalogue,
        flow_run_id: UUID,
        deployed_for: str,
        ending: Ending,
    ) -> None:
        self.client = client
        self.run: Run | None = None
        self._catalogue = catalogue
        self._id = flow_run_id
        self._deployed_for = deployed_for
        self._ending = ending
        self._job_id = ""
        self._server = ""
        self._started = datetime.now(UTC)
        context = FlowRunContext.get()
        self._flow_run: FlowRun | None = context.flow_run if context else None

    async def begin(
        self, request: Mapping[str, Any] | GenerationRequest, job_id: str, settings: Settings
    ) -> StoredRequest | None:
        """Write the job's row, or find it; None if it has expired."""
        check_job_id(job_id or str(self._id))
        self._job_id = await asyncio.to_thread(job_of_run, job_id, str(self._id), self._catalogue)
        stored = await asyncio.to_thread(
            lambda: begin(
                request,
                settings=settings,
                catalogue=self._catalogue,
                job_id=self._job_id,
                server=self._deployed_for,
                flow_run_id=str(self._id),
            )
        )
        await self._label(stored, self._wanted(stored.request))
        if not stored.request.expired(self._started):
            return stored
        message = f"Not started by {stored.request.expires_at}"
        self._ending.state = State(type=StateType.CANCELLED, name="Expired", message=message)
        await self._finish(JobState.EXPIRED, message)
        return None

    async def take_server(
        self, stored: StoredRequest, find_server: FindServer
    ) -> tuple[StoredRequest, ServerConfig]:
        """Find the server, and note which one it is where people look."""
        config = await find_server(stored, self._wanted(stored.request), self._catalogue)
        self._server = config.alias
        if config.alias != stored.server:
            stored = await asyncio.to_thread(
                lambda: self._catalogue.start(
                    stored.request,
                    job_id=stored.job_id,
                    seed=stored.seed,
                    server=config.alias,
                    flow_run_id=str(self._id),
                    deployment=stored.deployment,
                )
            )
            await self._label(stored, config.alias)
        return stored, config

    async def quiet(self) -> None:
        """Show no phase any more: what comes now is the end."""
        if self.run is not None:
            await self.run.quiet()

    async def finished(self, run: Run) -> None:
        """Everything was tried: say what came of it."""
        outcome, self._ending.state = _result(run)
        await self._finish(outcome, self._ending.state.message or "", _code_of(run.failures))
        if run.stored and run.stored.assets:
            # It may have been parked, and then started again by hand in Prefect's pages.
            await asyncio.to_thread(_unpark, self._catalogue, self._server)

    async def failed(self, error: QueueError) -> None:
        """An expected failure: one line for the run and the catalogue.

        Under a warm worker a server that is away fails no job: the run waits at its place until
        the server answers again, or another one takes it.

        Raises:
            Abort: It waits.
        """
        if await self._wait_for_server(error):
            message = f"waiting for its server: {error}"
            raise given_back(message) from error
        self._ending.state = Failed(message=f"{error.code}: {error}")
        with suppress(NotFound):  # it was refused before it had a row
            await self._finish(JobState.FAILED, str(error), error.code)

    async def park(self, error: QueueError) -> None:
        """Stop the server's pool, once and with one message, so that its jobs wait; then abort."""
        reason = str(error)
        bound = isinstance(error, StoreUnavailable) and self._deployed_for == ANY != error.store
        delay = timedelta()
        if self._server or not bound:
            await self._pause(self._server or self._deployed_for, reason)
        else:
            delay = LOOK_AGAIN
        not_before = datetime.now(UTC) + delay if delay else None
        if not await self._back_to_scheduled("Parked", reason, not_before):
            await self._cancelled()
        message = f"parked: {reason}"
        raise given_back(message) from error

    async def wait_for_models(self, wait: ModelWait, settings: Settings) -> None:
        """Have what is missing fetched and give the place back until it is there.

        A download may end between our asking and our waiting: then nobody wakes us, and we look
        at once.

        Raises:
            Abort: It waits.
        """
        run_id = str(self._id)
        tier = self.run.job.request.tier.value if self.run is not None else ""
        tags = list((await self.client.read_flow_run(self._id)).tags)
        with open_prefect(settings) as api:
            runs = await asyncio.to_thread(
                lambda: ask_for(api, run_id, tags, wait, tier=tier, server=self._server)
            )
            waits = await self._back_to_scheduled(WAITING, str(wait), wait.again_at)
            if not waits:
                await self._cancelled()
            elif runs and await asyncio.to_thread(any_over, api, runs):
                await self._back_to_scheduled("Queued", "its models may be there")
        message = f"waits: {wait}"
        raise given_back(message) from wait

    async def _wait_for_server(self, error: QueueError) -> bool:
        warm = given.get()
        if warm is None or not self._server:
            return False
        warm.tell({"fault": error.code, "why": str(error), "server": self._server})
        if isinstance(error, AWAY):
            return await self._back_to_scheduled("Waiting for server", str(error))
        tag = f"{TOO_SMALL}{self._server}"
        tags = self._flow_run.tags if self._flow_run else []
        if isinstance(error, OutOfMemory) and self._deployed_for == ANY and tag not in tags:
            await self.client.update_flow_run(self._id, tags=[*tags, tag])
            return await self._back_to_scheduled("Needs more memory", str(error))
        return False

    async def interrupted(self, error: BaseException) -> BaseException:
        """Our task is ended: is the job cancelled, or does only this process end?

        Returns:
            What to leave the flow with.
        """
        await self.quiet()
        if await self.is_over() or not await self._back_to_scheduled(
            "Handed back", "The worker stopped; it goes on from here."
        ):
            await self._cancelled()
            seen_ourselves = self.run is not None and self.run.stopped
            return given_back("cancelled") if seen_ourselves else error
        return given_back("handed back by a stopping worker")

    async def is_over(self) -> bool:
        """Whether somebody cancelled or deleted the run."""
        return await is_over(self.client, self._id)

    def _wanted(self, request: GenerationRequest) -> str:
        """Return where the job must run: the deployment decides, the request may only agree."""
        only = self._deployed_for
        if not only or only == ANY:
            return request.server
        if request.server not in {ANY, only}:
            raise BadRequest("server", f"this deployment runs on {only!r} only", [only])
        return only

    async def _label(self, stored: StoredRequest, server: str) -> None:
        """Give the run its readable name and its tags, the same for every way in."""
        request, now = stored.request, self._flow_run
        name = run_name(request.prompt, request.mode.value, server, stored.job_id)
        tags = job_tags(request, stored.job_id, server)
        of_ours = ("job:", "server:", "tier:")
        others = [tag for tag in (now.tags if now else ()) if not tag.startswith(of_ours)]
        wanted = list(dict.fromkeys([*tags, *others]))
        if now is not None and now.name == name and set(now.tags) == set(wanted):
            return
        with suppress(ObjectNotFound):
            await self.client.update_flow_run(self._id, name=name, tags=wanted)
        if now is not None:
            now.name, now.tags = name, wanted

    async def _finish(self, state: JobState, message: str, code: str = "") -> None:
        outcome = Outcome(
            state=state,
            code=code,
            message=message,
            started_at=self._started,
            finished_at=datetime.now(UTC),
        )
        await asyncio.to_thread(self._catalogue.finish, self._job_id, outcome)

    async def _cancelled(self) -> None:
        """Say Cancelled; the interrupts are sent.

        Prefect's runner would say so only after it has loaded the flow once more to look for
        hooks.
        """
        deleted = await self._is_deleted()
        with suppress(NotFound):
            await self._finish(JobState.CANCELLED, DELETED if deleted else "cancelled")
        warm = given.get()
        if warm is not None and self.run is not None and self.run.job.unsettled:
            # Its server has not confirmed that it stopped; the worker asks on, and says Cancelled.
            warm.tell({"unsettled": self._job_id, "server": self._server})
            return
        state = Cancelled(message="Cancelled by a person")
        with suppress(ObjectNotFound):
            await self.client.set_flow_run_state(self._id, state, force=True)

    async def _is_deleted(self) -> bool:
        """Whether the run is gone from Prefect; False while Prefect cannot be asked."""
        try:
            await self.client.read_flow_run(self._id)
        except ObjectNotFound:
            return True
        except httpx.HTTPError:
            pass
        return False

    async def _pause(self, server: str, reason: str) -> None:
        if await asyncio.to_thread(self._catalogue.park, server, reason):
            logger.error("%s is parked: %s Then: stablequeue resume %s", server, reason, server)
        with suppress(ObjectNotFound):
            await self.client.update_work_pool(server, WorkPoolUpdate(is_paused=True))

    async def _back_to_scheduled(
        self, name: str, message: str, not_before: datetime | None = None
    ) -> bool:
        """Let the run wait again, at its old place; False if it was cancelled meanwhile.

        Args:
            name: Of the state.
            message: Beside it.
            not_before: It is due then, and not at its old place.
        """
        place = self._flow_run.expected_start_time if self._flow_run else None
        when = not_before or place or datetime.now(UTC)
        state = Scheduled(scheduled_time=when, name=name, message=message)
        return await back_to_scheduled(self.client, self._id, state)


def _unpark(catalogue: Catalogue, server: str) -> None:
    if server in catalogue.parked():
        catalogue.unpark(server)


def _result(run: Run) -> tuple[JobState, State[Any]]:
    count = run.job.request.count
    assets = run.stored.assets if run.stored else ()
    made = len({asset.index for asset in assets})
    if run.failures:
        first = run.failures[0]
        message = (
            f"{first.error.code}: {made} of {count} pictures stored;"
            f" picture {first.index + 1}: {first.error}"
        )
        return JobState.FAILED, Failed(message=message)
    if run.stored is None:
        reason = f"job {run.job.id}: the flow left out the step `store`"
        raise Refused(reason)
    message = f"{len(assets)} stored"
    if run.stored.censored:
        return JobState.CENSORED, Completed(name="Censored", message=message)
    if run.stored.warnings:
        message = f"{message}; {'; '.join(run.stored.warnings)}"[:_LONGEST_MESSAGE]
        return JobState.DEGRADED, Completed(name="Degraded", message=message)
    return JobState.COMPLETED, Completed(message=message)


def _code_of(failures: list[Failure]) -> str:
    return failures[0].error.code if failures else ""
