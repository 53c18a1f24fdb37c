"""Begin a job's run: find its server and store among the saved ones, open everything."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectNotFound

from stablequeue.catalogue import AttemptState, Catalogue, StoredRequest
from stablequeue.errors import NotFound, Refused, StoreUnavailable
from stablequeue.flowrun import Ending, Run
from stablequeue.flowrun import open_run as open_flow_run
from stablequeue.pipeline.resolve import EVERY_PARKED, choose_server
from stablequeue.request import GenerationRequest
from stablequeue.server_blocks import SERVER_BLOCK, config_of
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings, load
from stablequeue.storage import Store, open_store
from stablequeue.store_blocks import BUCKET_BLOCK, FOLDER_BLOCK, store_of
from stablequeue.warm import given

__all__ = ["Ending", "open_run", "parameter_now"]


def parameter_now(name: str, given: Any) -> Any:
    """Return a parameter of this run as it is since the run began, `given` where there is none.

    People may change a run's parameters until it starts; a worker may have read it before that.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context is not None else None
    return run.parameters.get(name, given) if run is not None else given


@asynccontextmanager
async def open_run(
    request: Mapping[str, Any] | GenerationRequest, job_id: str, ending: Ending
) -> AsyncGenerator[Run]:
    """Begin this flow run's job; use it in a flow of your own as `flows/generate.py` does.

    Inside, pass the `Run` to the tasks; afterwards return `ending.state`. Expected failures are
    not raised: they are in that state.

    Raises:
        Refused: Not inside a flow run.
    """
    context = FlowRunContext.get()
    client = context.client if context is not None else None
    if context is None or context.flow_run is None or not isinstance(client, PrefectClient):
        message = "open_run works inside a flow run only; call it from a flow"
        raise Refused(message)
    settings = load()
    saved = _Saved(client, settings)
    async with open_flow_run(
        request,
        job_id,
        flow_run_id=UUID(str(context.flow_run.id)),
        deployed_for=await saved.server_of(context.flow_run.deployment_id),
        settings=settings,
        find_server=saved.find_server,
        open_store=saved.open_store,
        ending=ending,
    ) as run:
        yield run


def _begun_on(job_id: str, catalogue: Catalogue) -> set[str]:
    """Return the servers that may still be working on the job."""
    undecided = {AttemptState.OPEN, AttemptState.CANCELLING}
    attempts = catalogue.attempts(job_id)
    return {attempt.server for attempt in attempts if attempt.state in undecided}


class _Saved:
    """The servers and stores saved as blocks, read over the run's own client."""

    def __init__(self, client: PrefectClient, settings: Settings) -> None:
        self._client, self._settings = client, settings
        self._known: dict[str, ServerConfig] = {}

    async def server_of(self, deployment_id: UUID | None) -> str:
        """Return the server a deployment is fixed to: the one its pool is named after; or `any`."""
        if deployment_id is None:
            return ANY
        warm = given.get()
        if warm is not None and warm.pool:
            return warm.pool if warm.pool in warm.servers else ANY
        pool = (await self._client.read_deployment(deployment_id)).work_pool_name
        if not pool or pool == ANY:
            return ANY
        try:
            return (await self._server(pool)).alias
        except NotFound:
            return ANY  # a pool of somebody else's

    async def find_server(
        self, stored: StoredRequest, wanted: str, catalogue: Catalogue
    ) -> ServerConfig:
        """Return the server named, or for `any` the least busy one that can do the job.

        A job that may still run somewhere goes on there and nowhere else.
        """
        if wanted != ANY:
            return await self._server(wanted)
        warm = given.get()
        if warm is not None and warm.server:
            return await self._server(warm.server)
        servers = await self._servers()
        parked = await asyncio.to_thread(catalogue.parked)
        begun = await asyncio.to_thread(_begun_on, stored.job_id, catalogue)
        for server in servers:
            if server.alias in begun:
                if server.alias in parked:
                    raise StoreUnavailable(server.alias, parked[server.alias].reason)
                return server
        if any(not server.sandbox for server in servers):
            servers = [server for server in servers if not server.sandbox]
        free = [server for server in servers if server.alias not in parked]
        if servers and not free:
            reason = next(iter(parked.values())).reason
            raise StoreUnavailable(ANY, f"{EVERY_PARKED}: {reason}")
        pools = {pool.name: pool for pool in await self._client.read_work_pools(limit=200)}
        running = [
            server
            for server in free
            if not ((pool := pools.get(server.alias)) is not None and pool.is_paused)
        ]
        open_attempts = await asyncio.to_thread(catalogue.open_attempts)
        ours = {server.alias: 0 for server in running}
        for attempt in open_attempts:
            if attempt.server in ours:
                ours[attempt.server] += 1
        return await choose_server(
            stored.request, running or free, ours=ours, settings=self._settings
        )

    async def open_store(self, server: ServerConfig, settings: Settings) -> Store:
        """Return the store the server's pictures go to."""
        if not server.store:
            return open_store(settings)
        for slug in (FOLDER_BLOCK, BUCKET_BLOCK):
            try:
                document = await self._client.read_block_document_by_name(
                    server.store, slug, include_secrets=True
                )
            except ObjectNotFound:
                continue
            return open_store(store_of(slug, server.store, document.data))
        message = f"server {server.alias} names a store {server.store!r} that is not saved"
        raise NotFound(message)

    async def _server(self, alias: str) -> ServerConfig:
        if alias in self._known:
            return self._known[alias]
        warm = given.get()
        if warm is not None and alias in warm.servers:
            self._known[alias] = config_of(alias, warm.servers[alias])
            return self._known[alias]
        try:
            document = await self._client.read_block_document_by_name(
                alias, SERVER_BLOCK, include_secrets=True
            )
        except ObjectNotFound:
            message = f"there is no server {alias!r}. List them: stablequeue servers ls"
            raise NotFound(message) from None
        self._known[alias] = config_of(alias, document.data)
        return self._known[alias]

    async def _servers(self) -> list[ServerConfig]:
        documents = await self._client.read_block_documents_by_type(
            SERVER_BLOCK, include_secrets=True, limit=200
        )
        return [config_of(document.name or "", document.data) for document in documents]
