"""A client of Prefect's HTTP API that does not import Prefect, for commands that must be quick."""

from typing import Any

from stablequeue.prefect_api.blocks import BlockCalls
from stablequeue.prefect_api.model import (
    ACTIVE,
    FINAL,
    Artifact,
    BlockDocument,
    Deployment,
    LogLine,
    NewRun,
    Pool,
    Queue,
    Run,
    StateChange,
    StateType,
)
from stablequeue.prefect_api.pools import PoolCalls
from stablequeue.prefect_api.runs import RunCalls, run_filter
from stablequeue.server_settings import api_auth, api_url
from stablequeue.settings import Settings


class PrefectApi(RunCalls, PoolCalls, BlockCalls):
    """A session with Prefect's API; use it with `with`, or close it.

    One object may be used by several threads. Nothing is sent before the first call.
    """

    def version(self) -> str:
        """Return the server's version, e.g. 3.8.8."""
        return str(self.call("GET", "admin/version"))

    def server_settings(self) -> dict[str, Any]:
        """Return the server's settings as it tells them, secrets starred."""
        return dict(self.call("GET", "admin/settings"))

    def healthy(self) -> bool:
        """Whether it answers; raises `PrefectUnreachable` when it does not."""
        return self.call("GET", "health") is True


def open_prefect(settings: Settings, *, timeout_s: float = 30.0) -> PrefectApi:
    """Return a session with the Prefect API of this installation.

    Raises:
        SettingsError: Its address is not known, or the secrets cannot be read.
    """
    return PrefectApi(api_url(settings), api_auth(settings), timeout_s=timeout_s)


__all__ = [
    "ACTIVE",
    "FINAL",
    "Artifact",
    "BlockDocument",
    "Deployment",
    "LogLine",
    "NewRun",
    "Pool",
    "PrefectApi",
    "Queue",
    "Run",
    "StateChange",
    "StateType",
    "open_prefect",
    "run_filter",
]
