"""`models`: tags, pins, renaming, deleting, making room."""

import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from stablequeue.cli.common import DEFAULTS, Common, put
from stablequeue.cli.models import Ref, Type
from stablequeue.cli.text import one_line
from stablequeue.errors import BadRequest, Refused
from stablequeue.sizes import size

if TYPE_CHECKING:
    from stablequeue.cli.screen import Screen
    from stablequeue.models.care import EvictionPlan
    from stablequeue.models.records import ModelFile

GB = 10**9

Yes = Annotated[bool, Parameter(name=("--yes", "-y"), help="Do not ask.")]


def tag(
    reference: Ref,
    tags: Annotated[list[str] | None, Parameter(help="Tags to add.")] = None,
    /,
    *,
    remove: Annotated[
        list[str] | None, Parameter(help="Tag to take away; may be repeated.")
    ] = None,
    type_: Type = "",
    common: Common = DEFAULTS,
) -> int:
    """Put a model into collections: tags follow its bytes wherever it is moved."""
    with common.client() as queue:
        file = queue.models.file(reference, kind=type_)
        queue.models.tag(file, add=tags or (), remove=remove or ())
        file = queue.models.library.file(file.path)
    common.emit(file.to_json(), f"{file.name}: {', '.join(file.tags) or 'no tags'}")
    return 0


def pin(reference: Ref, /, *, type_: Type = "", common: Common = DEFAULTS) -> int:
    """Keep a model whatever eviction wants."""
    return _pin(reference, type_, common, pinned=True)


def unpin(reference: Ref, /, *, type_: Type = "", common: Common = DEFAULTS) -> int:
    """Let eviction have a model again."""
    return _pin(reference, type_, common, pinned=False)


def rename(
    reference: Ref,
    name: Annotated[str, Parameter(help="New name in its folder, with slashes; suffix optional.")],
    /,
    *,
    type_: Type = "",
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> int:
    """Rename a model, with all that lies beside it.

    Jobs and prompts that use the old name no longer find it by that.
    """
    with common.client() as queue:
        file = queue.models.file(reference, kind=type_)
        confirm(f"Rename {file.path} to {name}?", yes=yes)
        path = queue.models.rename(file, name)
    common.emit({"old": str(file.path), "new": str(path)}, str(path))
    return 0


def rm(
    references: Annotated[list[str], Parameter(help="Models of this host.")],
    /,
    *,
    type_: Type = "",
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> int:
    """Delete models, with all that lies beside them.

    Uses, pins and tags stay known by the bytes, in case they come back.
    """
    with common.client() as queue:
        files = [queue.models.file(one, kind=type_) for one in references]
        for file in files:
            if file.pinned:
                raise Refused(f"{file.name} is pinned; unpin it first")
        whole = size(sum(one.size for one in files))
        confirm(f"Delete {', '.join(str(one.path) for one in files)} ({whole})?", yes=yes)
        deleted = [path for file in files for path in queue.models.delete(file)]
    common.emit({"deleted": [str(path) for path in deleted]}, f"{whole} freed")
    return 0


def evict(
    *,
    to: Annotated[
        float | None, Parameter(help="GB the rest may have. Empty: the setting models.most_gb.")
    ] = None,
    rest_days: Annotated[
        float, Parameter(help="Leave what was used or came within so many days.")
    ] = 0.0,
    dry_run: Annotated[bool, Parameter(help="Only say what would be deleted.")] = False,
    yes: Yes = False,
    common: Common = DEFAULTS,
) -> int:
    """Delete the least used models until the rest is small enough.

    Pinned ones, and what jobs need that have not ended, stay. The exit code is 1 when that alone
    is too large.
    """
    with common.client() as queue:
        most = queue.settings.models.most_gb if to is None else to
        if to is None and not most:
            raise BadRequest("--to", "say how many GB may stay, or set models.most_gb")
        if most < 0:
            raise BadRequest("--to", "a size is not negative")
        plan = queue.models.plan_eviction(int(most * GB), rest_days=rest_days)
        if not dry_run and plan.evict:
            confirm(f"Delete {len(plan.evict)} models ({size(plan.freed)})?", yes=yes)
            queue.models.evict(plan)
    data = {
        "deleted" if not dry_run else "would_delete": [str(one.path) for one in plan.evict],
        "freed": plan.freed,
        "size": plan.size,
        "remaining": plan.remaining,
        "limit": plan.limit,
        "enough": plan.enough,
        "kept": [{"path": str(one.path), "why": why} for one, why in plan.kept],
    }
    common.emit(data, lambda target: _evicted(target, plan, dry_run=dry_run))
    return 0 if plan.enough else 1


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something cannot be undone.

    Raises:
        Refused: The answer is no, or nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise Refused(f"{one_line(question)} Nobody can be asked here; say --yes")
    put(f"{one_line(question)} [y/N]", stderr=True)
    if sys.stdin.readline().strip().casefold() not in {"y", "yes"}:
        raise Refused("nothing was changed")


def _pin(reference: str, kind: str, common: Common, *, pinned: bool) -> int:
    with common.client() as queue:
        file = queue.models.file(reference, kind=kind)
        queue.models.pin(file, pinned=pinned)
        file = queue.models.library.file(file.path)
    common.emit(file.to_json(), f"{file.name} is {'pinned' if pinned else 'no longer pinned'}")
    return 0


def _evicted(target: "Screen", plan: "EvictionPlan", *, dry_run: bool) -> None:
    for one in plan.evict:
        target.line(f"{_uses(one)}  {size(one.size)}  {one.path}")
    for one, why in plan.kept:
        target.line(f"stays ({why}): {one.path}")
    verb = "would be freed" if dry_run else "freed"
    short = "" if plan.enough else "; what is safe alone is larger than that"
    target.line(f"{size(plan.freed)} {verb}, {size(plan.remaining)} stay{short}.")


def _uses(file: "ModelFile") -> str:
    return f"{file.uses} uses"
