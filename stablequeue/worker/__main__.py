"""`python -m stablequeue.worker POOL [POOL...]`: the workers of these pools, in one process."""

import argparse
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from types import FrameType

from stablequeue.errors import QueueError
from stablequeue.server_settings import clean_environment, client_environment
from stablequeue.settings import Settings, load

TRIED_VERSIONS = re.compile(r"3\.(8|9)\.\d")
"""Versions of Prefect whose process worker ours extends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the named pools until stopped; 0, or 1 when it cannot begin."""
    parser = argparse.ArgumentParser(prog="python -m stablequeue.worker", description=__doc__)
    parser.add_argument("pools", nargs="+", metavar="POOL", help="an alias, or any")
    pools: list[str] = parser.parse_args(arguments).pools
    try:
        settings = load()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        _take_environment(settings)
        if not TRIED_VERSIONS.match(version("prefect")):
            return _stock_workers(pools)
        from stablequeue.worker.host import serve  # noqa: PLC0415  imports Prefect

        serve(settings, pools)
    except QueueError as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _take_environment(settings: Settings) -> None:
    """Put Prefect's settings into this process, before Prefect is imported."""
    environment = {**clean_environment(), **client_environment(settings)}
    os.environ.clear()
    os.environ.update(environment)


def _stock_workers(pools: Sequence[str]) -> int:
    """Run Prefect's own process workers instead: slower, but they run the same flows."""
    logging.getLogger("stablequeue").warning(
        "Prefect %s was not tried with this release; its own process worker runs the flows,"
        " slower, and a run stays RUNNING when the worker is stopped",
        version("prefect"),
    )
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool"]
    workers = [subprocess.Popen([*command, pool]) for pool in pools]  # noqa: S603

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for worker in workers:
            worker.terminate()

    signal.signal(signal.SIGTERM, stop)
    return max(worker.wait() for worker in workers)


if __name__ == "__main__":
    sys.exit(main())
