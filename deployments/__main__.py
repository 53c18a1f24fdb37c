"""`python -m deployments`, in the project's folder: see the package."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence

from filelock import FileLock, Timeout

from deployments.unchanged import fingerprint, is_made, remember
from stablequeue.errors import QueueError, Refused
from stablequeue.prefect_api import open_prefect
from stablequeue.project import enter, project_dir
from stablequeue.secrets import private_folder
from stablequeue.server_blocks import saved_servers
from stablequeue.server_settings import clean_environment, client_environment
from stablequeue.settings import Settings, load

_OTHERS_TAKE_S = 60.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Apply the saved servers and `prefect.yaml`; 0, or 1 with one line saying why not."""
    parser = argparse.ArgumentParser(prog="python -m deployments", description=__doc__)
    parser.add_argument(
        "--limit", type=int, default=1, help="runs of one server at once, for pools made now"
    )
    parser.add_argument("--anew", action="store_true", help="also what seems unchanged")
    parser.add_argument("--json", action="store_true", help="print the changes as JSON")
    options = parser.parse_args(arguments)
    try:
        settings = load()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        done = _apply(settings, limit=options.limit, anew=options.anew)
    except QueueError as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
        return 1
    if options.json:
        print(json.dumps(done))  # noqa: T201
    return 0


def _apply(settings: Settings, *, limit: int, anew: bool) -> list[str]:
    lock = FileLock(private_folder(settings.run_folder) / "deployments.lock")
    try:
        with lock.acquire(timeout=_OTHERS_TAKE_S), open_prefect(settings) as api:
            servers = saved_servers(api)
            mark = fingerprint(servers, project_dir(), limit=limit)
            if not anew and is_made(api, servers, mark):
                return []
            environment = {**clean_environment(), **client_environment(settings)}
            os.environ.clear()
            os.environ.update(environment)
            enter()
            from deployments.bootstrap import bootstrap  # noqa: PLC0415  imports Prefect

            report = bootstrap(api, limit=limit)
            remember(api, "" if report.unfinished else mark)
            return list(report.changed)
    except Timeout:
        message = "pools and deployments are being made by another process; try again"
        raise Refused(message) from None


if __name__ == "__main__":
    sys.exit(main())
