"""One retryable unit each; compose them in a flow of your own as `flows/generate.py` does.

Expected failures are one line in a run's log: a traceback of ours tells a person nothing.
"""

import logging

from stablequeue.errors import QueueError


class _OneLine(logging.Filter):
    """Drops the traceback of failures whose message already says what to do."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], QueueError):
            record.exc_info = None
            record.exc_text = None
        return True


for _name in ("prefect.task_runs", "prefect.flow_runs", "prefect.engine"):
    _logger = logging.getLogger(_name)
    if not any(isinstance(existing, _OneLine) for existing in _logger.filters):
        _logger.addFilter(_OneLine())
