"""Which processes `stablequeue up` runs, and how each is started."""

from collections.abc import Sequence
from pathlib import Path

from stablequeue.project import project_dir
from stablequeue.server_settings import clean_environment, client_environment
from stablequeue.settings import Settings
from stablequeue.up.processes import Child
from stablequeue.worker.pools import PoolList

_TETHERED = ("-m", "stablequeue.tethered")


class Children:
    """Makes the child processes of one installation; starting them is left to the caller.

    Args:
        settings: This installation's.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def prefect(self) -> Child:
        """Return Prefect's server. On a free port, it takes the same one when it starts again."""
        return self._child(
            "prefect", "stablequeue.server", environment=clean_environment(), stop_within_s=12.0
        )

    def worker(self, pools: PoolList) -> Child:
        """Return the one process with the workers of every pool in the list."""
        return self._child(
            "worker",
            "stablequeue.worker",
            ["--follow", str(pools.file)],
            folder=project_dir(),
            stop_within_s=15.0,
        )

    def sandbox(self, port: int) -> Child:
        """Return the built-in server, speaking both protocols on one port."""
        return self._child(
            "sandbox",
            "stablequeue.sandbox",
            [
                *("--protocol", "both", "--port", str(port)),
                *("--home", str(self._settings.home / "sandbox")),
            ],
            environment=clean_environment(),
        )

    def deployments(self, arguments: Sequence[str] = ()) -> Child:
        """Return what makes pools and deployments of the saved servers, and then ends."""
        return self._child("deployments", "deployments", arguments, folder=project_dir())

    def _child(
        self,
        name: str,
        module: str,
        arguments: Sequence[str] = (),
        *,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        stop_within_s: float = 10.0,
    ) -> Child:
        if environment is None:
            environment = {**clean_environment(), **client_environment(self._settings)}
        ours = {"STABLEQUEUE_HOME": str(self._settings.home), "PYTHONUNBUFFERED": "1"}
        return Child(
            name=name,
            arguments=[*_TETHERED, module, *arguments],
            environment={**environment, **ours},
            log=self._settings.home / "logs" / f"{name}.log",
            folder=folder,
            stop_within_s=stop_within_s,
        )
