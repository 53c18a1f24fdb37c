"""What starting a run's process costs: `python -m benchmarks.processes`.

Persistent processes forked from a template, one fork a run, and a new Python a run, each through
the worker's own `Runners`, without Prefect's server.
"""

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Mapping

from benchmarks.house import cpu_by_module, memory_by_module
from benchmarks.report import load
from stablequeue.server_settings import clean_environment
from stablequeue.worker.runners import CAN_FORK, MOST_RUNS, Runners

WAYS: Mapping[str, tuple[int, bool]] = {
    "persistent, forked from a template": (MOST_RUNS, True),
    "one fork a run": (1, True),
    "persistent, a new Python": (MOST_RUNS, False),
    "a new Python a run": (1, False),
}


async def measure(most_runs: int, fork: bool, runs: int) -> tuple[float, float, float, float]:
    """Return median and longest seconds until a process is ready, CPU a run, and memory in MiB."""
    runners = Runners(lambda _runner, _message: None, most_runs=most_runs, fork=fork, spare=0)
    await runners.start()
    taken: list[float] = []
    me = {"host": os.getpid()}
    try:
        runners.give_back(await runners.take())  # the template, or the first one
        before = sum(cpu_by_module(me).values())
        for _ in range(runs):
            begun = time.perf_counter()
            runner = await runners.take()
            taken.append(time.perf_counter() - begun)
            runner.runs += 1
            runners.give_back(runner)
            await asyncio.sleep(0.2)  # it ends, if it does
        cpu = (sum(cpu_by_module(me).values()) - before) / runs
        held = [await runners.take() for _ in range(2)]
        memory = sum(memory_by_module(me).values())
        for runner in held:
            runners.give_back(runner)
    finally:
        await runners.close()
    return statistics.median(taken), max(taken), cpu, memory


def main() -> None:
    """Measure every way and print the table."""
    parser = argparse.ArgumentParser(description="What starting a run's process costs.")
    parser.add_argument("--runs", type=int, default=10, help="of each way")
    options = parser.parse_args()
    environment = clean_environment()
    os.environ.clear()
    os.environ.update(environment)
    print("| process | ready after, median (longest) | CPU a run | host and two of them | load |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, (most_runs, fork) in WAYS.items():
        if fork and not CAN_FORK:
            continue
        median, longest, cpu, memory = asyncio.run(measure(most_runs, fork, options.runs))
        print(
            f"| {name} | {median * 1000:.0f} ms ({longest * 1000:.0f}) | {cpu:.2f} s"
            f" | {memory:.0f} MB | {load()} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
