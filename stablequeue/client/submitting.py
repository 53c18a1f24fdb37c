"""Submitting: check, accept on disk, hand to Prefect."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stablequeue.catalogue import JobState, StoredRequest
from stablequeue.client.session import Session
from stablequeue.errors import BadRequest, NotFound, PrefectError, PrefectUnreachable
from stablequeue.pipeline.accept import accept, deployment_for
from stablequeue.request import GenerationRequest, parse_request
from stablequeue.sending import send
from stablequeue.server_blocks import saved_servers
from stablequeue.servers import ANY


@dataclass(frozen=True, slots=True)
class Submitted:
    """A job that was accepted: it is on disk.

    Attributes:
        job_id: Its id.
        warnings: One line each.
        note: Why it is not in Prefect yet; empty when it is.
    """

    job_id: str
    warnings: tuple[str, ...] = ()
    note: str = ""


def submit(
    session: Session,
    request: GenerationRequest | Mapping[str, Any] | None,
    fields: Mapping[str, Any],
    *,
    job_id: str = "",
) -> Submitted:
    """Queue a job; see `Client.submit`."""
    wanted = parse_request(_merged(request, fields))
    deployed = _check_server(session, wanted.server)
    stored = accept(wanted, settings=session.settings, catalogue=session.catalogue, job_id=job_id)
    note = deployed
    if stored.state is JobState.ACCEPTED:
        note = _send(session, stored)
    return Submitted(stored.job_id, tuple(_warnings(wanted)), note)


def _merged(
    request: GenerationRequest | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> GenerationRequest | Mapping[str, Any]:
    if request is None:
        return fields
    if not fields:
        return request
    given = request.dumped() if isinstance(request, GenerationRequest) else request
    return {**given, **fields}


def _check_server(session: Session, alias: str) -> str:
    """Refuse a server nobody saved, as far as Prefect can be asked; a note when it cannot."""
    if alias == ANY:
        return ""
    try:
        session.api.deployment(deployment_for(alias))
    except NotFound:
        pass
    except PrefectUnreachable as error:
        return str(error)
    else:
        return ""
    # One that was saved a moment ago has no deployment yet: `up` is about to make it.
    saved = sorted(server.alias for server in saved_servers(session.api))
    if alias not in saved:
        raise BadRequest("server", f"there is no server {alias!r}", [*saved, ANY])
    return ""


def _send(session: Session, stored: StoredRequest) -> str:
    later = "It is kept and will be handed over by: stablequeue up"
    try:
        send(stored, api=session.api, catalogue=session.catalogue)
    except NotFound:
        return f"Prefect has no deployment for {stored.server!r} yet. {later}"
    except PrefectError as error:
        return f"{str(error).rstrip('.')}. {later}"
    return ""


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
