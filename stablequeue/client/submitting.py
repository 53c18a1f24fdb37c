"""Submitting: check, accept on disk, hand to Prefect."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from filelock import FileLock

from stablequeue.catalogue import JobState, NewJob, StoredRequest
from stablequeue.client.session import Session
from stablequeue.errors import BadRequest, NotFound, PrefectError, PrefectUnreachable
from stablequeue.ids import keyed_job_id, new_job_id
from stablequeue.pipeline.accept import accept, acceptable, deployment_for, new_job
from stablequeue.prefect_api import Deployment
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.secrets import private_folder
from stablequeue.sending import send, send_many, sending_lock
from stablequeue.server_blocks import saved_servers
from stablequeue.servers import ANY

ACCEPTED_AT_ONCE = 1000
"""Jobs in one transaction: short enough for other writers to wait."""

MODELS_FILE = "models.db"
"""Name of the record of models in `home`, as `stablequeue.models.library` has it."""

_LONGEST_KEY = 1000


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was accepted: it is on disk.

    Attributes:
        job_id: Its id.
        warnings: One line each.
        note: Why it is not in Prefect yet; empty when it is.
        new: False: an earlier submission with the same key had accepted it.
    """

    job_id: str
    warnings: tuple[str, ...] = ()
    note: str = ""
    new: bool = True


OnBad = Callable[[int, BadRequest], None]
"""Told of a request that is left out: its position, from 0, and why."""

OnProgress = Callable[[int, int], None]
"""Told how many jobs are accepted, and how many of them are flow runs."""


def submit(
    session: Session,
    request: GenerationRequest | Mapping[str, Any] | None,
    fields: Mapping[str, Any],
    *,
    job_id: str = "",
) -> Submitted:
    """Queue a job; see `Client.submit`."""
    wanted = parse_request(_merged(request, fields))
    target, deployed = _find_server(session, wanted.server)
    stored = accept(wanted, settings=session.settings, catalogue=session.catalogue, job_id=job_id)
    note = deployed
    if stored.state is JobState.ACCEPTED:
        note = _send(session, stored, target)
    warnings = (*_warnings(wanted), *_unfit_models(session, [wanted])[0])
    return Submitted(stored.job_id, warnings, note)


def submit_many(
    session: Session,
    requests: Iterable[GenerationRequest | Mapping[str, Any]],
    fields: Mapping[str, Any],
    *,
    key: str = "",
    on_bad: OnBad | None = None,
    on_progress: OnProgress | None = None,
) -> list[Submitted]:
    """Queue many jobs; see `Client.submit_many`."""
    jobs = _checked_jobs(session, requests, fields, key=key, on_bad=on_bad)
    tell = on_progress or _nobody
    ids = [job.job_id for job in jobs]
    known = session.catalogue.requests_by_id(ids)
    rows: list[StoredRequest] = []
    for start in range(0, len(jobs), ACCEPTED_AT_ONCE):
        rows += session.catalogue.accept_many(jobs[start : start + ACCEPTED_AT_ONCE])
        tell(len(rows), 0)
    notes = _send_many(session, rows, tell)
    seen: set[str] = set(known)
    found: list[Submitted] = []
    unfit = _unfit_models(session, [job.request for job in jobs])
    for job, models in zip(jobs, unfit, strict=True):
        warnings = (*_warnings(job.request), *models)
        new, note = job.job_id not in seen, notes.get(job.job_id, "")
        found.append(Submitted(job.job_id, warnings, note, new=new))
        seen.add(job.job_id)
    return found


def _checked_jobs(
    session: Session,
    requests: Iterable[GenerationRequest | Mapping[str, Any]],
    fields: Mapping[str, Any],
    *,
    key: str,
    on_bad: OnBad | None,
) -> list[NewJob]:
    """Return the jobs to accept, each with its id; nothing is on disk but input pictures."""
    kept: dict[str, str] = {}
    servers: dict[str, BadRequest | None] = {}
    equal: Counter[str] = Counter()
    jobs: list[NewJob] = []
    for position, given in enumerate(requests):
        try:
            own, content, data = _own_key(given)
            number = equal[content]
            equal[content] += 1
            request = parse_request(_with_common(data, fields))
            _must_be_saved(session, request.server, servers)
            request = acceptable(request, settings=session.settings, kept=kept)
        except BadRequest as error:
            if on_bad is None:
                field = f"requests.{position}.{error.field}"
                raise BadRequest(field, error.problem, error.allowed) from error
            on_bad(position, error)
            continue
        keyed = key or own
        job_id = keyed_job_id(key, content, 0 if own else number) if keyed else new_job_id()
        jobs.append(new_job(request, job_id))
    return jobs


def _with_common(
    request: GenerationRequest | Mapping[str, Any], fields: Mapping[str, Any]
) -> GenerationRequest | Mapping[str, Any]:
    """Put common fields over those of one of many requests: tags are added, parts merged."""
    if not fields:
        return request
    data = request.dumped() if isinstance(request, GenerationRequest) else request
    common = dict(fields)
    for name, value in fields.items():
        own = data.get(name)
        if name == "tags" and isinstance(own, list) and isinstance(value, list | tuple):
            common[name] = list(dict.fromkeys([*cast("list[Any]", own), *cast("list[Any]", value)]))
        elif isinstance(own, Mapping) and isinstance(value, Mapping):
            common[name] = {**cast("Mapping[str, Any]", own), **cast("Mapping[str, Any]", value)}
    return {**data, **common}


