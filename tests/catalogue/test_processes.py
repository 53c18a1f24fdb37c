"""Many processes writing at once, and dying while they do."""

import json
import random
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from stablequeue.catalogue import AttemptState, Catalogue, JobState
from stablequeue.catalogue.location import sqlite_path
from tests.catalogue.making import accepted
from tests.catalogue.writers import Orders, as_argument

ROOT = Path(__file__).parents[2]
WRITERS = 3
JOBS = 8


def run_writers(orders: Sequence[Orders]) -> tuple[list[tuple[str, Any]], list[int]]:
    """Run writers at the same time; return what they reported and how they ended."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.catalogue.writers", as_argument(one)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for one in orders
    ]
    reported: list[tuple[str, Any]] = []
    for one, process in zip(orders, processes, strict=True):
        output, errors = process.communicate(timeout=50)
        assert one.die_at or not errors, errors
        # The last line may have been cut off by the death.
        lines = [line for line in output.splitlines(keepends=True) if line.endswith("\n")]
        reported += [tuple(json.loads(line)) for line in lines]
    return reported, [process.returncode for process in processes]


def test_processes_writing_at_once_lose_nothing(catalogue: Catalogue, catalogue_url: str) -> None:
    contested = [accepted(catalogue).job_id for _ in range(4)]
    orders = [
        Orders(url=catalogue_url, seed=seed, jobs=JOBS, contested=contested)
        for seed in range(WRITERS)
    ]

    reported, codes = run_writers(orders)

    assert codes == [0] * WRITERS
    accepted_ids = [value for what, value in reported if what == "accepted"]
    assert len(accepted_ids) == WRITERS * JOBS
    assert len(catalogue.requests_by_id([*contested, *accepted_ids])) == len(contested) + len(
        accepted_ids
    )
    assert all(
        outcome.state is JobState.COMPLETED for outcome in catalogue.outcomes(accepted_ids).values()
    )
    begun = [value for what, value in reported if what == "begun"]
    refused = [value for what, value in reported if what == "refused"]
    assert len(begun) == len(set(begun)) == 2 * (len(contested) + len(accepted_ids))
    assert len(refused) == 2 * len(contested) * (WRITERS - 1), "one writer made each picture"
    for job_id in [*contested, *accepted_ids]:
        attempts = catalogue.attempts(job_id)
        assert [(attempt.index, attempt.attempt) for attempt in attempts] == [(0, 1), (1, 1)]
        assert {attempt.state for attempt in attempts} == {AttemptState.STORED}
        places = [(asset.index, asset.ordinal) for asset in catalogue.assets(job_id)]
        assert places == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert_sound(catalogue, catalogue_url)


def test_killed_processes_lose_nothing_committed_and_damage_nothing(
    catalogue: Catalogue, catalogue_url: str
) -> None:
    chance = random.Random(20261121)
    contested = [accepted(catalogue).job_id for _ in range(3)]
    reported: list[tuple[str, Any]] = []
    for wave in range(2):
        orders = [
            Orders(
                url=catalogue_url,
                seed=10 * wave + seed,
                jobs=1000,
                contested=contested,
                die_at=chance.randint(20, 700),
            )
            for seed in range(2)
        ]
        told, codes = run_writers(orders)
        reported += told
        assert all(code != 0 for code in codes)

    assert_sound(catalogue, catalogue_url)
    ids = {what: [value for told, value in reported if told == what] for what, _ in reported}
    jobs = catalogue.requests_by_id(ids["accepted"])
    assert len(jobs) == len(ids["accepted"])
    assert set(catalogue.outcomes(ids["finished"])) == set(ids["finished"])
    kept = {attempt.id for job in [*jobs, *contested] for attempt in catalogue.attempts(job)}
    assert set(ids["begun"]) <= kept
    for asset_ids in ids["recorded"]:
        assert [catalogue.asset(asset_id).id for asset_id in asset_ids] == asset_ids
    accepted(catalogue)  # and it goes on


def test_threads_of_one_process_share_a_catalogue(catalogue: Catalogue, catalogue_url: str) -> None:
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                accepted(catalogue)
                assert catalogue.requests(limit=1)
        except BaseException as error:  # noqa: BLE001  # shown by the assertion below
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert not failures
    assert len(catalogue.requests(limit=1000)) == 80
    assert_sound(catalogue, catalogue_url)


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork here")
def test_a_forked_child_uses_connections_of_its_own(
    catalogue: Catalogue, catalogue_url: str
) -> None:
    script = f"""
import os
from stablequeue.catalogue import Catalogue
from tests.catalogue.making import accepted
catalogue = Catalogue({catalogue_url!r})
accepted(catalogue, "parent")
children = []
for _ in range(3):
    child = os.fork()
    if child == 0:
        for _ in range(10):
            accepted(catalogue, "child")
        os._exit(0)
    children.append(child)
for _ in range(10):
    accepted(catalogue, "parent")
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
accepted(catalogue, "parent")
"""
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True, timeout=50)
    assert len(catalogue.requests(limit=1000)) == 42
    assert_sound(catalogue, catalogue_url)


def assert_sound(catalogue: Catalogue, url: str) -> None:
    """Check everything that must hold between tables, and the file itself."""
    checks = {
        "blob counts": "SELECT count(*) FROM blobs b WHERE refs <>"
        " (SELECT count(*) FROM assets a WHERE a.blob_id = b.id)",
        "stored without assets": "SELECT count(*) FROM attempts t WHERE state = 'stored'"
        " AND NOT EXISTS (SELECT 1 FROM assets a WHERE a.attempt_id = t.id)",
        "assets of attempts not stored": "SELECT count(*) FROM assets a JOIN attempts t"
        " ON t.id = a.attempt_id WHERE t.state <> 'stored'",
        "outcomes that disagree": "SELECT count(*) FROM outcomes o JOIN requests r"
        " ON r.job_id = o.job_id WHERE o.state <> r.state",
        "hours": "SELECT count(*) FROM assets a WHERE NOT EXISTS (SELECT 1 FROM asset_hours h"
        " WHERE a.id BETWEEN h.first_id AND h.last_id)",
    }
    for what, query in checks.items():
        found = catalogue._db.read(  # pyright: ignore[reportPrivateUsage]  # looks behind the API
            lambda session, query=query: session.connection().execute(text(query)).scalar()
        )
        assert found == 0, what
    pages, before = 0, None
    while page := catalogue.search("cat", limit=1000, before=before):
        pages, before = pages + len(page), page[-1].id
    total = catalogue._db.read(  # pyright: ignore[reportPrivateUsage]
        lambda session: session.connection().execute(text("SELECT count(*) FROM assets")).scalar()
    )
    assert pages == total, "every asset is in the index"
    path = sqlite_path(url)
    if path is not None:
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
            connection.execute("INSERT INTO asset_search(asset_search) VALUES ('integrity-check')")
