"""A PostgreSQL server of our own for the tests: a free port of loopback, a temporary folder.

Binaries come from PATH, a distribution's folder, or the wheel `pgserver`. PostgreSQL refuses to run
as root, so root hands it to an unprivileged account. Without binaries the tests that need it are
skipped, except where CI=true promises that there are some.
"""

import getpass
import importlib.util
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.support.waiting import wait_until

START_LIMIT_S = 40.0
STOP_LIMIT_S = 20.0
UNPRIVILEGED = ("postgres", "nobody")
SUPERUSER = "stablequeue"
SERVER_OPTIONS = {
    # A test's data need not survive anything; the tests of crashes kill clients, not the server.
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "60",
    "autovacuum": "off",
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "logging_collector": "off",
}


@dataclass(frozen=True)
class PostgresServer:
    """A running server; `url` is that of its maintenance database."""

    port: int
    password: str

    def url(self, database: str = "postgres") -> str:
        """Return the SQLAlchemy URL of a database."""
        return f"postgresql+psycopg://{SUPERUSER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> "psycopg.Connection[Any]":
        """Return a plain connection in autocommit mode."""
        return psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=SUPERUSER,
            password=self.password,
            dbname=database,
            autocommit=True,
        )

    @contextmanager
    def database(self, template: str = "template0") -> Generator[str]:
        """Make a database for the length of the block; the value is its name."""
        name = f"test_{secrets.token_hex(6)}"
        with self.connect() as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        try:
            yield name
        finally:
            with self.connect() as connection:
                connection.execute(
                    sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
                )


def binaries() -> Path | None:
    """Return a folder with `initdb` and `postgres`, None where there is none."""
    found = shutil.which("postgres")
    candidates = [Path(found).resolve().parent] if found else []
    for folder in (Path("/usr/lib/postgresql"), Path("/opt/homebrew/opt"), Path("/usr/local/opt")):
        versions = folder.glob("*/bin")
        candidates += sorted(versions, key=_version, reverse=True)
    if spec := importlib.util.find_spec("pgserver"):
        candidates += [
            Path(root) / "pginstall/bin" for root in spec.submodule_search_locations or ()
        ]
    suffix = ".exe" if sys.platform == "win32" else ""
    for folder in candidates:
        if all((folder / f"{name}{suffix}").exists() for name in ("initdb", "postgres")):
            return folder
    return None


def _version(folder: Path) -> int:
    numbers = re.findall(r"\d+", folder.parent.name)
    return int(numbers[0]) if numbers else 0


@contextmanager
def run_postgres(folder: Path) -> Generator[PostgresServer]:
    """Run a server with the binaries in `folder` for the length of the block.

    Raises:
        RuntimeError: It does not start; the message ends with its log.
    """
    home = Path(tempfile.mkdtemp(prefix="stablequeue-postgres-"))
    account = _account()
    try:
        if account:
            shutil.chown(home, **account)
        password = secrets.token_urlsafe(18)
        _initialise(folder, home, password, account)
        server, process = _start_somewhere(folder, home, password, account)
        try:
            yield server
        finally:
            _stop(process)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _start_somewhere(
    folder: Path, home: Path, password: str, account: dict[str, Any]
) -> "tuple[PostgresServer, subprocess.Popen[bytes]]":
    """Start it on a free port; on another one where somebody took that meanwhile."""
    for last in (False, False, False, True):
        server = PostgresServer(_free_port(), password)
        process = _start(folder, home, server.port, account)
        try:
            wait_until(
                partial(_answers, server, process, home / "log"),
                timeout_s=START_LIMIT_S,
                why="PostgreSQL answers",
            )
        except RuntimeError as error:
            if last or "Address already in use" not in str(error):
                raise
        except BaseException:
            _stop(process)
            raise
        else:
            return server, process
    raise AssertionError


