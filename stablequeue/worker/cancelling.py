"""The remote jobs of cancelled runs, until they are known to have stopped.

A run sends one interrupt and leaves. If its server does not confirm it at once, or the run could
not send it, this asks on; until then the run is shown as Cancelling, and its card is not free.
"""

import logging
from collections.abc import Callable, Coroutine
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from stablequeue.ids import short_id
from stablequeue.servers import ServerConfig
from stablequeue.worker.tickets import Tickets

logger = logging.getLogger("stablequeue.worker")


class Cancelling:
    """Asks servers until what was cancelled has stopped there.

    Args:
        client: Open when something is asked.
        tickets: Finds and stops the remote jobs.
        occupied: Told the key of a card that something cancelled may still use.
        begin: Runs work beside everything else.
    """

    def __init__(
        self,
        client: PrefectClient,
        tickets: Tickets,
        occupied: Callable[[str], None],
        begin: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._client = client
        self._tickets = tickets
        self._occupied = occupied
        self._begin = begin
        self._runs: set[str] = set()

    def stop(self, run_id: str, job_id: str, server: ServerConfig) -> None:
        """Ask a cancelled job's server until it has stopped; only then its run says Cancelled."""
        if run_id not in self._runs:
            self._runs.add(run_id)
            self._begin(self._stop(run_id, job_id, server))

    def still_there(self, run_id: str) -> bool:
        """Whether a cancelled run's remote job is not known to have stopped yet."""
        return run_id in self._runs

    async def _stop(self, run_id: str, job_id: str, server: ServerConfig) -> None:
        self._occupied(server.card_key)
        try:
            await self._tickets.settle_job(server, job_id)
        finally:
            self._runs.discard(run_id)
        try:
            run = await self._client.read_flow_run(UUID(run_id))
            if run.state is not None and run.state.is_cancelling():
                state = Cancelled(message="Cancelled by a person")
                await self._client.set_flow_run_state(UUID(run_id), state, force=True)
        except (ObjectNotFound, httpx.HTTPError) as error:
            logger.warning("job=%s is left to be settled: %s", short_id(job_id), error)
