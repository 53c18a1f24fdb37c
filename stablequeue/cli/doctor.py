"""`doctor`: check this installation and say what to mend."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from stablequeue import server_checks
from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.cli.screen import Screen
from stablequeue.errors import QueueError
from stablequeue.hiding import without_secrets
from stablequeue.server_checks import Finding

if TYPE_CHECKING:
    from stablequeue.client import Client

_STYLES = {"ok": "green", "warning": "yellow", "bad": "red"}
_LITTLE_DISK = 2 * 1024**3
_LONG_UNSENT = timedelta(minutes=2)


def doctor(*, common: Common = DEFAULTS) -> int:
    """Check this installation and say what to mend.

    The exit code is 1 when something keeps jobs from being done.
    """
    checks: list[Finding] = []
    with common.client() as queue:
        for about, look in _LOOKS:
            checks += _checked(about, lambda look=look: list(look(queue)))
    common.emit([asdict(check) for check in checks], lambda target: _show(target, checks))
    return 1 if any(check.verdict == "bad" for check in checks) else 0


def _checked(about: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Run one look; whatever it cannot even ask is its finding."""
    try:
        found = look()
    except QueueError as error:
        found = [Finding(about, "bad", str(error))]
    return [replace(one, message=without_secrets(one.message)) for one in found]


def _show(target: Screen, checks: list[Finding]) -> None:
    target.table(
        ("", "ABOUT", "FOUND"),
        [[check.verdict, check.about, check.message] for check in checks],
        style=lambda at, place: _STYLES[checks[at].verdict] if place == 0 else "",
    )


def _home(queue: "Client") -> Iterator[Finding]:
    home = queue.settings.home
    there = home if home.exists() else home.parent
    if home.exists() and not os.access(home, os.W_OK):
        yield Finding("home", "bad", f"{home} cannot be written; change its owner")
        return
    yield Finding("home", "ok", str(home))
    for about, folder in (
        ("disk of home", there),
        ("disk of pictures", queue.settings.pictures_folder),
    ):
        yield from _disk(about, folder)


def _disk(about: str, folder: Path) -> Iterator[Finding]:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    gib = f"{free / 1024**3:.1f} GiB free"
    if free < _LITTLE_DISK:
        yield Finding(about, "warning", f"{gib}; make room before jobs are parked")
    else:
        yield Finding(about, "ok", gib)


def _catalogue(queue: "Client") -> Iterator[Finding]:
    queue.session.look.parked()
    yield Finding("catalogue", "ok", _without_password(queue.settings.catalogue))


def _without_password(url: str) -> str:
    from stablequeue.cli.config import without_password  # noqa: PLC0415

    return str(without_password(url))


def _store(queue: "Client") -> Iterator[Finding]:
    from stablequeue.storage import DEFAULT_STORE  # noqa: PLC0415

    store = queue.files.store(DEFAULT_STORE)
    store.check()
    yield Finding("store", "ok", f"pictures go to {store.locate('x').removesuffix('x')}")


def _up(queue: "Client") -> Iterator[Finding]:
    import json  # noqa: PLC0415

    try:
        facts = json.loads((queue.settings.run_folder / "up.json").read_text(encoding="utf-8"))
        pid = int(facts["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        pid = 0
    from stablequeue.processes import gone  # noqa: PLC0415

    if pid == 0 or gone(pid):
        yield Finding("up", "warning", "does not run here; jobs wait until: stablequeue up")
    else:
        yield Finding("up", "ok", f"runs (process {pid})")


def _prefect(queue: "Client") -> Iterator[Finding]:
    api = queue.session.api
    ours = not queue.settings.prefect_api_url
    yield from server_checks.checks(api, ours=ours)
    yield Finding("prefect", "ok", f"answers at {api.url}")


def _servers(queue: "Client") -> Iterator[Finding]:
    from stablequeue.cli.servers import look_at, standing  # noqa: PLC0415
    from stablequeue.server_blocks import saved_servers  # noqa: PLC0415

    servers = saved_servers(queue.session.api)
    if not servers:
        yield Finding("servers", "warning", "none is saved: stablequeue servers add NAME --url URL")
    for look in look_at(servers):
        about = f"server {look.alias}"
        yield Finding(about, "ok" if look.answers else "bad", look.line())
        state = standing(queue, look.alias)
        if state != "ready":
            resume = f"; stablequeue resume {look.alias}" if state != "no worker" else ""
            yield Finding(about, "warning", f"its jobs wait: {state}{resume}")


def _cards(queue: "Client") -> Iterator[Finding]:
    from stablequeue.server_blocks import saved_servers  # noqa: PLC0415

    api = queue.session.api
    yield from server_checks.card_checks(api, saved_servers(api), now=datetime.now(UTC))


def _jobs(queue: "Client") -> Iterator[Finding]:
    from stablequeue.catalogue import JobState  # noqa: PLC0415
    from stablequeue.prefect_api import ACTIVE, run_filter  # noqa: PLC0415
    from stablequeue.processes import provably_dead  # noqa: PLC0415
    from stablequeue.views import job_id_of  # noqa: PLC0415

    late = datetime.now(UTC) - _LONG_UNSENT
    unsent = [
        row
        for row in queue.session.look.requests(states={JobState.ACCEPTED}, limit=1000)
        if row.accepted_at < late
    ]
    if unsent:
        yield Finding(
            "jobs", "warning", f"{len(unsent)} accepted jobs are not in Prefect; is up running?"
        )
    dead = [
        run
        for run in queue.session.api.runs(run_filter(states=ACTIVE))
        if provably_dead(run.process)
    ]
    for run in dead:
        yield Finding(
            "jobs",
            "warning",
            f"{run.name} is {run.state_name}, but its process is dead;"
            f" stablequeue retry {job_id_of(run)}",
        )
    if not unsent and not dead:
        yield Finding("jobs", "ok", "none is stuck")


_LOOKS: tuple[tuple[str, "Callable[[Client], Iterator[Finding]]"], ...] = (
    ("home", _home),
    ("catalogue", _catalogue),
    ("store", _store),
    ("up", _up),
    ("prefect", _prefect),
    ("servers", _servers),
    ("cards", _cards),
    ("jobs", _jobs),
)
