"""The queries people wait for use the indexes made for them: what is explained is what was run."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.engine import Engine

from benchmarks.catalogue_search import HALF, MODELS, START, fill_postgresql, fill_sqlite
from stablequeue.catalogue import AttemptState, Catalogue, JobState
from tests.support.postgres import PostgresServer

ROWS = 6_000
Ask = Callable[[Catalogue], Any]

MONTH = (START, START + timedelta(days=30))
SEARCHES: dict[str, Ask] = {
    "newest": lambda catalogue: catalogue.search(),
    "rare word": lambda catalogue: catalogue.search("rare7"),
    "word in half of the rows": lambda catalogue: catalogue.search(HALF),
    "prefix": lambda catalogue: catalogue.search(f"{HALF[:3]}*"),
    "phrase": lambda catalogue: catalogue.search(f'"{HALF} cat"'),
    "model and dates": lambda catalogue: catalogue.search(
        model=MODELS[3], since=MONTH[0], until=MONTH[1]
    ),
    "word, model and dates": lambda catalogue: catalogue.search(
        HALF, model=MODELS[3], since=MONTH[0], until=MONTH[1]
    ),
    "word, model, server and tag": lambda catalogue: catalogue.search(
        HALF, model=MODELS[3], server="gpu-a", tag="draft"
    ),
    "next page": lambda catalogue: catalogue.search(HALF, before=3_000),
}
LOOK_UPS: dict[str, tuple[Ask, tuple[str, ...]]] = {
    "newest jobs": (lambda catalogue: catalogue.requests(), ("requests",)),
    "jobs in a state": (
        lambda catalogue: catalogue.requests(states=[JobState.ACCEPTED]),
        ("ix_requests_state_id",),
    ),
    "jobs of a server": (
        lambda catalogue: catalogue.requests(server="gpu-z"),
        ("ix_requests_server_id",),
    ),
    "jobs of a server in some states": (
        lambda catalogue: catalogue.requests(
            server="gpu-z", states=[JobState.ACCEPTED, JobState.COMPLETED]
        ),
        ("ix_requests_server_state_id",),
    ),
    "unsent jobs": (
        lambda catalogue: catalogue.unsent(older_than_s=1, limit=10),
        ("ix_requests_state_id",),
    ),
    "a job by its end": (
        lambda catalogue: catalogue.request("000000000001"),
        ("sqlite_autoindex_requests", "ix_requests_reversed_id"),
    ),
    "attempts to settle": (
        lambda catalogue: catalogue.open_attempts(states=[AttemptState.CANCELLING]),
        ("ix_attempts_unfinished",),
    ),
    "unused files": (
        lambda catalogue: catalogue.purge_trash(older_than_s=1),
        ("ix_blobs_unused",),
    ),
    "assets of a job": (
        lambda catalogue: catalogue.assets("01930000-0000-7000-8000-000000000001"),
        ("sqlite_autoindex_assets",),
    ),
    "an asset by its hash": (
        lambda catalogue: catalogue.asset("9e3779b97f4a7c15"),
        ("sqlite_autoindex_blobs", "ix_assets_blob_id"),
    ),
    "the trash": (lambda catalogue: catalogue.trashed(), ("ix_assets_trashed_at",)),
}


@pytest.fixture(scope="module")
def filled_sqlite(tmp_path_factory: pytest.TempPathFactory) -> str:
    """URL of an SQLite catalogue with some thousand pictures."""
    path = tmp_path_factory.mktemp("filled") / "catalogue.db"
    fill_sqlite(path, ROWS)
    return f"sqlite:///{path}"


def plan_of(url: str, ask: Ask, explain: str, *settings: str) -> list[str]:
    """Return how the database runs the last statement `ask` leads to."""
    catalogue = Catalogue(url)
    catalogue.check()
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, *_more: Any) -> None:
        seen.append((statement, values))

    event.listen(Engine, "before_cursor_execute", note)
    try:
        ask(catalogue)
    finally:
        event.remove(Engine, "before_cursor_execute", note)
    statement, values = seen[-1]

    def work(session: Any) -> list[str]:
        connection = session.connection()
        for setting in settings:
            connection.exec_driver_sql(setting)
        rows = connection.exec_driver_sql(f"{explain} {statement}", values)
        return [str(row[-1]) for row in rows]

    try:
        return catalogue._db.read(work)  # pyright: ignore[reportPrivateUsage]  # looks behind the API
    finally:
        catalogue.close()


@pytest.mark.parametrize("name", SEARCHES)
def test_sqlite_begins_with_the_search_index_and_never_sorts(filled_sqlite: str, name: str) -> None:
    plan = plan_of(filled_sqlite, SEARCHES[name], "EXPLAIN QUERY PLAN")
    by_id = "SEARCH assets USING INTEGER PRIMARY KEY"
    if name == "newest":
        assert plan[0].startswith(by_id), plan
    else:
        assert plan[0].startswith("SCAN asset_search VIRTUAL TABLE INDEX"), plan
        assert plan[1].startswith(by_id), plan
    assert plan[-1].startswith("SEARCH blobs USING INTEGER PRIMARY KEY"), plan
    assert not any("TEMP B-TREE" in step for step in plan), plan


@pytest.mark.parametrize("name", LOOK_UPS)
def test_sqlite_looks_jobs_and_assets_up_by_index(filled_sqlite: str, name: str) -> None:
    ask, indexes = LOOK_UPS[name]
    plan = "; ".join(plan_of(filled_sqlite, ask, "EXPLAIN QUERY PLAN"))
    assert all(index in plan for index in indexes), plan
    if name not in {"an asset by its hash", "assets of a job"}:  # a handful of rows
        assert "TEMP B-TREE" not in plan


@pytest.mark.postgresql
def test_postgresql_has_an_index_for_every_search(postgres_server: PostgresServer) -> None:
    with postgres_server.database() as name:
        url = postgres_server.url(name)
        catalogue = Catalogue(url)
        catalogue.migrate()
        catalogue.close()
        with postgres_server.connect(name) as connection:
            fill_postgresql(connection, ROWS)
        for search, ask in SEARCHES.items():
            # So few rows are read faster whole; what is asked is whether an index would do.
            plan = "; ".join(plan_of(url, ask, "EXPLAIN", "SET LOCAL enable_seqscan = off"))
            assert "Seq Scan" not in plan, (search, plan)
            by_words = "ix_assets_search" in plan
            newest_first = "Index Scan Backward using pk_assets" in plan
            assert by_words or newest_first, (search, plan)
            assert by_words or search != "rare word", plan
            assert newest_first or search not in {"newest", "word in half of the rows"}, plan
