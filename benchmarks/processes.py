"""What starting a run's process costs: `python -m benchmarks.processes`.

Persistent processes forked from a template, one fork a run, and a new Python a run, each through
the worker's own `Runners`.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks.house import cpu_by_module, free_port, memory_by_module, until
from benchmarks.report import load
from stablequeue.server_settings import api_url, clean_environment, client_environment
from stablequeue.settings import Settings
from stablequeue.worker.runners import CAN_FORK, MOST_RUNS, Runners

WAYS: Mapping[str, tuple[int, bool]] = {
    "persistent, forked from a template": (MOST_RUNS, True),
    "one fork a run": (1, True),
    "persistent, a new Python": (MOST_RUNS, False),
    "a new Python a run": (1, False),
}


@contextmanager
def prefect_server() -> Generator[dict[str, str]]:
    """Run our Prefect server in a folder of its own; yield the environment of its users."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder) / "home", prefect_port=free_port())
        environment = {
            **clean_environment(),
            "STABLEQUEUE_HOME": str(settings.home),
            "STABLEQUEUE_PREFECT_PORT": str(settings.prefect_port),
        }
        server = subprocess.Popen(
            [sys.executable, "-m", "stablequeue.server"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            until(lambda: _answers(settings), within_s=120, every_s=0.2)
            yield environment | client_environment(settings)
        finally:
            server.terminate()
            server.wait(30)


def _answers(settings: Settings) -> bool:
    try:
        return httpx.get(f"{api_url(settings)}/health", timeout=5).is_success
    except httpx.HTTPError:
        return False


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
    with prefect_server() as environment:
        os.environ.clear()
        os.environ.update(environment)
        print(
            "| process | ready after, median (longest) | CPU a run | host and two of them | load |"
        )
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
