"""Remote jobs of ours that nobody follows any more: waited for, or stopped, before others begin."""

import asyncio
import logging
from collections.abc import Callable, Collection
from datetime import UTC, datetime

from stablequeue.catalogue import Attempt, AttemptState, Catalogue, open_catalogue
from stablequeue.engines import open_engine
from stablequeue.engines.base import Engine, Located
from stablequeue.errors import EngineUnreachable, QueueError
from stablequeue.ids import short_id
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings

logger = logging.getLogger("stablequeue.worker")

_LOOK_EVERY_S = 0.5
_UNREACHABLE_S = 20.0
"""A server that does not answer for so long is taken to have stopped with all its jobs."""

_UNDECIDED = (AttemptState.OPEN, AttemptState.CANCELLING)


class Tickets:
    """Settles open attempts on servers.

    Args:
        settings: Where the catalogue is.
        followed: Gives the job ids some living run follows now.
    """

    def __init__(self, settings: Settings, followed: Callable[[], Collection[str]]) -> None:
        self._settings = settings
        self._followed = followed
        self._catalogue: Catalogue | None = None

    def close(self) -> None:
        """Close the catalogue."""
        if self._catalogue is not None:
            self._catalogue.close()

    async def settle(self, servers: Collection[ServerConfig], job: str) -> None:
        """Return once nothing of ours runs on these servers but what is followed, or is `job`'s.

        Args:
            servers: Those of one card.
            job: The job that is to generate next: it looks after its own tickets.
        """
        for server in servers:
            attempts = await asyncio.to_thread(self._open, server.alias)
            left = [
                attempt
                for attempt in attempts
                if attempt.job_id != job and attempt.job_id not in self._followed()
            ]
            if left:
                await self._settle_all(server, left)

    async def settle_job(self, server: ServerConfig, job: str) -> None:
        """Return once a cancelled job's remote jobs are known to have stopped there."""
        attempts = await asyncio.to_thread(self._open, server.alias)
        mine = [attempt for attempt in attempts if attempt.job_id == job]
        if mine:
            await self._settle_all(server, mine, cancelled=True)

    async def begun_on(self, job: str) -> set[str]:
        """Return the servers that may still be working on a job."""
        attempts = await asyncio.to_thread(lambda: self._opened().attempts(job))
        return {attempt.server for attempt in attempts if attempt.state in _UNDECIDED}

    def _opened(self) -> Catalogue:
        if self._catalogue is None:
            self._catalogue = open_catalogue(self._settings.catalogue)
        return self._catalogue

    def _open(self, alias: str) -> list[Attempt]:
        return self._opened().open_attempts(server=alias, states=_UNDECIDED)

    async def _settle_all(
        self, server: ServerConfig, attempts: list[Attempt], *, cancelled: bool = False
    ) -> None:
        logger.info("%s: %d jobs of ours may still be there", server.alias, len(attempts))
        try:
            async with open_engine(server) as engine:
                for attempt in attempts:
                    await self._settle_one(engine, server, attempt, cancelled=cancelled)
        except QueueError as error:
            logger.warning("%s: what is left there is not known: %s", server.alias, error)

    async def _settle_one(
        self, engine: Engine, server: ServerConfig, attempt: Attempt, *, cancelled: bool
    ) -> None:
        unreachable = 0.0
        while cancelled or attempt.job_id not in self._followed():
            try:
                if cancelled or attempt.state is AttemptState.CANCELLING:
                    if await engine.cancel(attempt.ticket):
                        await self._end(attempt)
                        return
                elif await engine.locate(attempt.ticket) not in {Located.QUEUED, Located.RUNNING}:
                    return
                unreachable = 0.0
            except EngineUnreachable:
                unreachable += _LOOK_EVERY_S
                if unreachable >= _UNREACHABLE_S:
                    logger.warning("%s does not answer; the card is free", server.alias)
                    return
            await asyncio.sleep(_LOOK_EVERY_S)

    async def _end(self, attempt: Attempt) -> None:
        catalogue = self._opened()
        note = f"settled {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
        await asyncio.to_thread(
            catalogue.update_attempt, attempt.id, AttemptState.CANCELLED, note=note
        )
        logger.info("job=%s is known to have stopped", short_id(attempt.job_id))
