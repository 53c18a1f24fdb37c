"""Giving waiting jobs another tier or server, and editing them.

A run's tier is a tag and a parameter, which change in place. Its pool does not: a job that goes to
another server gets a new run under the same job id.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from filelock import FileLock

from stablequeue.catalogue import StoredRequest
from stablequeue.catalogue.waiting import Asked, with_tier
from stablequeue.client.acting import Change
from stablequeue.client.choosing import Chosen
from stablequeue.client.placing import Placing, did, left
from stablequeue.client.session import Session
from stablequeue.client.submitting import check_server
from stablequeue.errors import BadRequest, Refused
from stablequeue.ids import run_name
from stablequeue.pipeline.accept import acceptable, deployment_for, fixed_seed
from stablequeue.prefect_api import Run
from stablequeue.request import GenerationRequest, Tier, parse_request
from stablequeue.secrets import private_folder
from stablequeue.sending import job_tags, run_parameters, send_many, sending_lock
from stablequeue.views import OUR_TAGS, PINNED

_NOT_EDITABLE = {"server": "use: stablequeue move ID --server ALIAS", "schema_version": "leave it"}


class Ordering:
    """Changes waiting jobs, for one `Session`."""

    def __init__(self, session: Session, placing: Placing) -> None:
        self._session = session
        self._placing = placing

    def tier(self, jobs: Sequence[Chosen], tier: Tier) -> list[Change]:
        """Give jobs another tier; their places stay."""
        others = [one for one in jobs if one.seen.tier != tier.value]

        def change(run: Run) -> None:
            asked = cast("dict[str, Any]", run.parameters.get("request") or {})
            parameters = {**run.parameters, "request": with_tier(asked, tier)}
            kept = [tag for tag in run.tags if not tag.startswith("tier:") and tag != PINNED]
            tags = [*kept, f"tier:{tier.value}"]
            self._session.api.patch_run(run.id, parameters=parameters, tags=tags)

        changed = {
            one.job_id: one
            for one in self._placing.each_waiting(others, change, f"is {tier.value} now")
        }
        rows = self._session.catalogue.set_tier(
            [one.job_id for one in others if one.stored is not None], tier
        )
        for one in others:
            row = rows.get(one.job_id)
            if one.run is None and row is not None:
                self._catch_up(row, change)
                changed[one.job_id] = did(one, f"is {tier.value} now")
        return [changed.get(one.job_id, did(one, f"is {tier.value} already")) for one in jobs]

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
                done[one.job_id] = did(one, f"is for {alias} already")
            elif one.stored is None:
                done[one.job_id] = left(
                    one, "was made in Prefect's pages: cancel it, and queue one"
                )
            elif one.stored.started_at is not None:
                done[one.job_id] = left(one, "has begun there; cancel it, and use: again --server")
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
                done[one.job_id] = left(one, str(refused[one.job_id]))
            elif one.job_id in rows:
                done[one.job_id] = did(one, f"is for {alias} now")
        return [done.get(one.job_id, left(one, "has begun meanwhile")) for one in jobs]

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

        changed = {one.job_id: one for one in self._placing.each_waiting(jobs, change, "changed")}
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
                changed[one.job_id] = left(one, "has begun meanwhile, as it was")
            elif one.run is None:
                self._catch_up(
                    row,
                    lambda run, one=one: self._session.api.patch_run(
                        run.id, **_as_asked(run, one, new[one.job_id])
                    ),
                )
                changed[one.job_id] = did(one, "changed")
        return [changed[one.job_id] for one in jobs]

    def _edited(self, one: Chosen, changes: Mapping[str, Any]) -> GenerationRequest:
        if one.stored is not None and one.stored.started_at is not None:
            message = (
                f"job {one.seen.short} has begun before, and what it was made from then counts;"
                f" queue another: stablequeue again {one.seen.short}"
            )
            raise Refused(message)
        return acceptable(_with(one.asked, changes), settings=self._session.settings)

    def _catch_up(self, row: StoredRequest, change: Callable[[Run], None]) -> None:
        """Change the run of a job that was sent while only its row was changed."""
        if row.flow_run_id:
            change(self._session.api.read_run(row.flow_run_id))


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
