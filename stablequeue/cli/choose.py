"""Options that say which waiting jobs a command is for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from stablequeue.cli.common import Common
from stablequeue.errors import BadRequest, Refused

if TYPE_CHECKING:
    from stablequeue.client import Client

Tier = Literal["interactive", "normal", "bulk"]

_WHICH = Group("Which jobs, instead of ids", sort_key=2)


@Parameter(name="*", group=_WHICH)
@dataclass(frozen=True)
class Filter:
    """Which waiting jobs; everything given must fit."""

    server: Annotated[str, Parameter(help="For this server, or any.")] = ""
    tier: Annotated[Tier | None, Parameter(help="Of this tier.")] = None
    tag: Annotated[str, Parameter(help="With this tag.")] = ""
    text: Annotated[str, Parameter(help="With this text in the prompt.")] = ""
    state: Annotated[
        Literal["waiting"] | None, Parameter(help="Those that wait: all that can be changed.")
    ] = None
    dry_run: Annotated[bool, Parameter(help="Say which and how many, do nothing.")] = False
    yes: Annotated[bool, Parameter(help="Also when it is more than one.")] = False

    @property
    def given(self) -> bool:
        """Whether it says anything."""
        return bool(self.server or self.tier or self.tag or self.text or self.state)

    def chosen(self, queue: "Client", jobs: Sequence[str], common: Common) -> Sequence[str] | None:
        """Return the ids of the jobs that are meant; None after a dry run.

        Raises:
            BadRequest: Neither ids nor a filter are given, or both.
            Refused: It is more than one, and nobody said yes.
        """
        if bool(jobs) == self.given:
            raise BadRequest("jobs", "give job ids, or which: --tag, --server, --tier, --text")
        if jobs:
            found = [queue.job(job) for job in jobs] if self.dry_run else []
        else:
            found = queue.waiting(
                server=self.server, tier=self.tier or "", tag=self.tag, text=self.text
            )
        if self.dry_run:
            lines = [f"{job.short} {job.server} {job.tier} {job.prompt[:60]}" for job in found]
            common.emit(
                {"count": len(found), "jobs": [job.job_id for job in found]},
                "\n".join([*lines, f"{len(found)} jobs fit; nothing is changed."]),
            )
            return None
        if len(found) > 1 and not self.yes:
            message = (
                f"{len(found)} waiting jobs fit; see them with --dry-run, change them with --yes"
            )
            raise Refused(message)
        return jobs or [job.job_id for job in found]


EVERY = Filter()
"""Nothing said."""
