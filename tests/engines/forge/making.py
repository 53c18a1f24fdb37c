"""Requests, jobs and sessions as the tests need them."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from stablequeue.engines.base import EngineJob, RawResult, Resolution, Ticket
from stablequeue.engines.forge import Forge
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.servers import ServerConfig
from tests.engines.forge.scripted import Scripted

RANDOM = "random-sd15.safetensors [01cfe36ece]"
OTHER = "sub dir/other-sd15.safetensors"
SMALL: dict[str, Any] = {"prompt": "a cat", "steps": 4, "width": 64, "height": 64}


def config(server: Scripted | str, **fields: object) -> ServerConfig:
    url = server if isinstance(server, str) else server.url
    basics: dict[str, object] = {"alias": "gpu-a", "type": "forge", "url": url}
    return ServerConfig.model_validate({**basics, "read_timeout_s": 5, **fields})


def request(**fields: Any) -> GenerationRequest:
    return parse_request({**SMALL, "checkpoint": RANDOM, **fields})


def engine_job(
    wanted: GenerationRequest,
    resolution: Resolution,
    *,
    seed: int = 5,
    inputs: Mapping[str, Path] | None = None,
) -> EngineJob:
    return EngineJob(
        job_id=new_job_id(),
        index=0,
        attempt=1,
        seed=seed,
        request=wanted,
        resolution=resolution,
        inputs=inputs or {},
    )


async def resolved(
    engine: Forge, *, seed: int = 5, inputs: Mapping[str, Path] | None = None, **fields: Any
) -> EngineJob:
    """Return a job ready to be submitted."""
    wanted = request(**fields)
    return engine_job(wanted, await engine.resolve(wanted), seed=seed, inputs=inputs)


async def submitted(engine: Forge, **fields: Any) -> Ticket:
    job = await resolved(engine, **fields)
    return await engine.submit(engine.ticket(job), job)


async def made(engine: Forge, spool: Path, **fields: Any) -> RawResult:
    """Do all of it; the server must be automatic."""
    return await engine.collect(await submitted(engine, **fields), spool)


@asynccontextmanager
async def running(engine: Forge, ticket: Ticket, spool: Path) -> AsyncGenerator[Any]:
    """Collect beside the block; yields the task."""
    task = asyncio.create_task(engine.collect(ticket, spool))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Any, *, within_s: float = 10) -> None:
    """Wait until `condition()` is true."""
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.005)


def inside(engine: Forge, name: str) -> Any:
    """Return a part of an engine that only its tests look at."""
    return vars(engine)[f"_{name}"]
