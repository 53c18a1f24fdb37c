"""Starting, commands, memory, storing and search of an installation: `make bench-rest`.

About 12 minutes, most of it for the million rows of the search.
"""

import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks import catalogue_search, downloading, models, storing
from benchmarks.house import CHECKPOINT, House, until
from benchmarks.report import Figure, load, seconds
from stablequeue.catalogue import Catalogue
from stablequeue.client import Client
from stablequeue.views import ViewState

STARTS = 3
JOBS = 10
CANCELS = 4
WAITING = 200


def python(*arguments: str) -> float:
    """Run Python and return its seconds."""
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begun


def cpu_of(work: Callable[[], float]) -> str:
    """Return the CPU seconds of the processes that `work` runs to their end."""
    before = os.times()
    work()
    after = os.times()
    taken = after.children_user + after.children_system
    return f"{taken - before.children_user - before.children_system:.2f} s of CPU"


def alternating(rounds: int, *works: Callable[[], float]) -> list[list[float]]:
    """Run several things in turn, so that what else the machine does falls on all of them."""
    taken: list[list[float]] = [[] for _ in works]
    for _ in range(rounds):
        for times, work in zip(taken, works, strict=True):
            times.append(work())
    return taken


def starting(house: House) -> Iterator[Figure]:
    """Measure `up` until it accepts jobs."""
    (reference,) = alternating(1, lambda: python("-c", "import prefect.server.api.server"))
    with house.running() as ready:
        yield Figure(
            "`up`, very first start", f"{ready:.1f} s", "30 s", _imports(reference), load()
        )
    again: list[float] = []
    references: list[float] = []
    for _ in range(STARTS):
        references.append(python("-c", "import prefect.server.api.server"))
        with house.running() as ready:
            again.append(ready)
    yield Figure("`up`, later start", seconds(again), "10 s", _imports(references), load())


def _imports(references: list[float]) -> str:
    least = statistics.median(references)
    return f"importing Prefect's server alone, on its own: {least:.1f} s"


def commands(house: House, client: Client) -> Iterator[Figure]:
    """Measure commands while `up` runs."""
    yield _command(house, "`stablequeue --help`", "--help", "0.3 s")
    yield _command(house, "`stablequeue ls`", "ls", "0.8 s")
    client.pause("sandbox")
    begun = time.perf_counter()
    for _ in range(WAITING):
        submit(client)
    took = time.perf_counter() - begun
    yield Figure(
        f"accept {WAITING} jobs, one after the other, all of them flow runs",
        f"{took:.1f} s",
        "",
        f"{took / WAITING * 1000:.0f} ms each",
        load(),
    )
    yield _command(house, f"`stablequeue ls`, {WAITING} jobs waiting", "ls", "0.8 s")
    client.cancel_all(server="sandbox")
    client.resume("sandbox")


def _command(house: House, name: str, word: str, goal: str) -> Figure:
    taken, references = alternating(
        9, lambda: house.command(word), lambda: python("-c", "import json, asyncio, http.client")
    )
    own = cpu_of(lambda: house.command(word))
    reference = statistics.median(references)
    note = f"{own}; `import json, asyncio, http.client` meanwhile: {reference:.2f} s"
    return Figure(name, seconds(taken), goal, note, load())


def submit(client: Client, steps: int = 4) -> str:
    """Queue a small picture on the sandbox; return its id."""
    return client.submit(
        prompt="a lighthouse at night",
        server="sandbox",
        checkpoint=CHECKPOINT,
        steps=steps,
        width=64,
        height=64,
    ).job_id


def is_generating(client: Client, job_id: str) -> bool:
    """Whether the engine works on it."""
    job = client.job(job_id)
    if job.ended:
        message = f"{job.job_id} ended too early: {job.state} {job.message}"
        raise RuntimeError(message)
    return job.state is ViewState.RUNNING and job.phase == "Generating"


