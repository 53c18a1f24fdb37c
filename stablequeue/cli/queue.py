"""`pause`, `resume`, `clear`: the queue as a whole."""

from typing import Annotated

from cyclopts import Parameter

from stablequeue.cli.act import report
from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.errors import BadRequest


def pause(
    server: Annotated[str, Parameter(help="Its alias; empty: every server.")] = "",
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Start no more jobs on a server; running ones go on."""
    with common.client() as queue:
        names = queue.pause(server)
    common.emit({"paused": names}, _names("paused", names))
    return 0


def resume(
    server: Annotated[str, Parameter(help="Its alias; empty: every server.")] = "",
    /,
    *,
    common: Common = DEFAULTS,
) -> int:
    """Start jobs again, also those parked for a full disk."""
    with common.client() as queue:
        names = queue.resume(server)
    common.emit({"resumed": names}, _names("goes on", names))
    return 0


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


def _names(what: str, names: list[str]) -> str:
    return "\n".join(f"{name} {what}" for name in names) or "No server is saved."