def _own_key(
    given: GenerationRequest | Mapping[str, Any],
) -> tuple[str, str, GenerationRequest | Mapping[str, Any]]:
    """Return a request's own key, what identifies it in its submission, and the request."""
    if isinstance(given, GenerationRequest):
        return "", json.dumps(given.dumped(), sort_keys=True), given
    if not isinstance(given, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] - from JSON
        raise BadRequest("request", 'an object is needed, as in {"prompt": "a lighthouse"}')
    if "key" not in given:
        return "", json.dumps(given, sort_keys=True, default=str), given
    own = given["key"]
    if not isinstance(own, str) or not own or len(own) > _LONGEST_KEY:
        raise BadRequest("key", f"a text of 1 to {_LONGEST_KEY} characters is needed")
    return own, f"key {own}", {name: value for name, value in given.items() if name != "key"}


def _must_be_saved(session: Session, alias: str, servers: dict[str, BadRequest | None]) -> None:
    """Refuse a server nobody saved; each is asked for once."""
    if alias not in servers:
        servers[alias] = None
        try:
            check_server(session, alias)
        except BadRequest as error:
            servers[alias] = error
    if error := servers[alias]:
        raise error


def _send_many(session: Session, rows: Sequence[StoredRequest], tell: OnProgress) -> dict[str, str]:
    """Create the runs of accepted jobs; a note for each that has none yet."""
    later = "It is kept and will be handed over by: stablequeue up"
    settings = session.settings
    sent = len(rows)
    waiting = [row for row in rows if row.state is JobState.ACCEPTED]
    if not waiting:
        return {}

    def count(more: int) -> None:
        nonlocal sent
        sent += more
        tell(len(rows), sent)

    try:
        with FileLock(sending_lock(private_folder(settings.run_folder))):
            now = session.catalogue.requests_by_id(row.job_id for row in waiting)
            left = [row for row in now.values() if row.state is JobState.ACCEPTED]
            left.sort(key=lambda row: row.id)
            sent = len(rows) - len(left)
            refused = send_many(left, api=session.api, catalogue=session.catalogue, on_sent=count)
    except PrefectError as error:
        now = session.catalogue.requests_by_id(row.job_id for row in waiting)
        refused = {row.job_id: error for row in now.values() if row.state is JobState.ACCEPTED}
    return {job_id: f"{str(error).rstrip('.')}. {later}" for job_id, error in refused.items()}


def _nobody(accepted: int, sent: int) -> None:
    del accepted, sent


def _merged(
    request: GenerationRequest | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> GenerationRequest | Mapping[str, Any]:
    if request is None:
        return fields
    if not fields:
        return request
    given = request.dumped() if isinstance(request, GenerationRequest) else request
    return {**given, **fields}


def check_server(session: Session, alias: str) -> str:
    """Refuse a server nobody saved, as far as Prefect can be asked; a note when it cannot."""
    return _find_server(session, alias)[1]


def _find_server(session: Session, alias: str) -> tuple[Deployment | None, str]:
    """Return a server's deployment, if there is one and it was asked for, and that note."""
    if alias == ANY:
        return None, ""
    try:
        return session.api.deployment(deployment_for(alias)), ""
    except NotFound:
        pass
    except PrefectUnreachable as error:
        return None, str(error)
    # One that was saved a moment ago has no deployment yet: `up` is about to make it.
    saved = sorted(server.alias for server in saved_servers(session.api))
    if alias not in saved:
        raise BadRequest("server", f"there is no server {alias!r}", [*saved, ANY])
    return None, ""


def _send(session: Session, stored: StoredRequest, target: Deployment | None) -> str:
    later = "It is kept and will be handed over by: stablequeue up"
    try:
        send(stored, api=session.api, catalogue=session.catalogue, target=target)
    except NotFound:
        return f"Prefect has no deployment for {stored.server!r} yet. {later}"
    except PrefectError as error:
        return f"{str(error).rstrip('.')}. {later}"
    return ""


def _unfit_models(session: Session, requests: Sequence[GenerationRequest]) -> list[list[str]]:
    """Return for each request what does not fit together of models the library knows."""
    if not (session.settings.home / MODELS_FILE).is_file():
        return [[] for _ in requests]
    from stablequeue.client.model_warnings import ModelWarnings  # noqa: PLC0415  # only with models

    known = ModelWarnings(session.settings)
    return [known.about(request) for request in requests]


def _warnings(request: GenerationRequest) -> list[str]:
    """Return what is allowed and yet likely not meant."""
    found: list[str] = []
    names = [lora.name.casefold() for lora in request.loras]
    found += [
        f"loras: {name!r} is named more than once; the weights add up"
        for name in sorted({name for name in names if names.count(name) > 1})
    ]
    if request.mask_image and request.mode.value != "inpaint":
        found.append(f"mask_image: not used in mode {request.mode.value}")
    if request.init_image and request.mode.value == "txt2img":
        found.append("init_image: not used in mode txt2img")
    if request.hires.enabled and request.mode.value != "txt2img":
        found.append(f"hires: not used in mode {request.mode.value}")
    return found