def _account() -> dict[str, Any]:
    """Return `user` and `group` for `subprocess` and `chown` when we are root, else nothing."""
    if sys.platform == "win32" or os.geteuid() != 0:
        return {}
    import grp  # noqa: PLC0415  # not on Windows
    import pwd  # noqa: PLC0415

    known = {entry.pw_name: entry for entry in pwd.getpwall()}
    for name in UNPRIVILEGED:
        if name in known:
            return {"user": name, "group": grp.getgrgid(known[name].pw_gid).gr_name}
    msg = f"root cannot run PostgreSQL and there is no account {' or '.join(UNPRIVILEGED)}"
    raise RuntimeError(msg)


def _initialise(folder: Path, home: Path, password: str, account: dict[str, Any]) -> None:
    secret = home / "password"
    secret.touch(0o600)
    secret.write_text(password, encoding="ascii")
    if account:
        shutil.chown(secret, **account)
    done = subprocess.run(
        [
            str(folder / "initdb"),
            *("-D", str(home / "data"), "-U", SUPERUSER, "-A", "scram-sha-256"),
            *("--pwfile", str(secret), "-E", "UTF8", "--locale=C", "--no-sync"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        cwd=home,
        user=account.get("user"),
        group=account.get("group"),
        extra_groups=[] if account else None,
    )
    secret.unlink()
    if done.returncode:
        msg = f"initdb failed as {account.get('user') or getpass.getuser()}: {done.stderr}"
        raise RuntimeError(msg)


GUARD = """
import json, shutil, signal, subprocess, sys, threading
if sys.platform != "win32":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the tests end first, then we
orders = json.loads(sys.argv[1])
with open(orders["log"], "wb") as log:
    server = subprocess.Popen(
        orders["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=orders["home"],
        **orders["account"],
    )

def stop_when_left():
    sys.stdin.read()  # ends when the tests do, even if they were killed
    # SIGINT is PostgreSQL's fast shutdown; Windows knows only ending the process.
    server.send_signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGINT)

threading.Thread(target=stop_when_left, daemon=True).start()
code = server.wait()
if code == 0:
    shutil.rmtree(orders["home"], ignore_errors=True)
sys.exit(code)
"""
"""Stands between the tests and the server, so that no server outlives tests that were killed."""


def _start(
    folder: Path, home: Path, port: int, account: dict[str, Any]
) -> "subprocess.Popen[bytes]":
    options = [text for name, value in SERVER_OPTIONS.items() for text in ("-c", f"{name}={value}")]
    command = [str(folder / "postgres"), "-D", str(home / "data"), "-p", str(port), *options]
    orders: dict[str, Any] = {
        "command": command,
        "home": str(home),
        "log": str(home / "log"),
        "account": {**account, "extra_groups": []} if account else {},
    }
    return subprocess.Popen(
        [sys.executable, "-IS", "-c", GUARD, json.dumps(orders)], stdin=subprocess.PIPE
    )


def _answers(server: PostgresServer, process: "subprocess.Popen[bytes]", log: Path) -> bool:
    if process.poll() is not None:
        msg = (
            f"PostgreSQL ended with {process.returncode}: {log.read_text(errors='replace')[-2000:]}"
        )
        raise RuntimeError(msg)
    try:
        server.connect().close()
    except psycopg.OperationalError:
        return False
    return True


def _stop(guard: "subprocess.Popen[bytes]") -> None:
    assert guard.stdin is not None
    guard.stdin.close()
    try:
        guard.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        guard.kill()
        guard.wait()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that lives as long as the test run."""
    folder = binaries()
    if folder is None:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail("no PostgreSQL binaries; CI must have them")
        pytest.skip("no PostgreSQL binaries (install postgresql, or the wheel pgserver)")
    with run_postgres(folder) as server:
        yield server


@pytest.fixture
def postgres_database(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of an empty database of this test's own."""
    with postgres_server.database() as name:
        yield postgres_server.url(name)
