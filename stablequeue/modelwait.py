"""A job that waits for downloads: what it asks for, and what an ended download means to it."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

from stablequeue.errors import DownloadError, NotFetched, NotFound, RateLimited
from stablequeue.fetches import (
    FETCHED,
    FILE_TAG,
    GIVEN_UP,
    LOOK_AGAIN,
    RUN_TAG,
    Target,
    ask,
    downloads_of,
    fetched_to,
    file_key,
)
from stablequeue.flowshow import Run
from stablequeue.models.sources import Offer
from stablequeue.pipeline.delivery import host_of
from stablequeue.pipeline.obtaining import ToFetch
from stablequeue.prefect_api import PrefectApi, StateType, open_prefect
from stablequeue.prefect_api import Run as ApiRun
from stablequeue.prefect_api.model import parse_time
from stablequeue.wanting import LACKS, lacks_tag

_SOURCE_AGAIN = timedelta(seconds=60)


class ModelWait(Exception):
    """The job gives its place back until its models are there; no failure.

    Args:
        wanted: What has to be fetched; none: the source could not be asked.
        message: What people read.
        again_at: When to look without being woken, in UTC; None: after the usual time.
    """

    def __init__(
        self, wanted: Sequence[ToFetch], message: str = "", again_at: datetime | None = None
    ) -> None:
        names = ", ".join(dict.fromkeys(one.name for one in wanted))
        super().__init__(message or f"waiting for {names}")
        self.wanted = tuple(wanted)
        self.again_at = again_at or datetime.now(UTC) + LOOK_AGAIN

    @classmethod
    def for_source(cls, error: DownloadError) -> Self:
        """Return the wait for a source that cannot be asked now."""
        again = datetime.now(UTC) + _SOURCE_AGAIN
        if isinstance(error, RateLimited) and error.retry_at is not None:
            again = max(again, error.retry_at)
        return cls((), f"{error} Asked again at {again:%H:%M:%S} UTC.", again)


def wait_tags(tags: Sequence[str]) -> list[str]:
    """Return the tags of a run that say what it waits for."""
    return [tag for tag in tags if tag.startswith((FILE_TAG, RUN_TAG, LACKS))]


def ask_for(
    api: PrefectApi, run_id: str, tags: Sequence[str], wait: ModelWait, *, tier: str, server: str
) -> list[ApiRun]:
    """Tag a job's run and ask for the downloads it waits for; blocks.

    Args:
        api: Prefect's API.
        run_id: The job's run.
        tags: Its tags now.
        wait: What it waits for.
        tier: Of the job.
        server: The one that lacks it.

    The tags come first: a download that ends a moment later finds them.

    Returns:
        The downloads.
    """
    keys = dict.fromkeys(file_key(one.offer, one.host) for one in wait.wanted)
    others = [tag for tag in tags if tag not in wait_tags(tags)]
    lacks = dict.fromkeys(lacks_tag(server, one.need.given) for one in wait.wanted)
    tagged = [*others, *lacks, *(f"{FILE_TAG}{key}" for key in keys)]
    api.patch_run(run_id, tags=tagged)
    found: dict[str, ApiRun] = {}
    for one in wait.wanted:
        key = file_key(one.offer, one.host)
        if key not in found:
            target = Target(one.kind, one.root, one.name, one.host)
            found[key] = ask(api, one.offer, target, tier)
    runs = list(found.values())
    api.patch_run(run_id, tags=[*tagged, *(f"{RUN_TAG}{run.id}" for run in runs)])
    return runs


def any_over(api: PrefectApi, runs: Sequence[ApiRun]) -> bool:
    """Whether one of these downloads has ended, or told those who waited already; blocks."""
    for run in runs:
        try:
            now = api.read_run(run.id)
        except NotFound:
            return True
        if now.final or now.state_name in {FETCHED, GIVEN_UP}:
            return True
    return False


def earlier(run: Run) -> Callable[[Offer], Path | None]:
    """Return what says where an earlier download put an offered file."""

    def fetched(offer: Offer) -> Path | None:
        with open_prefect(run.job.settings) as api:
            return fetched_to(api, offer, host_of(run.job.server))

    return fetched


async def refuse_what_failed(
    run: Run, wanted: Sequence[ToFetch], *, looked_again: bool = False
) -> bool:
    """End the job if its download is over since it was asked for, and the file is still missing.

    That may have been asked for by another job, while this one stood behind it.

    Args:
        run: The job's.
        wanted: What was missing when it was looked for.
        looked_again: That was after the answer True.

    Returns:
        Whether something was fetched, maybe after it was looked for here: then look again.

    Raises:
        NotFetched: Says what became of the download.
    """
    problem, fetched = await asyncio.to_thread(_problem, run, wanted)
    if problem and (looked_again or not fetched):
        raise NotFetched(run.job.server.alias, problem)
    return bool(problem)


def _problem(run: Run, wanted: Sequence[ToFetch]) -> tuple[str, bool]:
    """Return what is wrong, and whether a download that did bring its file is."""
    with open_prefect(run.job.settings) as api:
        run_id = str(run.flow_run_id)
        asked = _asked_at(api, run_id)
        for one in wanted:
            for download in downloads_of(api, one.offer, one.host)[:1]:
                over = download.ended or download.state_time
                if over is not None and over < asked:
                    continue
                if said := _ended_how(download, one):
                    return said, _has_fetched(download)
    return "", False


def _has_fetched(download: ApiRun) -> bool:
    return download.state_type is StateType.COMPLETED or download.state_name == FETCHED


def _asked_at(api: PrefectApi, run_id: str) -> datetime:
    """Return when a job was asked for: when its run was made, or started again by a person."""
    states = api.call("GET", f"flow_run_states/?flow_run_id={run_id}")
    times = [
        time
        for state in states
        if StateType(state["type"]).final and (time := parse_time(state["timestamp"]))
    ]
    created = api.read_run(run_id).created
    return max([*times, created or datetime.min.replace(tzinfo=UTC)])


def _ended_how(download: ApiRun, wanted: ToFetch) -> str:
    """Return why a job cannot go on after this download; empty: it may still come."""
    what = f"{wanted.need.field}: {wanted.name}"
    if download.state_name == GIVEN_UP or download.state_type is StateType.FAILED:
        return f"{what} cannot be fetched: {download.state_message}"
    if download.state_type in {StateType.CANCELLED, StateType.CANCELLING}:
        return f"the download of {what} was cancelled; ask again with: stablequeue retry"
    if download.state_type is StateType.CRASHED:
        return f"the download of {what} crashed: {download.state_message}"
    if _has_fetched(download):
        return (
            f"{what} was fetched, and is not in this host's library ({wanted.root});"
            " hosts that make pictures and hosts that fetch models share its folders"
        )
    return ""
