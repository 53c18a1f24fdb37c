"""Accept a job: validate it, keep its input pictures, fix its seed, write its row."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stablequeue.catalogue import Catalogue, NewJob, StoredRequest
from stablequeue.errors import BadRequest, NotFound
from stablequeue.ids import derived_seed, new_job_id
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.servers import ANY
from stablequeue.settings import Settings
from stablequeue.storage import InputStore

_INPUTS = ("init_image", "mask_image")
_REFERENCE = "sha256:"


def accept(
    data: Mapping[str, Any] | GenerationRequest,
    *,
    settings: Settings,
    catalogue: Catalogue,
    job_id: str = "",
) -> StoredRequest:
    """Accept a job from somebody who may read any file we may: when this returns, it is on disk.

    Raises:
        BadRequest: The first problem, naming the field and what is allowed.
        CatalogueBusy: Retryable with the same `job_id`.
    """
    request = acceptable(data, settings=settings)
    return catalogue.accept_many([new_job(request, job_id or new_job_id())])[0]


def acceptable(
    data: Mapping[str, Any] | GenerationRequest,
    *,
    settings: Settings,
    kept: dict[str, str] | None = None,
) -> GenerationRequest:
    """Return what is asked as a job may have it: valid, its input pictures kept.

    Args:
        data: From somebody who may read any file we may.
        settings: Of the installation.
        kept: References of pictures this submission has kept already, by path; added to.

    Raises:
        BadRequest: As for `accept`.
    """
    request = parse_request(data)
    if request.expired(datetime.now(UTC)):
        raise BadRequest("expires_at", "this time is already over")
    return with_kept_inputs(request, settings, allowed=None, kept=kept)


def new_job(request: GenerationRequest, job_id: str) -> NewJob:
    """Return a job to accept: its seed fixed, its deployment named."""
    return NewJob(
        request=request,
        job_id=job_id,
        seed=fixed_seed(request, job_id),
        deployment=deployment_for(request.server),
        source=request.source,
    )


def begin(
    data: Mapping[str, Any] | GenerationRequest,
    *,
    settings: Settings,
    catalogue: Catalogue,
    job_id: str,
    server: str,
    flow_run_id: str,
) -> StoredRequest:
    """Return the job as it stands when its run starts; from then on it is frozen.

    For a run that our client did not create this is where it is accepted, so its input pictures
    may only come from the configured folders. Running it again returns the first answer.

    Raises:
        BadRequest: As for `accept`, with the same words.
    """
    request = _frozen(job_id, catalogue) or with_kept_inputs(
        parse_request(data), settings, allowed=settings.input_folders
    )
    if request.server == ANY != server:
        request = request.model_copy(update={"server": server})  # so that `again` goes there too
    return catalogue.start(
        request,
        job_id=job_id,
        seed=fixed_seed(request, job_id),
        server=server,
        flow_run_id=flow_run_id,
        deployment=deployment_for(server),
    )


def job_of_run(job_id: str, flow_run_id: str, catalogue: Catalogue) -> str:
    """Return the id of the job a flow run works on.

    Args:
        job_id: As the run's parameters have it; empty for a run that our client did not create.
        flow_run_id: The run's own id, and the id of the job it makes if it came from elsewhere.
        catalogue: Knows which run a job has.

    A run copied in Prefect's pages carries the id of the original's job, which has its own run:
    the copy is a new job.
    """
    if not job_id:
        return flow_run_id
    try:
        known = catalogue.request(job_id)
    except NotFound:
        return job_id
    return job_id if known.flow_run_id in {"", flow_run_id} else flow_run_id


def _frozen(job_id: str, catalogue: Catalogue) -> GenerationRequest | None:
    """Return the request of a job that has started before: what it was made from then counts."""
    try:
        known = catalogue.request(job_id)
    except NotFound:
        return None
    return known.request if known.started_at is not None else None


def fixed_seed(request: GenerationRequest, job_id: str) -> int:
    """Return the seed of the job's first picture; -1 becomes one derived from the job's id."""
    return request.seed if request.seed >= 0 else derived_seed(job_id)


def deployment_for(server: str) -> str:
    """Return the name of the deployment whose runs go to `server` (an alias or `any`)."""
    return f"generate/{server or ANY}"


def with_kept_inputs(
    request: GenerationRequest,
    settings: Settings,
    *,
    allowed: Sequence[Path] | None,
    kept: dict[str, str] | None = None,
) -> GenerationRequest:
    """Replace paths of input pictures by references to our own copies.

    Args:
        request: As asked.
        settings: Say where the copies lie.
        allowed: Folders from which they may come; None: from anywhere.
        kept: References of pictures that were read already, by path; added to.

    Raises:
        BadRequest: A path is not allowed, not there, or not a picture.
    """
    if not request.init_image and not request.mask_image:
        return request
    changed: dict[str, str] = {}
    known = {} if kept is None else kept
    store = InputStore(settings.inputs)
    for field in _INPUTS:
        value: str = getattr(request, field)
        if not value:
            continue
        if value.startswith(_REFERENCE):
            store.check(value, field=field)
        else:
            if value not in known:
                known[value] = store.ingest(Path(value).expanduser(), allowed=allowed, field=field)
            changed[field] = known[value]
    return request.model_copy(update=changed) if changed else request
