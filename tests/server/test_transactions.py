"""Transactions of Prefect's database, as our server sets them up."""

import asyncio
import gc
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import prefect
import pytest
import sqlalchemy
from prefect.server.database.configurations import AioSqliteConfiguration
from sqlalchemy import event
from sqlalchemy.pool import Pool, QueuePool

from stablequeue import server

LONG = """
    WITH RECURSIVE counted(x) AS (SELECT 1 UNION ALL SELECT x + one() FROM counted LIMIT 200000)
    SELECT count(*) FROM counted
"""


@pytest.fixture(autouse=True)
def as_in_our_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set transactions up as our server does, with nobody looking for garbage."""
    stock = AioSqliteConfiguration.begin_transaction
    monkeypatch.setattr(AioSqliteConfiguration, "begin_transaction", stock)  # and put back
    assert server.make_transactions_immediate(prefect.__version__)
    server.end_transactions_of_the_cancelled()
    gc.disable()
    yield
    gc.enable()
    event.remove(Pool, "invalidate", server.roll_back)


def is_free(file: Path, *, within_s: float = 5.0) -> bool:
    """Whether the write lock can be had in time."""
    connection = sqlite3.connect(file, timeout=within_s, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError:
        return False
    finally:
        connection.close()
    return True


async def test_a_task_cancelled_in_a_transaction_leaves_no_lock_behind(tmp_path: Path) -> None:
    file = tmp_path / "prefect.db"
    database = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{file}")
    engine = await database.engine()
    under_way = threading.Event()

    def one() -> int:
        under_way.set()
        return 1

    async def write() -> None:
        session = await database.session(engine)
        async with session, database.begin_transaction(session):
            held = await (await session.connection()).get_raw_connection()
            assert held.driver_connection is not None
            await held.driver_connection.create_function("one", 0, one)
            await session.execute(sqlalchemy.text("CREATE TABLE written (a)"))
            await session.execute(sqlalchemy.text(LONG))

    writing = asyncio.create_task(write())
    assert await asyncio.to_thread(under_way.wait, 30)
    assert not is_free(file, within_s=0), "it holds the lock"
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert await asyncio.to_thread(is_free, file)
    assert not sqlite3.connect(file).execute("SELECT * FROM sqlite_master").fetchall()
    await engine.dispose()


async def test_writers_wait_for_each_other_in_the_loop_and_not_in_sqlite(tmp_path: Path) -> None:
    database = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{tmp_path}/prefect.db")
    engine = await database.engine()
    pool = engine.pool
    assert isinstance(pool, QueuePool)
    begun: list[str] = []
    go_on = {name: asyncio.Event() for name in ("first", "second", "gone", "last")}

    async def write(name: str) -> None:
        session = await database.session(engine)
        async with session, database.begin_transaction(session):
            begun.append(name)
            await go_on[name].wait()

    writing: dict[str, asyncio.Task[None]] = {}
    for name in go_on:
        writing[name] = asyncio.create_task(write(name))
        await asyncio.sleep(0)
    while not begun:  # noqa: ASYNC110 - a condition of another thread
        await asyncio.sleep(0.001)
    await asyncio.wait(writing.values(), timeout=0.1)
    assert begun == ["first"]
    assert pool.checkedout() == 1, "those who wait have no connection yet"

    writing["gone"].cancel()
    for name in ("first", "second", "last"):
        go_on[name].set()
    await asyncio.gather(*writing.values(), return_exceptions=True)
    assert begun == ["first", "second", "last"]
    await engine.dispose()
