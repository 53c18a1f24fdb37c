"""A download as a Prefect flow run: how it begins, what is shown of it, every way it can end.

`open_fetch` is what the flow `fetch-model` starts with. Inside it the file is carried into the
library; jobs that wait for it are told how far it is, and woken when it is there, or known to stay
away. A failure that may pass lets the run wait outside and be tried again, a stopped worker hands
it back, a person's cancel removes what came so far.
"""

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.client.schemas.objects import State
from prefect.client.schemas.responses import SetStateStatus
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Failed, Running, Scheduled

from stablequeue import fetches
from stablequeue.errors import (
    BadRequest,
    DownloadError,
    PrefectError,
    QueueError,
    RateLimited,
    Refused,
    TargetTaken,
)
from stablequeue.fetches import Target, file_key
from stablequeue.flowshow import is_over
from stablequeue.giving_back import back_to_scheduled, given_back
from stablequeue.models.downloads import Downloaded, Progress, give_up
from stablequeue.models.folders import Root, target_in
from stablequeue.models.roots import library_roots
from stablequeue.models.sources import Offer
from stablequeue.prefect_api import PrefectApi, open_prefect
from stablequeue.settings import Settings
from stablequeue.sizes import size
from stablequeue.uninterrupted import forget_cancels, the_end

logger = logging.getLogger("stablequeue.models")

SHOW_EVERY_S = 2.0
STATE_EVERY_S = 10.0
TELL_EVERY_S = 15.0
LOOK_EVERY_S = 4.0
AGAIN_AFTER_S = (20.0, 60.0, 300.0, 900.0, 3600.0)
"""Before each further try of a download that failed for a reason that may pass."""

TRIED_AGAIN = "Waiting for the source"
"""State of a download that waits to be tried again."""

T = TypeVar("T")


@dataclass
class Ended:
    """How a download's run ended; `state` is what its flow returns."""

    state: State[Any] = field(default_factory=lambda: Failed(message="the download did not begin"))


