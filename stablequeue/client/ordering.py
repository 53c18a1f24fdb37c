"""Moving and editing jobs that wait, one or many, in as few calls as Prefect allows.

A waiting run's place is its scheduled time, its tier a tag and a parameter; both change in place.
Its pool does not: a job that goes to another server gets a new run under the same job id.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, cast

from filelock import FileLock

from stablequeue.catalogue import StoredRequest
from stablequeue.catalogue.waiting import Asked, with_tier
from stablequeue.client.acting import Change
from stablequeue.client.choosing import Choosing, Chosen
from stablequeue.client.reading import IN_ORDER, of_ours
from stablequeue.client.session import Session
from stablequeue.client.submitting import check_server
from stablequeue.errors import BadRequest, NotFound, PrefectRefused, Refused
from stablequeue.ids import run_name
from stablequeue.pipeline.accept import acceptable, deployment_for, fixed_seed
from stablequeue.prefect_api import Run, StateType, run_filter
from stablequeue.request import GenerationRequest, Tier, parse_request
from stablequeue.secrets import private_folder
from stablequeue.sending import each, job_tags, run_parameters, send_many, sending_lock
from stablequeue.views import OUR_TAGS, PINNED, due

_FRONT_STEP = timedelta(milliseconds=1)
_LEAST = timedelta(microseconds=1)
_CHECKED_AT_ONCE = 25
"""Runs whose state is looked at just before they are moved: moving one that began would undo it."""

_NEIGHBOURS = 200
_NOT_EDITABLE = {"server": "use: stablequeue move ID --server ALIAS", "schema_version": "leave it"}


class Ordering:
    """Moves and edits waiting jobs, for one `Session`."""

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
                    done[group[0].job_id] = _did(group[0], "is the first already")
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

    def tier(self, jobs: Sequence[Chosen], tier: Tier) -> list[Change]:
        """Give jobs another tier; their places stay."""
        others = [one for one in jobs if one.seen.tier != tier.value]

        def change(run: Run) -> None:
            asked = cast("dict[str, Any]", run.parameters.get("request") or {})
            parameters = {**run.parameters, "request": with_tier(asked, tier)}
            kept = [tag for tag in run.tags if not tag.startswith("tier:") and tag != PINNED]
            tags = [*kept, f"tier:{tier.value}"]
            self._session.api.patch_run(run.id, parameters=parameters, tags=tags)

        changed = {one.job_id: one for one in self._each(others, change, f"is {tier.value} now")}
        rows = self._session.catalogue.set_tier(
            [one.job_id for one in others if one.stored is not None], tier
        )
        for one in others:
            row = rows.get(one.job_id)
            if one.run is None and row is not None:
                self._catch_up(row, change)
                changed[one.job_id] = _did(one, f"is {tier.value} now")
        return [changed.get(one.job_id, _did(one, f"is {tier.value} already")) for one in jobs]

    def server(self, jobs: Sequence[Chosen], alias: str) -> list[Change]:
        """Give jobs to another server, under their ids and at their places.

        Raises:
            BadRequest: There is no such server.
            NotFound: It has no deployment yet.
        """
        check_server(self._session, alias)
        deployment = deployment_for(alias)
        self._session.api.deployment(deployment)
        done: dict[str, Change] = {}
        requests: dict[str, GenerationRequest] = {}
        for one in jobs:
            if one.seen.pool == alias or (one.run is None and one.seen.server == alias):
                done[one.job_id] = _did(one, f"is for {alias} already")
            elif one.stored is None:
                done[one.job_id] = _left(
                    one, "was made in Prefect's pages: cancel it, and queue one"
                )
            elif one.stored.started_at is not None:
                done[one.job_id] = _left(one, "has begun there; cancel it, and use: again --server")
            else:
                requests[one.job_id] = parse_request({**one.asked, "server": alias})
        catalogue, run_folder = self._session.catalogue, self._session.settings.run_folder
        private_folder(run_folder.parent)
        with FileLock(sending_lock(private_folder(run_folder))):
            rows = catalogue.redirect(requests, deployment=deployment)
            ordered = [rows[one.job_id] for one in jobs if one.job_id in rows]
            refused = send_many(ordered, api=self._session.api, catalogue=catalogue)
        for one in jobs:
            if one.job_id in refused:
                done[one.job_id] = _left(one, str(refused[one.job_id]))
            elif one.job_id in rows:
                done[one.job_id] = _did(one, f"is for {alias} now")
        return [done.get(one.job_id, _left(one, "has begun meanwhile")) for one in jobs]

    def edit(self, jobs: Sequence[Chosen], changes: Mapping[str, Any]) -> list[Change]:
        """Change what jobs ask for.

        Raises:
            BadRequest: A field is wrong, for one of the jobs; none is changed.
            Refused: One has begun before: what it was made from then counts.
        """
        for name in changes:
            if why := _NOT_EDITABLE.get(name.split(".", maxsplit=1)[0]):
                raise BadRequest(name, f"not changed by edit; {why}")
        new = {one.job_id: self._edited(one, changes) for one in jobs}
        before = {one.run.id: one for one in jobs if one.run is not None}

        def change(run: Run) -> None:
            job = before[run.id]
            self._session.api.patch_run(run.id, **_as_asked(run, job, new[job.job_id]))

        changed = {one.job_id: one for one in self._each(jobs, change, "changed")}
        asked = {
            one.job_id: Asked(request=new[one.job_id], seed=fixed_seed(new[one.job_id], one.job_id))
            for one in jobs
            if one.stored is not None and (one.run is None or changed[one.job_id].done)
        }
        rows = self._session.catalogue.edit_waiting(asked) if asked else {}
        for one in jobs:
            row = rows.get(one.job_id)
            if row is None:
                continue
            if row.data != new[one.job_id].dumped():
                changed[one.job_id] = _left(one, "has begun meanwhile, as it was")
            elif one.run is None:
                self._catch_up(
                    row,
                    lambda run, one=one: self._session.api.patch_run(
                        run.id, **_as_asked(run, one, new[one.job_id])
                    ),
                )
                changed[one.job_id] = _did(one, "changed")
        return [changed[one.job_id] for one in jobs]

    def _edited(self, one: Chosen, changes: Mapping[str, Any]) -> GenerationRequest:
        if one.stored is not None and one.stored.started_at is not None:
            message = (
                f"job {one.seen.short} has begun before, and what it was made from then counts;"
                f" queue another: stablequeue again {one.seen.short}"
            )
            raise Refused(message)
        return acceptable(_with(one.asked, changes), settings=self._session.settings)

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

        return self._each(jobs, move, message)

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

    def _each(
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
                changes[one.job_id] = _left(one, problem) if problem else _did(one, text)
        return [
            changes.get(one.job_id, _left(one, "is not in Prefect yet, so it has no place"))
            for one in jobs
        ]

    def _catch_up(self, row: StoredRequest, change: Callable[[Run], None]) -> None:
        """Change the run of a job that was sent while only its row was changed."""
        if row.flow_run_id:
            change(self._session.api.read_run(row.flow_run_id))


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


def _as_asked(run: Run, job: Chosen, request: GenerationRequest) -> dict[str, Any]:
    """Return what a run's name, parameters and tags are to be."""
    old = {*cast("Sequence[str]", job.asked.get("tags") or ())}
    kept = [tag for tag in run.tags if not tag.startswith(OUR_TAGS) and tag not in old]
    server = request.server if request.server != "any" or not run.pool else run.pool
    job_id = job.job_id
    given = run_parameters(job_id, request)
    if "job_id" not in run.parameters:  # made in Prefect's pages: its job has the run's own id
        del given["job_id"]
    return {
        "name": run_name(request.prompt, request.mode.value, server, job_id),
        "parameters": {**run.parameters, **given},
        "tags": list(dict.fromkeys([*job_tags(request, job_id, server), *kept])),
    }


def _with(data: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with changes; dots lead into fields of fields."""
    result = dict(data)
    for path, value in changes.items():
        names = path.split(".")
        at = result
        for name in names[:-1]:
            inner: Any = at.get(name, {})
            if not isinstance(inner, Mapping):
                raise BadRequest(path, f"{name!r} has no fields")
            at[name] = dict(cast("Mapping[str, Any]", inner))
            at = at[name]
        at[names[-1]] = value
    if "prompt" in changes:
        result.pop("positive_prompt", None)  # its other name, in runs made elsewhere
    return result


def _did(one: Chosen, message: str) -> Change:
    return Change(one.job_id, done=True, message=message)


def _left(one: Chosen, message: str) -> Change:
    return Change(one.job_id, done=False, message=message)
