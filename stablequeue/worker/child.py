"""The process of one flow run: `python -m stablequeue.worker.child`, started by the worker.

It is `python -m prefect.engine` holding the run's lock (`stablequeue.worker.presence`). Ctrl-C in
a terminal is not for it: the worker tells it when to end.
"""

import logging
import os
import runpy
import signal
import sys

from stablequeue.errors import QueueError
from stablequeue.processes import collect_seldom
from stablequeue.settings import load
from stablequeue.worker.presence import present


def main() -> int:
    """Run the flow run that `PREFECT__FLOW_RUN_ID` names; return the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    collect_seldom()
    try:
        settings = load()
        # What we say to servers is told by Prefect's handlers (PREFECT_LOGGING_EXTRA_LOGGERS).
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        with present(settings, os.environ.get("PREFECT__FLOW_RUN_ID", "")):
            runpy.run_module("prefect.engine", run_name="__main__", alter_sys=True)
    except (QueueError, ValueError) as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
