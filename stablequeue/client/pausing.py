"""Pausing and resuming servers and tiers, and waiting until a server is empty."""

import re
import time
from collections.abc import Callable

from stablequeue.client.session import Session
from stablequeue.errors import BadRequest, NotFound
from stablequeue.prefect_api import ACTIVE, run_filter
from stablequeue.servers import ALIAS_PATTERN, ANY
from stablequeue.views import TIERS
from stablequeue.worker import WORKER_TYPE

_EVERY_S = 1.0

OnLeft = Callable[[int], None]
"""Told how many jobs still run, whenever that changed."""


class Pausing:
    """Pauses and resumes, for one `Session`."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def pause(self, server: str = "", tier: str = "") -> list[str]:
        """Start no more jobs; see `Client.pause`."""
        api = self._session.api
        names = self._pools(server)
        for name in names:
            if tier:
                api.pause_queue(name, _checked(tier))
            else:
                api.pause_pool(name)
        return [_named(name, tier) for name in names]

    def resume(self, server: str = "", tier: str = "") -> list[str]:
        """Start jobs again, parked ones too; see `Client.resume`."""
        api = self._session.api
        names = self._pools(server)
        for name in names:
            if tier:
                api.resume_queue(name, _checked(tier))
            else:
                api.resume_pool(name)
                self._session.catalogue.unpark(name)
        return [_named(name, tier) for name in names]

    def drain(self, server: str, *, on_left: OnLeft | None, timeout: float | None) -> int:
        """Pause a server and wait until nothing runs on it; see `Client.drain`."""
        self.pause(self._known(server))
        began = time.monotonic()
        told = -1
        while True:
            left = self.running(server)
            if left != told and on_left is not None:
                on_left(left)
            told = left
            if not left or (timeout is not None and time.monotonic() - began >= timeout):
                return left
            time.sleep(_EVERY_S)

    def running(self, server: str) -> int:
        """Return how many jobs run on a server, those from the shared pool included."""
        api = self._session.api
        own = api.count_runs(run_filter(pools=[server], states=ACTIVE))
        if server == ANY:
            return own
        shared = run_filter(pools=[ANY], states=ACTIVE, tags_all=[f"server:{server}"])
        return own + api.count_runs(shared)

    def _known(self, server: str) -> str:
        [name] = self._pools(server or "-")
        self._session.api.pool(name)  # raises NotFound
        return name

    def _pools(self, server: str) -> list[str]:
        if server:
            if not re.fullmatch(ALIAS_PATTERN, server):  # it becomes part of an address
                message = f"there is no server {server[:50]!r}; stablequeue servers ls lists them"
                raise NotFound(message)
            return [server]
        return [pool.name for pool in self._session.api.pools(kind=WORKER_TYPE)]


def _checked(tier: str) -> str:
    if tier not in TIERS:
        raise BadRequest("tier", f"there is no tier {tier!r}", TIERS)
    return tier


def _named(server: str, tier: str) -> str:
    return f"{server} ({tier})" if tier else server
