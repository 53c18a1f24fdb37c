"""How a run gives its place back without an end: it waits again, and Prefect is told to let go."""

import logging

from prefect.exceptions import Abort


class _NoEnd(logging.Filter):
    """Leaves out what Prefect logs as an error where a run is let go while it counts as running."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Finished in state Running(")


_no_end = _NoEnd()


def given_back(why: str) -> Abort:
    """Return what a flow raises once its run waits again; `why` is for the log."""
    # Nothing ended, and what is red in the log of a job looks like a failure to people.
    logging.getLogger("prefect.flow_runs").addFilter(_no_end)
    return Abort(why)
