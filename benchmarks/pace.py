"""How quick jobs are, and what they cost, in any installation: the figures of the main table."""

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.engine import Engine, Worked, busy_share, now
from benchmarks.house import CHECKPOINT, until
from benchmarks.site import COMFY, FORGE, Site, finish
from stablequeue.client import Client
from stablequeue.views import ViewState

IDLE_S = 30.0
_SETTLED_S = 4.0
"""Until Prefect has written down what it was told of the last jobs."""

TINY, THIRD, SECOND = 1, 6, 20
"""Steps of a job that takes 0.05 s, 0.3 s and 1 s of the engine's time."""


@dataclass(frozen=True)
class Value:
    """A measured value, and the load of the minute it was taken in.

    Attributes:
        number: What is compared.
        text: As it is shown.
        computed: Not measured as a whole but computed from measured parts.
    """

    number: float
    text: str
    computed: bool = False
    load: float = field(default_factory=lambda: os.getloadavg()[0])

    def shown(self) -> str:
        """Return it as it stands in the table."""
        mark = ", computed" if self.computed else ""
        return f"{self.text} (load {self.load:.1f}{mark})"


Values = dict[str, Value]
"""Values by figure."""


def request(number: int, server: str, steps: int) -> dict[str, object]:
    """Return a small request."""
    return {
        "prompt": f"a lighthouse at night, number {number}",
        "server": server,
        "checkpoint": CHECKPOINT,
        "steps": steps,
        "width": 64,
        "height": 64,
    }


def submit(client: Client, server: str = COMFY, steps: int = TINY, number: int = 0) -> str:
    """Queue one small job; return its id."""
    return client.submit(request(number, server, steps)).job_id


def idle_latency(site: Site, engine: Engine, *, jobs: int) -> Values:
    """Measure single jobs while nothing else waits: how soon they reach the engine, their cost."""
    with site.client() as client:
        finish(client, [submit(client)])
        time.sleep(_SETTLED_S)
        size, cpu = site.database_kib(), site.cpu()
        reached: list[float] = []
        seen: list[float] = []
        ids: list[str] = []
        for number in range(jobs):
            count, begun = engine.count(), now()
            ids.append(submit(client, number=number))
            reached.append(engine.first(count, within_s=120) - begun)
            (one,) = engine.wait_for(1, start=count, within_s=60)
            until(lambda job_id=ids[-1]: client.job(job_id).ended, within_s=60, every_s=0.05)
            seen.append(now() - one.ended)
            time.sleep(0.5)
        finish(client, ids)
        time.sleep(_SETTLED_S)
        spent = _spent(cpu, site.cpu())
        grown = (site.database_kib() - size) / jobs
    reached.sort()
    p95 = reached[max(0, round(0.95 * jobs) - 1)]
    return {
        "reached": Value(statistics.median(reached), f"{statistics.median(reached):.2f} s"),
        "reached_p95": Value(p95, f"{p95:.2f} s"),
        "cpu_idle_job": _cpu(spent, jobs),
        "seen": Value(statistics.median(seen), f"{statistics.median(seen):.2f} s"),
        "database": Value(grown, f"{grown:.0f} KiB"),
    }


def backlog(site: Site, engine: Engine, *, jobs: int, steps: int, server: str = COMFY) -> Values:
    """Measure a backlog: how busy the engine is, jobs a minute, CPU a job."""
    with site.client() as client:
        client.pause(server)
        ids = [job.job_id for job in client.submit_many(_requests(jobs, server, steps))]
        time.sleep(_SETTLED_S)
        count, cpu = engine.count(), site.cpu()
        client.resume(server)
        worked = engine.wait_for(jobs, start=count, within_s=400)
        finish(client, ids)
        time.sleep(1)
        spent = _spent(cpu, site.cpu())
    busy, rate = busy_share(worked), _per_minute(worked)
    return {
        "busy": Value(busy, f"{busy:.0%}"),
        "rate": Value(rate, f"{rate:.0f}"),
        "cpu_job": _cpu(spent, jobs),
    }


