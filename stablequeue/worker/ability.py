"""Whether a server can do a job at all: asked of the server, remembered for a while."""

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stablequeue.engines import open_engine
from stablequeue.errors import EngineError, ModelMissing, QueueError
from stablequeue.pipeline.obtaining import obtainable
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings

GOOD_FOR_S = 60.0
_REFUSED_GOOD_FOR_S = 20.0
_AWAY_FOR_S = 3.0
_WITHIN_S = 20.0
_WITHOUT = {"prompt", "negative_prompt", "seed", "tags", "tier", "source", "expires_at", "count"}


@dataclass(frozen=True, slots=True)
class Lack:
    """Why a server does not get a job.

    Attributes:
        reason: One line for people; empty: nothing is lacking.
        final: It will not change by itself.
        until: Monotonic seconds; ask again then.
    """

    reason: str = ""
    final: bool = False
    until: float = 0.0


class Abilities:
    """Answers of servers, by what a request needs.

    Args:
        settings: Where the library of models is, and what may be fetched into it; None: nothing.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._settings = settings
        self._known: dict[tuple[str, str], Lack] = {}

    async def close(self) -> None:
        """Forget everything."""
        self._known.clear()

    async def lacks(self, server: ServerConfig, request: Mapping[str, Any]) -> Lack:
        """Say whether the server can do the job now.

        Args:
            server: As saved.
            request: The run's parameter, not validated yet.
        """
        key = (f"{server.alias} {server.url}", _needs(request))
        known = self._known.get(key)
        if known is not None and time.monotonic() < known.until:
            return known
        try:
            wanted = parse_request(request)
            async with asyncio.timeout(_WITHIN_S), open_engine(server) as engine:
                await engine.probe()
                try:
                    await engine.resolve(wanted)
                except ModelMissing as missing:
                    if not await self._obtainable(server, wanted, missing):
                        raise
            lack = Lack(until=time.monotonic() + GOOD_FOR_S)
        except TimeoutError:
            reason = f"{server.alias} does not answer within {_WITHIN_S:.0f} s"
            lack = Lack(reason, until=time.monotonic() + _AWAY_FOR_S)
        except EngineError as error:
            good_for = _AWAY_FOR_S if error.retryable else _REFUSED_GOOD_FOR_S
            lack = Lack(str(error), not error.retryable, time.monotonic() + good_for)
        except QueueError:
            return Lack()  # a bad request: the flow refuses it, in the same words for every way in
        self._known[key] = lack
        return lack

    async def _obtainable(
        self, server: ServerConfig, request: GenerationRequest, missing: ModelMissing
    ) -> bool:
        """Whether what it lacks is no lack: it is in the library, or may be fetched into it."""
        if self._settings is None:
            return False
        return await obtainable(server, request, missing, self._settings)


def _needs(request: Mapping[str, Any]) -> str:
    kept = {name: value for name, value in request.items() if name not in _WITHOUT}
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