class Fetch:
    """One flow run that fetches one file; no dataclass, because Prefect walks into those.

    Attributes:
        offer: What is fetched.
        target: Where it goes, checked to be in the library.
        roots: All folders of the library.
        host: Whose folders these are, if other hosts have others.
        settings: This host's.
        api: Prefect's API.
        downloaded: What came of it, once it did.
        paused: A person paused the run; its task was cancelled by this object.
    """

    def __init__(
        self,
        *,
        offer: Offer,
        target: Path,
        roots: list[Root],
        kind: str,
        host: str = "",
        settings: Settings,
        client: PrefectClient,
        api: PrefectApi,
        flow_run_id: UUID,
    ) -> None:
        self.offer, self.target, self.roots, self.kind = offer, target, roots, kind
        self.host = host
        self.settings, self.api = settings, api
        self.downloaded: Downloaded | None = None
        self.key = file_key(offer, host)
        self._client, self._id = client, flow_run_id
        self._last: Progress | None = None
        self._flow = asyncio.current_task()
        self.paused = False
        self._artifact: UUID | None = None
        self._telling: asyncio.Task[None] | None = None

    def progressed(self, progress: Progress) -> None:
        """Take note of how far it is; shown by `shown`."""
        self._last = progress

    @asynccontextmanager
    async def shown(self) -> AsyncGenerator[None]:
        """Show how far it is, here and to those who wait, while what is inside goes on."""
        showing = asyncio.create_task(self._show())
        try:
            yield
        finally:
            showing.cancel()
            await asyncio.gather(showing, return_exceptions=True)
            if self._telling is not None:
                # Its thread knows of no cancelling. A late word would have those wait again for
                # minutes who are woken next.
                await asyncio.gather(self._telling, return_exceptions=True)

    async def state(self, name: str, message: str) -> None:
        """Show a state of the running run; a person's cancel or pause that came before stands."""
        await self._look()
        if self.paused:
            return
        answer = await self._told(
            self._client.set_flow_run_state(self._id, Running(name=name, message=message))
        )
        if answer is not None and answer.status is not SetStateStatus.ACCEPT:
            logger.info("the state %s is not shown: the run is ending", name)
            return
        # Prefect takes this for going on, where a pause came between our look and our state.
        states: list[State[Any]] = await self._told(self._client.read_flow_run_states(self._id))
        if states and len(states) > 1 and states[-2].is_paused():
            await self._told(self._client.set_flow_run_state(self._id, states[-2], force=True))
            await self._look()

    async def call(self, function: Callable[[], T]) -> T:
        """Run something that blocks in a thread."""
        return await asyncio.to_thread(function)

    async def use_other_name(self) -> bool:
        """Take a name that no other file has; False if that is not what is wrong."""
        if not await self.call(self.target.exists):
            return False
        name = fetches.other_name(self.target.name, self.offer)
        if name == self.target.name:
            return False
        logger.info("%s is another file; this one becomes %s", self.target.name, name)
        self.target = self.target.with_name(name)
        below = next(
            root.path
            for root in self.roots
            if root.kind.value == self.kind and self.target.is_relative_to(root.path)
        )
        relative = self.target.relative_to(below).as_posix()
        await self.call(lambda: fetches.moved(self.api, str(self._id), relative))
        return True

    async def wake(self, why: str) -> None:
        """Let everybody who waits for the file go on."""
        try:
            woken = await self.call(lambda: fetches.wake(self.api, self.key, why))
        except PrefectError as error:  # they look by themselves in some minutes
            logger.warning("those who wait for %s are not told: %s", self.target.name, error)
        else:
            logger.info("%d jobs waited for %s", woken, self.target.name)

    async def _show(self) -> None:
        stated = told = looked = float("-inf")
        while True:
            if time.monotonic() - looked >= LOOK_EVERY_S:
                looked = time.monotonic()
                await self._look()
            if (last := self._last) is not None:
                message = spoken(last)
                await self._show_artifact(last, message)
                now = time.monotonic()
                if now - stated >= STATE_EVERY_S:
                    stated = now
                    await self.state("Downloading", message)
                if now - told >= TELL_EVERY_S:
                    told = now
                    await self._tell(f"fetching {self.target.name}: {message}")
            await asyncio.sleep(SHOW_EVERY_S)

    async def _look(self) -> None:
        """Stop when a person paused the run: Prefect itself tells only between two tasks."""
        flow_run = await self._told(self._client.read_flow_run(self._id))
        paused = flow_run is not None and flow_run.state and flow_run.state.is_paused()
        if paused and not self.paused and self._flow is not None:
            self.paused = True
            self._flow.cancel()

    async def _tell(self, message: str) -> None:
        told = self.call(lambda: fetches.tell(self.api, self.key, message))
        self._telling = asyncio.create_task(told)
        with suppress(PrefectError):  # decoration
            await asyncio.shield(self._telling)

    async def _show_artifact(self, progress: Progress, message: str) -> None:
        percent = round(100 * progress.received / progress.total, 1) if progress.total else 0.0
        about = f"{self.target.name}: {message}"
        if self._artifact is None:
            artifact = ArtifactCreate(
                type="progress",
                key=f"download-{self.key[:12]}",
                description=about,
                data=percent,
                flow_run_id=self._id,
            )
            made = await self._told(self._client.create_artifact(artifact))
            self._artifact = made.id if made else None
        else:
            change = ArtifactUpdate(data=percent, description=about)
            await self._told(self._client.update_artifact(self._artifact, change))

    async def _told(self, call: Any) -> Any:
        try:
            return await call
        except (httpx.HTTPError, ObjectNotFound) as error:
            logger.info("Prefect is not told how far the download is: %s", type(error).__name__)
            return None


@asynccontextmanager
async def open_fetch(
    offer: Mapping[str, Any], target: Mapping[str, Any], settings: Settings, ended: Ended
) -> AsyncGenerator[Fetch]:
    """Begin a download's run; whatever happens inside decides `ended.state`.

    Args:
        offer: `Offer.to_json()`.
        target: `Target.to_json()`.
        settings: This host's, with its own keys.
        ended: Receives the state to return.

    Raises:
        Abort: The run waits again: to be tried later, or for another worker.
        CancelledError: It was cancelled; what came so far is removed.
        Refused: Not inside a flow run.
    """
    context = FlowRunContext.get()
    client = context.client if context is not None else None
    if context is None or context.flow_run is None or not isinstance(client, PrefectClient):
        message = "open_fetch works inside a flow run only; call it from a flow"
        raise Refused(message)
    life = _Life(client, UUID(str(context.flow_run.id)), context.flow_run.tags, ended)
    with open_prefect(settings) as api:
        try:
            fetch = _begun(offer, target, settings, client=client, api=api, flow_run_id=life.id)
        except QueueError as error:
            ended.state = Failed(message=f"{error.code}: {error}")
            raise FetchRefused from error
        try:
            yield fetch
            await life.finished(fetch)
        except QueueError as error:
            await life.failed(fetch, error)
        except (asyncio.CancelledError, SystemExit) as error:
            left_with = await the_end(life.interrupted(fetch, error))
            if left_with is error:
                raise
            forget_cancels()
            raise left_with from error


class FetchRefused(Exception):
    """The parameters are nothing to fetch; leave the flow's block."""


