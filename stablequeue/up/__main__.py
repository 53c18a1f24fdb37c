"""`python -m stablequeue.up`: what the command `stablequeue up` runs."""

import sys

from stablequeue.errors import QueueError
from stablequeue.settings import load
from stablequeue.up import run


def main() -> int:
    """Run everything with the settings in force; 0, or 1 with one line saying why not."""
    try:
        return run(load(), say=lambda text: print(text, flush=True))  # noqa: T201 - its output
    except QueueError as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201 - its output
        return 1


if __name__ == "__main__":
    sys.exit(main())
