"""What processes know of themselves."""

import subprocess
import sys
import time

STUCK = (
    "import threading, time\n"
    "from stablequeue.processes import end_within\n"
    "threading._register_atexit(time.sleep, 60)\n"  # as Prefect waits for its server
    "end_within(0.2, 3)\n"
)


def test_a_process_ends_in_time_whatever_it_waits_for_at_its_end() -> None:
    begun = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", STUCK], check=False, timeout=50)
    assert ended.returncode == 3
    assert time.monotonic() - begun < 30
