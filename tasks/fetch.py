"""Tasks of a download: the file itself, and what is to be done once it is there."""

import asyncio
import logging

from prefect import task
from prefect.cache_policies import NO_CACHE

from stablequeue import fetches
from stablequeue.engines import open_engine
from stablequeue.engines.base import SupportsRefresh
from stablequeue.errors import PrefectError, QueueError, TargetTaken
from stablequeue.fetchrun import Ended, Fetch, FetchRefused, open_fetch
from stablequeue.models.arriving import fetch_preview, record, write_sidecars
from stablequeue.models.downloads import Downloaded, download
from stablequeue.models.kinds import ModelType
from stablequeue.models.library import Library
from stablequeue.models.sources import access_for
from stablequeue.pipeline.delivery import path_there
from stablequeue.server_blocks import saved_servers
from stablequeue.servers import ServerConfig

__all__ = ["Ended", "FetchRefused", "bring", "enrol", "open_fetch"]

logger = logging.getLogger("stablequeue.models")

_REFRESH_WITHIN_S = 20.0
"""A Forge that makes a picture lists nothing anew before it is done; jobs then ask it again."""


@task(name="download", cache_policy=NO_CACHE, persist_result=False)
async def bring(fetch: Fetch) -> None:
    """Fetch the file, or go on where an earlier process stopped; safe to run twice.

    Raises:
        DownloadError: It cannot be had; `retryable` says whether later is different.
    """
    await fetch.state("Downloading", f"from {fetch.offer.source}")
    access = access_for(fetch.offer, fetch.settings.sources)

    async def carry() -> Downloaded:
        return await download(
            fetch.offer,
            fetch.target,
            access,
            locks=fetch.settings.model_locks,
            progress=fetch.progressed,
        )

    async with fetch.shown():
        try:
            fetch.downloaded = await carry()
        except TargetTaken:
            if not await fetch.use_other_name():
                raise
            fetch.downloaded = await carry()


@task(name="enrol", cache_policy=NO_CACHE, persist_result=False)
async def enrol(fetch: Fetch) -> None:
    """Record the file, write what is known beside it, tell servers, wake who waits.

    Only the first of it can fail a download; the rest is made good by a scan or by the jobs.
    """
    done = fetch.downloaded
    if done is None:
        return
    await fetch.call(lambda: write_sidecars(done.path, fetch.offer, done.sha256))
    await fetch.call(lambda: _record(fetch))
    await _tell_servers(fetch)
    await fetch.state(fetches.FETCHED, f"{fetch.target.name} is there")
    await fetch.wake(f"{fetch.target.name} is there")
    await fetch_preview(done.path, fetch.offer, access_for(fetch.offer, fetch.settings.sources))


def _record(fetch: Fetch) -> None:
    library = Library(fetch.settings.home)
    try:
        record(library, fetch.roots, fetch.target)
    finally:
        library.close()


async def _tell_servers(fetch: Fetch) -> None:
    try:
        servers = await fetch.call(lambda: saved_servers(fetch.api))
    except PrefectError as error:
        logger.warning("servers are not told of %s: %s", fetch.target.name, error)
        return
    reached = [
        one
        for one in servers
        if path_there(one, fetch.target) and (one.models_from == "worker") == bool(fetch.host)
    ]
    await asyncio.gather(*(_refresh(one, ModelType(fetch.kind)) for one in reached))


async def _refresh(server: ServerConfig, kind: ModelType) -> None:
    try:
        async with asyncio.timeout(_REFRESH_WITHIN_S), open_engine(server) as engine:
            if isinstance(engine, SupportsRefresh):
                await engine.refresh({kind})
    except (TimeoutError, QueueError) as error:
        logger.info("%s is not told of a new %s now: %s", server.alias, kind, error)