def cancelling(site: Site, engine: Engine, *, rounds: int) -> Values:
    """Measure how soon after a cancel the next job generates."""
    taken: list[float] = []
    with site.client() as client:
        for _ in range(rounds):
            count = engine.count()
            long, short = submit(client, steps=400), submit(client)
            engine.first(count, within_s=120)
            until(lambda job=long: client.job(job).state is ViewState.RUNNING, within_s=30)
            begun = now()
            client.cancel(long)
            taken.append(engine.first(count + 1, within_s=120) - begun)
            finish(client, [short])
    return {"cancel": Value(statistics.median(taken), f"{statistics.median(taken):.2f} s")}


def idle_cost(site: Site) -> Values:
    """Measure CPU and memory while nothing happens; Prefect's server apart."""
    before = site.cpu()
    time.sleep(IDLE_S)
    spent, memory = _spent(before, site.cpu()), site.memory_mb()
    server = spent.get("server", 0.0) / IDLE_S
    own = sum(s for name, s in spent.items() if name not in {"server", "sandbox"}) / IDLE_S
    running = sum(mb for name, mb in memory.items() if name.startswith("worker"))
    return {
        "idle_own": Value(own, f"{own:.1%}"),
        "idle_server": Value(server, f"{server:.1%}"),
        "memory_worker": Value(running, f"{running:.0f} MB"),
        "memory": Value(sum(memory.values()), f"{sum(memory.values()):.0f} MB"),
    }


def accepting(site: Site, *, jobs: int) -> Values:
    """Measure submitting many jobs at once to a paused server."""
    accepted: list[float] = []
    with site.client() as client:
        client.pause(COMFY)
        begun = now()

        def tell(on_disk: int, _sent: int) -> None:
            if on_disk == jobs and not accepted:
                accepted.append(now() - begun)

        client.submit_many(_requests(jobs, COMFY, TINY), on_progress=tell)
        created = now() - begun
    return {
        "accepted": Value(accepted[0], f"{accepted[0]:.1f} s"),
        "created": Value(created, f"{created:.0f} s"),
    }


def accepting_singly(site: Site, *, jobs: int, of: int) -> Values:
    """Measure submitting one by one, as Prefect's client does; compute how long `of` take."""
    with site.client() as client:
        client.pause(COMFY)
        begun = now()
        ids = [submit(client, number=number) for number in range(jobs)]
        took = (now() - begun) / jobs * of
        for job_id in ids:
            client.cancel(job_id)
        client.resume(COMFY)
    value = Value(took, f"{took:.0f} s", computed=True)
    return {"accepted": value, "created": value}


def named(values: Values, **names: str) -> Values:
    """Return some values under other names."""
    return {new: values[old] for old, new in names.items()}


def everything(site: Site, engine: Engine, *, jobs: int, many: int, forge: bool) -> Values:
    """Measure jobs of all lengths.

    Args:
        site: Where.
        engine: Its server.
        jobs: How many single jobs.
        many: How many of a backlog.
        forge: Whether also in Forge's protocol.
    """
    steps: list[Callable[[], Values]] = [
        lambda: idle_cost(site),
        lambda: idle_latency(site, engine, jobs=jobs),
        lambda: named(backlog(site, engine, jobs=many, steps=TINY), rate="rate", cpu_job="cpu_job"),
        lambda: named(backlog(site, engine, jobs=many, steps=SECOND), busy="busy_1"),
        lambda: named(backlog(site, engine, jobs=many, steps=THIRD), busy="busy_03"),
    ]
    if forge:
        steps.append(
            lambda: named(
                backlog(site, engine, jobs=many, steps=SECOND, server=FORGE), busy="busy_forge"
            )
        )
    found: Values = {}
    for step in steps:
        found |= step()
    return found


def _requests(jobs: int, server: str, steps: int) -> list[dict[str, object]]:
    return [request(number, server, steps) for number in range(jobs)]


def _spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    return {name: after[name] - before.get(name, 0.0) for name in after}


def _cpu(spent: dict[str, float], jobs: int) -> Value:
    whole = sum(spent.values()) / jobs
    parts = ", ".join(
        f"{name} {seconds / jobs:.2f}" for name, seconds in spent.items() if seconds / jobs >= 0.01
    )
    return Value(whole, f"{whole:.2f} s: {parts}")


def _per_minute(worked: Sequence[Worked]) -> float:
    return 60 * (len(worked) - 1) / (worked[-1].started - worked[0].started)
