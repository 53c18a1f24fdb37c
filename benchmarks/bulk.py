"""Many jobs at once, and a long queue: `python -m benchmarks.bulk [--waiting 10000]`.

Accepts 1,000 jobs and waits until all are flow runs, fills the queue in the same way, and measures
`ls` and `move` there. Everything runs through one `stablequeue up` whose servers are paused.
"""

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.house import CHECKPOINT, House
from benchmarks.report import Figure, load, seconds
from stablequeue.client import Client

JOBS = 1000
WAITING = 10_000
ROUNDS = 5


def requests(count: int, tag: str) -> list[dict[str, Any]]:
    """Return requests as a script would write them."""
    return [
        {
            "prompt": f"a lighthouse at night, number {number}, detailed",
            "negative_prompt": "blurry",
            "server": "sandbox",
            "checkpoint": CHECKPOINT,
            "steps": 4,
            "width": 64,
            "height": 64,
            "tags": [tag],
        }
        for number in range(count)
    ]


def submit(client: Client, count: int, tag: str) -> tuple[float, float, float]:
    """Queue jobs; return seconds until all are accepted, their CPU, and until all are runs."""
    begun, cpu = time.perf_counter(), time.process_time()
    accepted: list[tuple[float, float]] = []

    def tell(on_disk: int, _sent: int) -> None:
        if on_disk == count and not accepted:
            accepted.append((time.perf_counter() - begun, time.process_time() - cpu))

    jobs = client.submit_many(requests(count, tag), on_progress=tell)
    assert not [job.note for job in jobs if job.note]
    return *accepted[0], time.perf_counter() - begun


def bulk(house: House, client: Client) -> Iterator[Figure]:
    """Measure submitting 1,000 jobs into an empty queue."""
    client.submit_many(requests(1, "first"))  # everything has been used once
    begun = house.cpu_s()
    accepted, own_cpu, created = submit(client, JOBS, "measured")
    cpu = (house.cpu_s() - begun) / JOBS
    unit = f"{JOBS:,} jobs"
    yield Figure(
        f"accept {unit} durably", f"{accepted:.2f} s", "3 s", f"{own_cpu:.2f} s of CPU", load()
    )
    yield Figure(
        f"{unit} are flow runs",
        f"{created:.1f} s",
        "30 s",
        f"accepting included; all of `up`: {cpu * 1000:.0f} ms of CPU a run",
        load(),
    )


def long_queue(house: House, client: Client, waiting: int) -> Iterator[Figure]:
    """Measure looking at a long queue, and moving in it."""
    there = len(client.waiting())
    if there < waiting:
        submit(client, waiting - there, "filling")
    name = f"{waiting:,} jobs waiting"
    jobs = client.jobs(server="sandbox", limit=200)
    front = iter(jobs[100:])
    after = iter(jobs[150:])
    for what, act in (
        ("Client.jobs, 50 shown", lambda: client.jobs(limit=50)),
        ("Client.jobs of a server", lambda: client.jobs(server="sandbox", limit=50)),
        ("move --front", lambda: client.move_front(next(front).job_id)),
        ("move --after", lambda: client.move([next(after).job_id], after=jobs[20].job_id)),
    ):
        yield Figure(f"{what}, {name}", seconds(_timed(act)), "1 s", "", load())
    taken = [house.command("ls") for _ in range(ROUNDS)]
    yield Figure(f"`stablequeue ls`, {name}", seconds(taken), "1 s", "with its start", load())
    taken = [house.command("move", jobs[at].job_id, "--front") for at in range(60, 60 + ROUNDS)]
    yield Figure(
        f"`stablequeue move --front`, {name}", seconds(taken), "1 s", "with its start", load()
    )
    begun = time.perf_counter()
    changes = client.move([job.job_id for job in jobs], tier="bulk")
    took = time.perf_counter() - begun
    moved = sum(change.done for change in changes)
    yield Figure(
        f"move {moved} jobs to another tier, {name}",
        f"{took:.1f} s",
        "",
        f"{took / max(moved, 1) * 1000:.0f} ms each",
        load(),
    )


def _timed(act: Callable[[], object]) -> list[float]:
    taken: list[float] = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        act()
        taken.append(time.perf_counter() - begun)
    return taken


def measure(folder: Path, waiting: int) -> Iterator[Figure]:
    """Measure everything in an installation of its own."""
    house = House(folder / "home")
    with house.running(), house.client() as client:
        client.pause()
        yield from bulk(house, client)
        if waiting:
            yield from long_queue(house, client, waiting)


def main() -> None:
    """Read the command line, measure and print."""
    parser = argparse.ArgumentParser(description="Many jobs at once, and a long queue.")
    parser.add_argument("--waiting", type=int, default=WAITING, help="length of the queue; 0: none")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(dir=options.folder, prefix="stablequeue-bulk-"))
    for figure in measure(folder, options.waiting):
        goal = f", goal {figure.goal}" if figure.goal else ""
        note = f" ({figure.note})" if figure.note else ""
        print(f"{figure.name}: {figure.value}{goal}{note} (load {figure.load})", flush=True)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
