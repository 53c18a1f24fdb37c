"""A process that writes to a catalogue, and may die at any of its statements.

Run as `python -m tests.catalogue.writers JSON`. Every transaction that was committed is reported on
standard output, one JSON line each, flushed: what the parent read is what must be found later.
"""

import json
import os
import random
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import Engine

from stablequeue.catalogue import AttemptState, Catalogue, NewJob, Outcome
from stablequeue.catalogue.records import JobState
from stablequeue.errors import Refused
from stablequeue.ids import new_job_id
from stablequeue.request import GenerationRequest
from tests.catalogue.making import new_asset, ticket


@dataclass(frozen=True)
class Orders:
    """What one writer is to do.

    Attributes:
        jobs: How many jobs to make, two pictures each.
        contested: Jobs of everybody, whose pictures every writer tries to make.
        contents: How many different files there are at all.
        die_at: Number of the statement after which the process kills itself; 0: never.
    """

    url: str
    seed: int
    jobs: int
    contested: Sequence[str] = ()
    contents: int = 5
    die_at: int = 0


def main(orders: Orders) -> None:
    """Follow the orders."""
    if orders.die_at:
        die_at_statement(orders.die_at)
    chance = random.Random(orders.seed)
    catalogue = Catalogue(orders.url, patience_s=60)
    for job_id in orders.contested:
        make_pictures(catalogue, job_id, chance, orders)
    for _ in range(orders.jobs):
        job = NewJob(
            request=GenerationRequest(prompt=f"cat {chance.random()}", tags=[f"t{orders.seed}"]),
            job_id=new_job_id(),
            seed=1,
            deployment="d",
        )
        catalogue.accept_many([job])
        report("accepted", job.job_id)
        make_pictures(catalogue, job.job_id, chance, orders)
        catalogue.finish(job.job_id, Outcome(state=JobState.COMPLETED))
        report("finished", job.job_id)
    catalogue.close()


def make_pictures(catalogue: Catalogue, job_id: str, chance: random.Random, orders: Orders) -> None:
    """Make two pictures of a job, unless another writer is at it."""
    for index in range(2):
        try:
            attempt = catalogue.begin_attempt(
                job_id, index, server=f"gpu-{orders.seed}", engine="forge", make_ticket=ticket
            )
        except Refused:
            report("refused", [job_id, index])
            continue
        report("begun", attempt.id)
        catalogue.update_attempt(attempt.id, AttemptState.COLLECTED)
        files = [
            new_asset(f"content {chance.randrange(orders.contents)}", ordinal=ordinal)
            for ordinal in range(2)
        ]
        report("recorded", [asset.id for asset in catalogue.record_assets(attempt.id, files)])


def report(what: str, value: Any) -> None:
    """Tell the parent what was committed."""
    sys.stdout.write(json.dumps([what, value]) + "\n")
    sys.stdout.flush()


def die_at_statement(number: int) -> None:
    """Kill this process, as hard as can be, after so many statements."""
    seen = 0

    def count(*_arguments: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == number:
            # Windows has no SIGKILL; there SIGTERM ends a process just as hard.
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))

    for moment in ("after_cursor_execute", "commit"):
        event.listen(Engine, moment, count)


def as_argument(orders: Orders) -> str:
    """Return the orders as the command line takes them."""
    return json.dumps(asdict(orders))


if __name__ == "__main__":
    main(Orders(**json.loads(sys.argv[1])))
