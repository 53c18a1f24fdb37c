"""The PostgreSQL server of the tests ends with the tests."""

import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from tests.support.postgres import PostgresServer, binaries, run_postgres
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.postgresql

needs_binaries = pytest.mark.skipif(
    binaries() is None and os.environ.get("CI", "").lower() != "true",
    reason="no PostgreSQL binaries here",
)


def answers(server: PostgresServer) -> bool:
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def test_a_server_asks_for_its_password(postgres_server: PostgresServer) -> None:
    assert answers(postgres_server)
    assert not answers(PostgresServer(postgres_server.port, "guessed"))


@needs_binaries
def test_a_server_and_its_folder_go_with_the_block() -> None:
    folder = binaries()
    assert folder is not None
    with run_postgres(folder) as server, server.connect() as connection:
        row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    assert not answers(server)
    assert not Path(row[0]).exists()


@needs_binaries
def test_a_server_goes_when_its_tests_are_killed() -> None:
    script = """
import sys, time
from tests.support.postgres import binaries, run_postgres
with run_postgres(binaries()) as server:
    print(server.port, server.password, flush=True)
    sys.stdin.read()
"""
    tests = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert tests.stdout is not None
    port, password = tests.stdout.readline().split()
    server = PostgresServer(int(port), password)
    assert answers(server)
    tests.kill()
    tests.communicate()
    wait_until(lambda: not answers(server), why="the server ends")
