"""Runs a module that ends with whoever started it: `python -m stablequeue.tethered MODULE ...`.

The parent holds the other end of our standard input and never writes to it. When it dies, however
it dies, that end closes, and we end as SIGTERM would end us. Without this, a killed `stablequeue
up` would leave a Prefect server behind that keeps its port and its lock from the next one.
"""

import os
import runpy
import signal
import sys
import threading


def main() -> None:
    """Run the module that the command line names as `__main__`."""
    threading.Thread(target=_end_with_parent, daemon=True, name="tether").start()
    del sys.argv[0]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    if os.name == "posix":
        os.kill(os.getpid(), signal.SIGTERM)  # to the process, so that the main thread wakes
    else:
        signal.raise_signal(signal.SIGTERM)


if __name__ == "__main__":
    main()
