"""The workers of several pools, in one process: `python -m stablequeue.worker POOL...`.

With `--follow FILE` the pools are those the file lists (JSON, see `stablequeue.worker.pools`), from
when it appears, and change with it.
"""

import argparse
import logging
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Collection, Sequence
from importlib.metadata import version
from pathlib import Path
from types import FrameType

from stablequeue.errors import QueueError
from stablequeue.processes import LAST_WORDS_S, collect_seldom, end_within
from stablequeue.server_settings import clean_environment, client_environment
from stablequeue.settings import Settings, load
from stablequeue.worker.pools import PoolList

Pools = Callable[[], Collection[str]]

TRIED_VERSIONS = re.compile(r"3\.(8|9)\.\d")
"""Versions of Prefect whose process worker ours extends."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve the pools until stopped; 0, or 1 when it cannot begin."""
    parser = argparse.ArgumentParser(prog="python -m stablequeue.worker", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("pools", nargs="*", default=[], metavar="POOL", help="an alias, or any")
    which.add_argument("--follow", type=Path, metavar="FILE", help="serve what it lists")
    options = parser.parse_args(arguments)
    named: list[str] = list(dict.fromkeys(options.pools))
    pools: Pools = PoolList(options.follow) if options.follow else lambda: named
    try:
        settings = load()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        _take_environment(settings)
        if not TRIED_VERSIONS.match(version("prefect")):
            return _stock_workers(pools)
        collect_seldom()
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


def _stock_workers(pools: Pools) -> int:
    """Run Prefect's own process workers instead: slower, but they run the same flows."""
    logging.getLogger("stablequeue").warning(
        "Prefect %s was not tried with this release; its own process worker runs the flows,"
        " slower, and a run stays RUNNING when the worker is stopped",
        version("prefect"),
    )
    command = [sys.executable, "-m", "prefect", "worker", "start", "--type", "process", "--pool"]
    workers: dict[str, subprocess.Popen[bytes]] = {}
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        stopping.set()

    signal.signal(signal.SIGTERM, stop)
    while not stopping.is_set():
        wanted = pools()
        for pool in wanted:
            if pool not in workers or workers[pool].poll() is not None:
                workers[pool] = subprocess.Popen([*command, pool])  # noqa: S603
        for pool in [name for name in workers if name not in wanted]:
            workers.pop(pool).terminate()
        stopping.wait(1)
    for worker in workers.values():
        worker.terminate()
    return max((worker.wait() for worker in workers.values()), default=0)


if __name__ == "__main__":
    ended = main()
    # Meanwhile the next worker would hold us for alive, and leave what we had claimed
    # (`presence.claim`) alone.
    end_within(LAST_WORDS_S, ended)
    sys.exit(ended)
