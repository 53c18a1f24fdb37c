"""Prefect's server in this process, set up as a queue: `python -m stablequeue.server`.

It listens on loopback only, keeps everything below `home/prefect`, and writes its address into the
run folder once it takes requests. SIGTERM or Ctrl-C ends it.

Three things differ from `prefect server start`. SQLite transactions open IMMEDIATE: deferred ones
that read and then write fail at once when another commit comes between, whatever the busy timeout
(measured: 5 % of writes refused from one client, 60 % from two). They wait for each other in the
event loop, not in SQLite, and one whose task is cancelled gives its lock back at once, not when
garbage is looked for. And the UI has a route that logs the user in (`stablequeue.server_login`) and
pages that call nobody else (`server_pages`).
"""

import asyncio
import contextlib
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Callable
from contextvars import ContextVar
from importlib.metadata import entry_points
from types import FrameType, ModuleType
from typing import Any, cast

import uvicorn
from filelock import FileLock, Timeout

from stablequeue.errors import QueueError, Refused, SettingsError
from stablequeue.processes import collect_seldom, keep_what_is_there
from stablequeue.secrets import load_secrets, private_folder
from stablequeue.server_login import App, LoginRoute
from stablequeue.server_pages import LocalPages
from stablequeue.server_settings import (
    HOST,
    clean_environment,
    forget_address,
    prefect_home,
    running_url,
    server_environment,
    write_address,
)
from stablequeue.settings import Settings, load
from stablequeue.turns import Turns

logger = logging.getLogger("stablequeue.server")

TRIED_VERSIONS = re.compile(r"3\.(8|9)\.\d")
"""Versions of Prefect whose `begin_transaction` we replace."""

_STOP_S = 10
_TURN_WITHIN_S = 60.0
"""As long as Prefect has SQLite wait; then SQLite says what is wrong."""
_CHECKED_GOOD_FOR_S = 60.0
_MOST_CHECKED = 1000


def main() -> int:
    """Run the server until it is told to stop; 0, or 1 when it cannot start."""
    try:
        settings = load()
        logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        logging.getLogger("stablequeue").setLevel(settings.log_level)
        run(settings)
    except QueueError as error:
        print(f"stablequeue: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def run(settings: Settings) -> None:
    """Run the server in this process, which must not have imported Prefect yet.

    Raises:
        Refused: One runs already for this home, or the port is taken.
    """
    if "prefect" in sys.modules:
        message = "Prefect is imported already; run python -m stablequeue.server on its own"
        raise SettingsError(message)
    home = prefect_home(settings)
    private_folder(settings.run_folder)
    lock = FileLock(settings.run_folder / "prefect.lock", timeout=0)
    try:
        with lock, _listen(settings.prefect_port) as listener:
            port: int = listener.getsockname()[1]
            ours = server_environment(settings, port=port)
            inherited = clean_environment()
            os.environ.clear()
            os.environ.update({**inherited, **ours})
            os.chdir(home)  # away from any prefect.toml or .env of the user's
            # Uvicorn raises the signal that stopped it again once it is done: then this one acts.
            signal.signal(signal.SIGTERM, _stop)
            app = _application(settings, port)
            asyncio.run(_serve(app, listener, settings, f"http://{HOST}:{port}/api"))
    except Timeout:
        where = running_url(settings) or "this home"
        message = f"a Prefect server already runs for {where}; stop it first"
        raise Refused(message) from None


def _stop(number: int, frame: FrameType | None) -> None:
    del number, frame
    sys.exit(0)


def _listen(port: int) -> socket.socket:
    # Named TCP, or asyncio leaves Nagle's algorithm on: 40 ms an answer.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":  # elsewhere the option would let two programs share the port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        message = (
            f"port {port} is taken ({error.strerror}); choose another with"
            " STABLEQUEUE_PREFECT_PORT, 0 for any free one"
        )
        raise Refused(message) from error
    listener.set_inheritable(False)
    return listener


def _application(settings: Settings, port: int) -> App:
    collect_seldom()
    _leave_workers_out()
    import prefect  # noqa: PLC0415  reads its settings from the environment set above
    from prefect.server.api.server import create_app  # noqa: PLC0415

    make_transactions_immediate(prefect.__version__)
    end_transactions_of_the_cancelled()
    check_job_variables_once(prefect.__version__)
    auth = load_secrets(settings).auth.get_secret_value()
    hosts = frozenset({f"{HOST}:{port}", f"localhost:{port}"})
    pages = LocalPages(cast("App", create_app(final=True)))
    return LoginRoute(pages, settings, auth, hosts)


def _leave_workers_out() -> None:
    """Have Prefect's server find our worker type loaded, without loading it.

    It imports every module of the entry point group `prefect.collections` to register their
    blocks. Ours has none, and brings the engine of flow runs in: half a second of each start.
    """
    for point in entry_points(group="prefect.collections"):
        if point.module.startswith("stablequeue."):
            sys.modules.setdefault(point.module, ModuleType(point.module))


