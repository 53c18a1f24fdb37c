"""Before generating: may it start, where does it run, and what are the exact names there."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from stablequeue.engines import open_engine
from stablequeue.engines.base import ServerInfo
from stablequeue.errors import (
    EngineAuthFailed,
    EngineError,
    EngineUnreachable,
    JobRejected,
    ModelMissing,
    NotFound,
    QueueError,
    SettingsError,
    Unsupported,
)
from stablequeue.pipeline.job import Job, logger
from stablequeue.pipeline.obtaining import obtainable
from stablequeue.request import GenerationRequest
from stablequeue.servers import ANY, ServerConfig
from stablequeue.settings import Settings

EVERY_PARKED = "every server is parked"
"""Why jobs for any server are parked; they go on by themselves once one of them is not."""

_PROBE_WITHIN_S = 20.0


async def resolve(job: Job) -> None:
    """Ask the server what it is and for its exact names; check that the store takes pictures.

    The store comes first: a picture nobody can keep is not worth the card's time.

    Raises:
        StoreUnavailable: The store would not take the result.
        JobRejected: The server cannot do this job (ModelMissing, Unsupported).
        EngineUnreachable: Retryable.
    """
    if job.request.app_types and job.server.type not in job.request.app_types:
        raise _wrong_kind(job.request, job.server)
    await job.call(job.store.check)
    job.info = await job.engine.probe()
    job.resolution = await job.engine.resolve(job.request)
    logger.info(
        "resolved on %s %s: %s",
        job.info.flavour,
        job.info.version,
        job.resolution.checkpoint or job.resolution.unet or job.request.mode.value,
    )


def _wrong_kind(request: GenerationRequest, server: ServerConfig) -> Unsupported:
    kinds = ", ".join(sorted(request.app_types))
    return Unsupported(server.alias, "server", f"this job needs {kinds}, this is {server.type}")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A server that can do the job, and how busy it is."""

    server: ServerConfig
    info: ServerInfo
    ours: int

    @property
    def load(self) -> tuple[int, int, str]:
        """Sort key: fewest jobs there, then fewest of ours, then by name."""
        return (max(self.info.queue_length, self.ours), self.ours, self.server.alias)


async def choose_server(
    request: GenerationRequest,
    servers: Sequence[ServerConfig],
    *,
    ours: Mapping[str, int],
    settings: Settings | None = None,
) -> ServerConfig:
    """Return the least busy server that can do the job now.

    Args:
        request: What is asked.
        servers: Saved servers that are not paused or parked.
        ours: Open attempts of ours by alias, for servers whose own queue does not show them.
        settings: Where the library of models is; a model that can be had from it, or fetched into
            it, is no lack. None: what a server has not, it lacks.

    Raises:
        NotFound: There is no server at all.
        JobRejected: None can ever do it; says what each lacks.
        EngineAuthFailed: Every one refuses our credentials.
        EngineUnreachable: Those that might do it do not answer. Retryable.
    """
    if not servers:
        message = "there is no server to run on. Add one: stablequeue servers add"
        raise NotFound(message)
    answers = await asyncio.gather(
        *(_candidate(request, server, ours.get(server.alias, 0), settings) for server in servers)
    )
    able = [answer for answer in answers if isinstance(answer, Candidate)]
    if able:
        return min(able, key=lambda candidate: candidate.load).server
    refusals = [answer for answer in answers if isinstance(answer, QueueError)]
    reasons = " · ".join(str(refusal) for refusal in refusals)
    if any(refusal.retryable for refusal in refusals):
        raise EngineUnreachable(ANY, f"no server can take it now: {reasons}")
    if all(isinstance(refusal, EngineAuthFailed) for refusal in refusals):
        raise EngineAuthFailed(ANY, reasons)
    missing = [refusal for refusal in refusals if isinstance(refusal, ModelMissing)]
    if len(missing) == len(refusals):
        like = dict.fromkeys(name for refusal in missing for name in refusal.suggestions)
        raise ModelMissing(ANY, missing[0].field, missing[0].name, tuple(like))
    raise JobRejected(ANY, f"no server can do it: {reasons}")


async def _candidate(
    request: GenerationRequest, server: ServerConfig, ours: int, settings: Settings | None
) -> Candidate | QueueError:
    if request.app_types and server.type not in request.app_types:
        return _wrong_kind(request, server)
    try:
        async with asyncio.timeout(_PROBE_WITHIN_S), open_engine(server) as engine:
            info = await engine.probe()
            try:
                await engine.resolve(request)
            except ModelMissing as missing:
                hopeful = settings is not None
                if not (hopeful and await obtainable(server, request, missing, settings)):
                    raise
            return Candidate(server, info, ours)
    except TimeoutError:
        return EngineUnreachable(server.alias, f"no answer within {_PROBE_WITHIN_S:.0f} s")
    except (EngineError, SettingsError) as error:  # SettingsError: its engine is not installed
        return error
