"""`python -m deployments`, in the project's folder: see the package."""

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from deployments.unchanged import fingerprint, is_made, remember
from stablequeue.errors import QueueError, Refused
from stablequeue.prefect_api import open_prefect
from stablequeue.processes import collect_seldom
from stablequeue.project import enter, project_dir
from stablequeue.secrets import private_folder
from stablequeue.server_blocks import saved_servers
from stablequeue.server_settings import clean_environment, client_environment, running_url
from stablequeue.settings import Settings, load
from stablequeue.worker.ahead import MOST_LIMIT

if TYPE_CHECKING:
    from deployments.bootstrap import Report

_OTHERS_TAKE_S = 60.0
_POLL_S = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply the saved servers and `prefect.yaml`; 0, or 1 with one line saying why not."""
    options = _parser().parse_args(arguments)
    try:
        settings = load()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        done = _apply(settings, options)
    except QueueError as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if options.json:
        print(json.dumps(done))  # noqa: T201
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    parser.add_argument(
        "--limit",
        type=int,
        default=MOST_LIMIT,
        help="runs of one server at once, for pools made now",
    )
    parser.add_argument("--anew", action="store_true", help="also what seems unchanged")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    parser.add_argument(
        "--sandbox-url", default="", metavar="URL", help="save the sandbox if no server is saved"
    )
    parser.add_argument(
        "--wait", type=float, default=0.0, metavar="SECONDS", help="for Prefect's server to start"
    )
    parser.add_argument(
        "--ahead", action="store_true", help="import Prefect meanwhile; there is much to do"
    )
    return parser


def _apply(settings: Settings, options: argparse.Namespace) -> list[str]:
    if options.ahead:
        _prepare(settings)
    _wait_for_server(settings, options.wait)
    lock = FileLock(private_folder(settings.run_folder) / "deployments.lock")
    try:
        with lock.acquire(timeout=_OTHERS_TAKE_S), open_prefect(settings) as api:
            servers = saved_servers(api)
            mark = fingerprint(servers, project_dir(), limit=options.limit)
            same = is_made(api, servers, mark, sandbox_url=options.sandbox_url)
            if same and not options.anew:
                return []
            bootstrap = _prepare(settings)
            report = bootstrap(api, limit=options.limit, sandbox_url=options.sandbox_url)
            mark = fingerprint(report.servers, project_dir(), limit=options.limit)
            remember(api, "" if report.unfinished else mark)
            return list(report.changed)
    except Timeout:
        message = "pools and deployments are being made by another process; try again"
        raise Refused(message) from None


def _prepare(settings: Settings) -> "Callable[..., Report]":
    """Take Prefect's settings and the project's folder, then import what needs both."""
    environment = {**clean_environment(), **client_environment(settings)}
    os.environ.clear()
    os.environ.update(environment)
    enter()
    collect_seldom()
    from deployments.bootstrap import bootstrap  # noqa: PLC0415  imports Prefect

    return bootstrap


def _wait_for_server(settings: Settings, within_s: float) -> None:
    """Return when Prefect's server takes requests, or at the latest after so many seconds."""
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if settings.prefect_api_url or running_url(settings):
            return
        time.sleep(_POLL_S)


if __name__ == "__main__":
    sys.exit(main())