def memory(house: House, client: Client) -> Iterator[Figure]:
    """Measure what one server costs, idle and busy."""
    job = client.wait(submit(client), timeout=120)  # everything has been used once
    time.sleep(5)
    idle = house.memory_mb()
    if not idle:
        yield Figure("memory", "not measured: no /proc here")
        return
    before, begun = house.cpu_s(), time.perf_counter()
    time.sleep(20)
    share = (house.cpu_s() - before) / (time.perf_counter() - begun)
    job_id = submit(client, steps=150)
    until(lambda: is_generating(client, job_id), within_s=90, every_s=0.2)
    busy = house.memory_mb()
    client.cancel(job_id)
    client.wait(job_id, timeout=60)
    del job
    yield Figure("memory of everything, idle", *_memory(idle))
    yield Figure("memory of everything, one job running", *_memory(busy))
    yield Figure("CPU of everything, idle", f"{share * 100:.1f} % of a core", "", "", load())


def _memory(found: dict[str, float]) -> tuple[str, str, str, str]:
    parts = ", ".join(f"{name} {size:.0f}" for name, size in sorted(found.items()))
    return f"{sum(found.values()):.0f} MB", "700 MB", f"PSS, one server saved: {parts}", load()


def cancelling(client: Client) -> Iterator[Figure]:
    """Measure cancelling while the engine works."""
    taken: list[float] = []
    for _ in range(CANCELS):
        job_id = submit(client, steps=150)
        until(lambda job_id=job_id: is_generating(client, job_id), within_s=90, every_s=0.2)
        begun = time.perf_counter()
        client.cancel(job_id)
        until(lambda job_id=job_id: client.job(job_id).ended, within_s=60, every_s=0.05)
        taken.append(time.perf_counter() - begun)
    yield Figure("cancel while generating, until Cancelled", seconds(taken), "10 s", "", load())


def storing_one(folder: Path) -> Iterator[Figure]:
    """Measure storing one picture."""
    source = folder / "source.png"
    storing.paint(source)
    one = storing.Storing(folder)
    taken = storing.timed(30, lambda number: one.everything(number, source))
    size = source.stat().st_size / 1e6
    p95 = taken[int(len(taken) * 0.95)]
    yield Figure(
        "store a 1024 x 1024 PNG with its thumbnail",
        f"{statistics.median(taken):.0f} ms (95 %: {p95:.0f})",
        "150 ms",
        f"{size:.1f} MB, into a folder, flushed to the disk",
        load(),
    )


def searching(folder: Path, rows: int) -> Iterator[Figure]:
    """Measure the catalogue's search on SQLite."""
    path = folder / "catalogue.db"
    made = catalogue_search.fill_sqlite(path, rows)
    catalogue = Catalogue(f"sqlite:///{path}")
    for one in catalogue_search.measure(catalogue, made, runs=40):
        writing = one.name.startswith("record_assets")
        yield Figure(
            one.name if writing else f"search: {one.name}",
            f"{one.median:.1f} ms (95 %: {one.p95:.1f})",
            "" if writing else "20 ms",
            f"{rows:,} pictures, SQLite, the 50 newest",
            load(),
        )
    catalogue.close()


def libraries(folder: Path) -> Iterator[Figure]:
    """Measure hashing, scanning and downloading models."""
    place = folder / "models"
    place.mkdir()
    yield from models.measure(place, megabytes=1000, files=10_000, rounds=5)
    yield from downloading.measure(place, size=1000 * downloading.MIB, rounds=3, streams=4)
    shutil.rmtree(place, ignore_errors=True)


def measure(folder: Path, rows: int) -> Iterator[Figure]:
    """Measure everything, the quick things first."""
    house = House(folder / "home")
    yield from storing_one(folder)
    yield from starting(house)
    with house.running(), house.client() as client:
        house.command("servers", "rm", "sandbox-forge", "--quiet")
        yield from commands(house, client)
        yield from memory(house, client)
        yield from cancelling(client)
    if rows:
        yield from searching(folder, rows)
