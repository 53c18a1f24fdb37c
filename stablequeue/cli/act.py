"""`cancel`, `retry`, `again`, `move`, `edit`: changing jobs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from stablequeue.cli.choose import EVERY, Filter, Tier
from stablequeue.cli.common import DEFAULTS, Common
from stablequeue.cli.text import one_line
from stablequeue.errors import BadRequest, NotFound, PrefectRefused, Refused
from stablequeue.ids import short_id

if TYPE_CHECKING:
    from stablequeue.client import Change

_TO = Group("Where to", sort_key=1)
_NOTHING = "No waiting job fits."


def cancel(
    *jobs: Annotated[str, Parameter(help="Job ids, full or short.")],
    all_: Annotated[bool, Parameter(name="--all", help="Every job that has not ended.")] = False,
    server: Annotated[str, Parameter(help="With --all: only this server's.")] = "",
    tag: Annotated[str, Parameter(help="With --all: only with this tag.")] = "",
    common: Common = DEFAULTS,
) -> int:
    """Cancel jobs; only our own work on the servers is touched.

    A waiting job is cancelled at once, a running one within seconds.
    """
    if bool(jobs) == all_:
        raise BadRequest("cancel", "give job ids, or --all")
    if (server or tag) and not all_:
        raise BadRequest("cancel", "--server and --tag go with --all")
    with common.client() as queue:
        if all_:
            changes = queue.cancel_all(server=server, tag=tag)
            return report(changes, common, nothing="Nothing waits or runs.")
        return _each(queue.cancel, jobs, common)


def retry(
    *jobs: Annotated[str, Parameter(help="Job ids, full or short.")],
    common: Common = DEFAULTS,
) -> int:
    """Let jobs that failed, crashed or were cancelled go on.

    What is stored is kept, and what still runs on its server is found again. A finished job is
    refused; `again` queues another one like it.
    """
    if not jobs:
        raise BadRequest("retry", "give job ids; stablequeue ls --state failed lists some")
    with common.client() as queue:
        return _each(queue.retry, jobs, common)


def again(
    job: Annotated[str, Parameter(help="Its id, full or short.")],
    /,
    *,
    prompt: Annotated[str | None, Parameter(help="Another prompt.")] = None,
    server: Annotated[str | None, Parameter(help="On another server.")] = None,
    seed: Annotated[int | None, Parameter(help="Another seed; -1: a new one.")] = None,
    count: Annotated[int | None, Parameter(help="Another number of pictures.")] = None,
    tier: Annotated[str | None, Parameter(help="interactive, normal or bulk.")] = None,
    set_: Annotated[
        list[str] | None,
        Parameter(name="--set", help="FIELD=JSON: any other field; dots for fields of fields."),
    ] = None,
    wait: Annotated[bool, Parameter(help="Follow it to its end.")] = False,
    common: Common = DEFAULTS,
) -> int:
    """Queue a new job like an old one."""
    from stablequeue.cli.fields import set_fields  # noqa: PLC0415
    from stablequeue.cli.submit import finish  # noqa: PLC0415

    given = {"prompt": prompt, "server": server, "seed": seed, "count": count, "tier": tier}
    changes = {name: value for name, value in given.items() if value is not None}
    with common.client() as queue:
        fields = set_fields({**queue.asked(job), **changes}, set_ or [])
        return finish(queue, queue.submit(fields), wait=wait, common=common)


def move(
    *jobs: Annotated[str, Parameter(help="Job ids, full or short; none: say which below.")],
    front: Annotated[
        bool, Parameter(group=_TO, help="Before all others of its server and tier.")
    ] = False,
    after: Annotated[str, Parameter(group=_TO, help="Right behind this job.")] = "",
    to_tier: Annotated[
        Tier | None, Parameter(group=_TO, help="To this tier, at its place.")
    ] = None,
    to_server: Annotated[
        str, Parameter(group=_TO, help="To this server, or any, at its place.")
    ] = "",
    which: Filter = EVERY,
    common: Common = DEFAULTS,
) -> int:
    """Move waiting jobs: to the front, behind another, to another tier or server.

    With job ids, --tier and --server say where to. Without, they are part of which jobs are
    meant, and --to-tier and --to-server say where to; --dry-run lists them.
    """
    if jobs and not (to_tier or to_server):
        to_tier, to_server = which.tier, which.server
        which = replace(which, tier=None, server="")
    ways = [front, bool(after), bool(to_tier), bool(to_server)].count(True)
    if ways != 1:
        raise BadRequest("move", "say one of --front, --after, --to-tier, --to-server")
    with common.client() as queue:
        chosen = which.chosen(queue, jobs, common)
        if chosen is None:
            return 0
        changes = queue.move(chosen, front=front, after=after, tier=to_tier or "", server=to_server)
    return report(changes, common, nothing=_NOTHING)


def edit(
    *words: Annotated[str, Parameter(help="Job ids, then FIELD=VALUE: as for submit --set.")],
    which: Filter = EVERY,
    common: Common = DEFAULTS,
) -> int:
    """Change what waiting jobs ask for: stablequeue edit ID steps=30 hires.scale=2.

    Each change is checked as when a job is submitted; if one does not fit, nothing is changed.
    """
    from stablequeue.cli.fields import json_or_text  # noqa: PLC0415

    jobs = tuple(word for word in words if "=" not in word)
    pairs = [word.partition("=") for word in words if "=" in word]
    if not pairs or any(not all(name.split(".")) for name, _, _ in pairs):
        raise BadRequest("edit", "say what: stablequeue edit ID FIELD=VALUE", ["steps=30"])
    changes = {name: json_or_text(value) for name, _, value in pairs}
    with common.client() as queue:
        chosen = which.chosen(queue, jobs, common)
        return (
            0 if chosen is None else report(queue.edit(chosen, changes), common, nothing=_NOTHING)
        )


def _each(act: "Callable[[str], Change]", jobs: Sequence[str], common: Common) -> int:
    """Do something to each job; one that is refused does not stop the others."""
    if len(jobs) == 1:
        return report([act(jobs[0])], common)
    from stablequeue.client import Change  # noqa: PLC0415

    changes: list[Change] = []
    for job in jobs:
        try:
            changes.append(act(job))
        except (NotFound, Refused, PrefectRefused) as error:
            changes.append(Change(job, done=False, message=str(error)))
    return report(changes, common)


def report(changes: "Sequence[Change]", common: Common, *, nothing: str = "") -> int:
    """Print what happened to each job; 0 if everything did."""
    data = [{"job_id": one.job_id, "done": one.done, "message": one.message} for one in changes]
    lines = [one_line(f"{short_id(one.job_id)} {one.message}") for one in changes]
    common.emit(data, "" if common.quiet else "\n".join(lines) or nothing)
    return 0 if all(one.done for one in changes) else 1