class _Life:
    """What becomes of one run."""

    def __init__(self, client: PrefectClient, run_id: UUID, tags: list[str], ended: Ended) -> None:
        self._client, self.id, self._tags, self._ended = client, run_id, tags, ended

    async def finished(self, fetch: Fetch) -> None:
        done = fetch.downloaded
        if done is None:
            message = f"{fetch.target.name}: the flow left out the download itself"
            raise Refused(message)
        how = "fetched" if done.fetched else "was there already"
        message = f"{fetch.target} {how}: {size(done.size)}, SHA-256 {done.sha256[:10]}"
        self._ended.state = Completed(message=message)

    async def failed(self, fetch: Fetch, error: QueueError) -> None:
        """One line that says what to do; later again if that may help.

        Raises:
            Abort: It waits to be tried again.
        """
        tries = sum(tag.startswith("try:") for tag in self._tags)
        if error.retryable and tries < len(AGAIN_AFTER_S):
            when = datetime.now(UTC) + timedelta(seconds=AGAIN_AFTER_S[tries])
            if isinstance(error, RateLimited) and error.retry_at is not None:
                when = max(when, error.retry_at)
            await self._client.update_flow_run(self.id, tags=[*self._tags, f"try:{tries + 1}"])
            again = f"again at {when:%H:%M:%S} UTC"
            if await self._back(TRIED_AGAIN, f"{error} {again.capitalize()}.", when):
                with suppress(PrefectError):
                    text = f"fetching {fetch.target.name}: {again}, because: {error}"
                    await fetch.call(lambda: fetches.tell(fetch.api, fetch.key, text))
                message = f"tried again later: {error}"
                raise given_back(message) from error
        if error.retryable:
            await self._clean(fetch)
        message = f"{error.code}: {error}"
        await fetch.state(fetches.GIVEN_UP, message)
        await fetch.wake(f"{fetch.target.name} cannot be fetched")
        self._ended.state = Failed(message=message)

    async def interrupted(self, fetch: Fetch, error: BaseException) -> BaseException:
        """Is the download cancelled, or does only this process end?

        Returns:
            What to leave the flow with.
        """
        if fetch.paused:
            return given_back("paused; what has come stays, and it goes on from there")
        now = datetime.now(UTC)
        why = "The worker stopped; it goes on from what has come."
        if not await is_over(self._client, self.id) and await self._back("Handed back", why, now):
            return given_back("handed back by a stopping worker")
        await self._clean(fetch)
        await fetch.wake(f"the download of {fetch.target.name} was cancelled")
        return error

    async def _clean(self, fetch: Fetch) -> None:
        with suppress(DownloadError):  # somebody else is at it
            await give_up(fetch.target, locks=fetch.settings.model_locks, source="download")

    async def _back(self, name: str, message: str, when: datetime) -> bool:
        """Let the run wait again; False if it was cancelled or deleted meanwhile."""
        state = Scheduled(scheduled_time=when, name=name, message=message)
        return await back_to_scheduled(self._client, self.id, state)


def _begun(
    offer: Mapping[str, Any],
    target: Mapping[str, Any],
    settings: Settings,
    *,
    client: PrefectClient,
    api: PrefectApi,
    flow_run_id: UUID,
) -> Fetch:
    """Read what is asked; the parameters of a run may come from anybody who reaches Prefect.

    Raises:
        BadRequest: They are no offer, or no place in the library.
        TargetTaken: This host has no such folder.
    """
    try:
        read, place = Offer.from_json(offer), Target.from_json(target)
    except (KeyError, TypeError, ValueError) as error:
        raise BadRequest("offer", f"this is nothing to fetch ({error})") from error
    roots = library_roots(settings.models)
    own = [root for root in roots if root.kind is place.kind]
    root = next((root for root in own if root.path == place.root), None)
    if root is None:
        known = ", ".join(str(one.path) for one in own) or "none"
        detail = f"{place.root} is no folder of the library for {place.kind} on this host"
        advice = "hosts that fetch models share the library's folders"
        raise TargetTaken(read.source, f"{detail} (there: {known}); {advice}")
    return Fetch(
        offer=read,
        target=target_in(root, place.name),
        roots=roots,
        kind=place.kind.value,
        host=place.host,
        settings=settings,
        client=client,
        api=api,
        flow_run_id=flow_run_id,
    )


def spoken(progress: Progress) -> str:
    """Return progress for people, e.g. `41 % of 6.5 GB, 12 MB/s, 5 min left`."""
    speed = f"{size(progress.bytes_per_s)}/s"
    if not progress.total:
        return f"{size(progress.received)}, {speed}"
    percent = 100 * progress.received / progress.total
    left = progress.total - progress.received
    text = f"{percent:.0f} % of {size(progress.total)}, {speed}"
    if progress.bytes_per_s < 1 or left <= 0:
        return text
    seconds = left / progress.bytes_per_s
    minute, hour = 60, 3600
    if seconds >= hour:
        return f"{text}, {seconds / hour:.1f} h left"
    left_text = f"{seconds / minute:.0f} min" if seconds >= minute else f"{seconds:.0f} s"
    return f"{text}, {left_text} left"
