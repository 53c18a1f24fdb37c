"""Moving waiting jobs within their server and tier: a run's place is its scheduled time."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

from stablequeue.client.acting import Change
from stablequeue.client.choosing import Choosing, Chosen
from stablequeue.client.reading import IN_ORDER, of_ours
from stablequeue.client.session import Session
from stablequeue.errors import NotFound, PrefectRefused, Refused
from stablequeue.prefect_api import Run, StateType, run_filter
from stablequeue.prefect_api.parallel import each
from stablequeue.views import PINNED, due

_FRONT_STEP = timedelta(milliseconds=1)
_LEAST = timedelta(microseconds=1)
_CHECKED_AT_ONCE = 25
"""Runs whose state is looked at just before they are moved: moving one that began would undo it."""

_NEIGHBOURS = 200


class Placing:
    """Moves waiting jobs, for one `Session`."""

    def __init__(self, session: Session, choosing: Choosing) -> None:
        self._session = session
        self._choosing = choosing

    def front(self, jobs: Sequence[Chosen]) -> list[Change]:
        """Put jobs before all others of their server and tier, in the order given."""
        times: dict[str, datetime] = {}
        done: dict[str, Change] = {}
        for pool, group in _by_pool([one for one in jobs if one.run]).items():
            [*first] = self._first(pool)
            if len(group) == 1 and first and group[0].run and first[0].id == group[0].run.id:
                times[group[0].job_id] = due(first[0]) or datetime.now(UTC)
                if PINNED in first[0].tags:
                    done[group[0].job_id] = did(group[0], "is the first already")
                continue
            known = [when for one in first if (when := due(one))]
            start = min([*known, datetime.now(UTC)]) - timedelta(seconds=1)
            for place, one in enumerate(group):
                times[one.job_id] = start - _FRONT_STEP * (len(group) - place)
        left = [one for one in jobs if one.job_id not in done]
        moved = self._place(left, times, pinned=True, message="is first of its tier ({}) now")
        done |= {one.job_id: one for one in moved}
        return [done[one.job_id] for one in jobs]

    def after(self, jobs: Sequence[Chosen], target: Chosen) -> list[Change]:
        """Put jobs right behind another, in the order given; all of its server and tier.

        Raises:
            Refused: The other one is not in Prefect yet, or a job is of another server or tier.
        """
        jobs = [one for one in jobs if one.job_id != target.job_id]
        start = due(target.run) if target.run is not None else None
        if target.run is None or start is None:
            message = (
                f"job {target.seen.short} is not in Prefect yet, so nothing can stand behind it"
            )
            raise Refused(message)
        for one in jobs:
            if one.seen.tier != target.seen.tier:
                other = f"of tier {one.seen.tier}, and {target.seen.short} of {target.seen.tier}"
                raise Refused(f"job {one.seen.short} is {other}; move it with --tier first")
            pools = {one.seen.pool, target.seen.pool}
            if one.run is not None and len(pools) > 1 and "any" not in pools:
                other = f"for {one.seen.pool}, and {target.seen.short} for {target.seen.pool}"
                raise Refused(f"job {one.seen.short} is {other}; move it with --server first")
        moving = {one.run.id for one in jobs if one.run is not None}
        followers = self._followers(target.run, start, moving | {target.run.id})
        times, pushed = _between(start, [one.job_id for one in jobs], followers)
        each(pushed, lambda move: self._set_place(*move))
        message = f"stands behind {target.seen.short} now"
        return self._place(jobs, times, pinned=False, message=message)

    def _first(self, pool: str) -> list[Run]:
        same = run_filter(states=[StateType.SCHEDULED], pools=[pool] if pool else None)
        return self._session.api.runs(of_ours(same), limit=1, sort=IN_ORDER)

    def _followers(self, target: Run, start: datetime, without: set[str]) -> list[Run]:
        """Return the runs of its tier that stand behind one, in their order."""
        tier = [tag for tag in target.tags if tag.startswith("tier:")]
        pools = {target.pool, "any"} if target.pool != "any" else None
        filters = run_filter(
            states=[StateType.SCHEDULED], pools=pools, tags_all=tier or None, due_from=start
        )
        found = self._session.api.runs(of_ours(filters), limit=_NEIGHBOURS, sort=IN_ORDER)
        return [run for run in found if run.id not in without and (due(run) or start) > start]

    def _place(
        self,
        jobs: Sequence[Chosen],
        times: Mapping[str, datetime],
        *,
        pinned: bool,
        message: str,
    ) -> list[Change]:
        job_ids = {one.run.id: one.job_id for one in jobs if one.run is not None}

        def move(run: Run) -> None:
            changes: dict[str, Any] = {}
            if (PINNED in run.tags) != pinned:
                others = [tag for tag in run.tags if tag != PINNED]
                changes["tags"] = [*others, PINNED] if pinned else others
            if run.process:  # of an earlier try: Prefect would send a cancel there, and wait
                changes["infrastructure_pid"] = None
            if changes:
                self._session.api.patch_run(run.id, **changes)
            self._set_place(run, times[job_ids[run.id]])

        return self.each_waiting(jobs, move, message)

    def _set_place(self, run: Run, when: datetime) -> None:
        change = self._session.api.set_state(
            run.id,
            StateType.SCHEDULED,
            run.state_name,
            message=run.state_message,
            scheduled_time=when,
        )
        if not change.accepted:
            raise PrefectRefused(f"Prefect did not move it: {change.reason}")

    def each_waiting(
        self, jobs: Sequence[Chosen], act: Callable[[Run], None], message: str
    ) -> list[Change]:
        """Do something to the run of each job that still waits; the others say why not."""
        changes: dict[str, Change] = {}
        with_run = [(one, one.run) for one in jobs if one.run is not None]
        for start in range(0, len(with_run), _CHECKED_AT_ONCE):
            some = with_run[start : start + _CHECKED_AT_ONCE]
            now = self._choosing.still_waiting([run for _, run in some])

            def one_of_them(
                item: tuple[Chosen, Run], now: Mapping[str, Run] = now
            ) -> tuple[Chosen, str]:
                one, run = item
                if run.id not in now:
                    return one, "has begun or ended meanwhile"
                try:
                    act(now[run.id])
                except NotFound:
                    return one, "its run was deleted in Prefect"
                except PrefectRefused as error:
                    return one, str(error)
                return one, ""

            for one, problem in each(some, one_of_them):
                text = message.format(one.seen.tier)
                changes[one.job_id] = left(one, problem) if problem else did(one, text)
        return [
            changes.get(one.job_id, left(one, "is not in Prefect yet, so it has no place"))
            for one in jobs
        ]


def _by_pool(jobs: Sequence[Chosen]) -> dict[str, list[Chosen]]:
    ordered = sorted(jobs, key=lambda one: one.seen.pool)
    return {pool: list(group) for pool, group in groupby(ordered, key=lambda one: one.seen.pool)}


def _between(
    start: datetime, job_ids: Sequence[str], followers: Sequence[Run]
) -> tuple[dict[str, datetime], list[tuple[Run, datetime]]]:
    """Return places right behind `start`, and new ones of followers that must make room.

    Raises:
        Refused: Too many stand at one place.
    """
    count = len(job_ids)
    for pushed, run in enumerate(followers):
        end = due(run)
        step = ((end or start) - start) / (count + pushed + 1)
        if step >= _LEAST:
            break
    else:
        if len(followers) >= _NEIGHBOURS:
            raise Refused("too many jobs stand at this place; move to the front instead")
        pushed, step = len(followers), _FRONT_STEP
    places = [start + step * (place + 1) for place in range(count + pushed)]
    times = dict(zip(job_ids, places[:count], strict=True))
    return times, list(zip(followers[:pushed], places[count:], strict=True))


def did(one: Chosen, message: str) -> Change:
    """Return that a job was changed."""
    return Change(one.job_id, done=True, message=message)


def left(one: Chosen, message: str) -> Change:
    """Return why a job was left as it is."""
    return Change(one.job_id, done=False, message=message)
