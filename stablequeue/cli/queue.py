"""`pause`, `resume`, `drain`, `clear`: the queue as a whole."""

from typing import Annotated

from cyclopts import Parameter

from stablequeue.cli.act import report
from stablequeue.cli.choose import Tier
from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.errors import BadRequest


def pause(
    server: Annotated[str, Parameter(help="Its alias, or any; empty: see the options.")] = "",
    /,
    *,
    tier: Annotated[Tier | None, Parameter(help="Only jobs of this tier.")] = None,
    all_: Annotated[bool, Parameter(name="--all", help="On every server.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Start no more jobs on a server, of a tier, or at all; running ones go on."""
    _where(server, all_)
    with common.client() as queue:
        names = queue.pause(server, tier=tier or "")
    common.emit({"paused": names}, _names("paused", names))
    return 0


def resume(
    server: Annotated[str, Parameter(help="Its alias, or any; empty: see the options.")] = "",
    /,
    *,
    tier: Annotated[Tier | None, Parameter(help="Only jobs of this tier.")] = None,
    all_: Annotated[bool, Parameter(name="--all", help="On every server.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Start jobs again, also those parked for a full disk."""
    _where(server, all_)
    with common.client() as queue:
        names = queue.resume(server, tier=tier or "")
    common.emit({"resumed": names}, _names("goes on", names))
    return 0


def drain(
    server: Annotated[str, Parameter(help="Its alias.")],
    /,
    *,
    timeout: Annotated[float | None, Parameter(help="Seconds to wait; empty: to the end.")] = None,
    common: Common = DEFAULTS,
) -> int:
    """Pause a server and wait until nothing runs on it.

    The exit code is 1 when something still ran after the timeout. The server stays paused.
    """

    def tell(left: int) -> None:
        if left:
            common.note(f"{left} jobs still run on {server}")

    with common.client() as queue:
        left = queue.drain(server, on_left=tell, timeout=timeout)
    resume_it = f"Then: stablequeue resume {server}"
    text = f"{left} jobs still run on {server}." if left else f"{server} is empty. {resume_it}"
    common.emit({"server": server, "running": left}, text)
    return 1 if left else 0


def clear(
    *,
    waiting: Annotated[bool, Parameter(help="Cancel every job that waits.")] = False,
    finished: Annotated[
        bool, Parameter(help="Take ended jobs off the list; their pictures stay.")
    ] = False,
    server: Annotated[str, Parameter(help="Only this server's.")] = "",
    tag: Annotated[str, Parameter(help="Only with this tag.")] = "",
    dry_run: Annotated[bool, Parameter(help="Say what would be done, do nothing.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Cancel what waits, or take ended jobs off the list."""
    if not waiting and not finished:
        raise BadRequest("clear", "say what: --waiting, --finished or both")
    with common.client() as queue:
        changes = (
            queue.cancel_all(server=server, tag=tag, waiting_only=True, dry_run=dry_run)
            if waiting
            else []
        )
        if finished:
            changes += queue.clear_ended(server=server, tag=tag, dry_run=dry_run)
    code = report(changes, common, nothing="Nothing to clear.")
    return 0 if dry_run else code


def _where(server: str, everywhere: bool) -> None:
    if server and everywhere:
        raise BadRequest("--all", "give it or a server, not both")


def _names(what: str, names: list[str]) -> str:
    return "\n".join(f"{name} {what}" for name in names) or "No server is saved."