def make_transactions_immediate(version: str) -> bool:
    """Make Prefect's SQLite transactions take the write lock when they begin, one after the other.

    They take turns before they ask SQLite for it: who waits there keeps the connection's mutex, and
    the event loop stands still when garbage is looked for and a statement of that connection is in
    it. If it is the holder of the lock who should go on next, everything stands still until the
    busy timeout of a minute.

    Args:
        version: Of the installed Prefect.

    Returns:
        Whether it was done. If not, a warning says that the server runs as it is.
    """
    from prefect.server.database import configurations  # noqa: PLC0415

    sqlite: Any = getattr(configurations, "AioSqliteConfiguration", None)
    stock: Callable[..., Any] | None = getattr(sqlite, "begin_transaction", None)
    mode: ContextVar[str | None] | None = getattr(configurations, "SQLITE_BEGIN_MODE", None)
    if not TRIED_VERSIONS.match(version) or stock is None or mode is None:
        logger.warning(
            "Prefect %s was not tried with immediate SQLite transactions; it runs as it is, and"
            " may refuse some writes under load",
            version,
        )
        return False
    turns = Turns()

    @contextlib.asynccontextmanager
    async def begin_transaction(
        self: Any, session: Any, with_for_update: bool = False
    ) -> AsyncGenerator[Any, None]:
        del with_for_update  # always
        async with (
            turns.one(patience_s=_TURN_WITHIN_S),
            stock(self, session, with_for_update=True) as transaction,
        ):
            await session.connection()  # BEGIN IMMEDIATE now, not at the first statement
            # The mode is inherited by whatever the body opens: a second session that only reads
            # (PATCH of a work queue opens one) would wait for our own lock until it times out.
            token = mode.set(None)
            try:
                yield transaction
            finally:
                mode.reset(token)

    sqlite.begin_transaction = begin_transaction
    return True


def end_transactions_of_the_cancelled() -> None:
    """Have SQLite's lock given back when a task is cancelled in the middle of a transaction.

    Prefect cancels such tasks, e.g. of a worker whose connection ended. SQLAlchemy then closes the
    connection; SQLite keeps one alive, with its lock, whose statements somebody refers to still,
    as the traceback of the cancelled task does until garbage is looked for. Nobody could write
    for a minute or more.
    """
    from sqlalchemy import event  # noqa: PLC0415  comes with Prefect
    from sqlalchemy.pool import Pool  # noqa: PLC0415

    event.listen(Pool, "invalidate", roll_back)


def roll_back(connection: Any, record: object, error: object) -> None:
    """End the transaction of a connection that is about to be closed."""
    del record, error
    if connection is None:
        return
    # The order is with the connection's thread before it is waited for; and a task that is
    # cancelled once more meanwhile is being cancelled already.
    with contextlib.suppress(asyncio.CancelledError, connection.dbapi.Error, ValueError):
        connection.rollback()


def check_job_variables_once(version: str) -> bool:
    """Make Prefect check the same job variables of new runs once a minute, not once a run.

    For each run it checks the pool's schema itself, then the deployment's and the run's variables
    against it: four fifths of what creating a run in a bulk call costs.

    Args:
        version: Of the installed Prefect.

    Returns:
        Whether it was done.
    """
    from prefect.server.api import deployments  # noqa: PLC0415

    name = "validate_job_variables_for_deployment_flow_run"
    check: Callable[..., Any] | None = getattr(deployments, name, None)
    if not TRIED_VERSIONS.match(version) or check is None:
        return False
    good_until: dict[tuple[Any, ...], float] = {}

    async def validate(session: Any, deployment: Any, flow_run: Any) -> None:
        pool = deployment.work_queue.work_pool if deployment.work_queue else None
        if pool is None or flow_run.job_variables:
            await check(session, deployment, flow_run)
            return
        key = (deployment.id, deployment.updated, pool.id, pool.updated)
        now = time.monotonic()
        if good_until.get(key, 0.0) < now:
            await check(session, deployment, flow_run)  # raises, if they do not fit
            if len(good_until) > _MOST_CHECKED:
                good_until.clear()
            good_until[key] = now + _CHECKED_GOOD_FOR_S

    setattr(deployments, name, validate)
    return True


class _Server(uvicorn.Server):
    """Uvicorn that tells other processes when it takes requests."""

    def __init__(self, config: uvicorn.Config, settings: Settings, url: str) -> None:
        super().__init__(config)
        self._settings = settings
        self._url = url

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            keep_what_is_there()
            write_address(self._settings, self._url)
            logger.info("Prefect's API answers at %s", self._url)


async def _serve(app: App, listener: socket.socket, settings: Settings, url: str) -> None:
    config = uvicorn.Config(
        cast("Any", app),
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=_STOP_S,
        ws_ping_interval=20,
        ws_ping_timeout=20,
    )
    server = _Server(config, settings, url)
    try:
        await server.serve(sockets=[listener])
    finally:
        forget_address(settings)
    if not server.started:
        message = "Prefect's server did not start; its own lines above say why"
        raise Refused(message)


if __name__ == "__main__":
    sys.exit(main())
