"""A server's refusal or failure as one of our errors.

Source: the recorded answers (Forge f2.0.1). A status of 500 says nothing by itself: with `detail`
the request is at fault; without it `error` names the exception that ended the job.
"""

import json
from http import HTTPStatus
from typing import Any, cast

import httpx

from stablequeue.engines.forge.answers import JSON, mapping, one_line, text
from stablequeue.errors import (
    EngineAuthFailed,
    EngineBusy,
    EngineError,
    JobFailed,
    JobRejected,
    ModelMissing,
    OutOfMemory,
    ProtocolError,
)
from stablequeue.servers import ServerConfig

REQUEST_FAULTS = {"ZeroDivisionError", "AssertionError", "IndexError", "KeyError", "TypeError"}
"""Exceptions that a wrong request causes; asking again gives the same."""

_OUT_OF_MEMORY = (
    "out of memory",
    "outofmemory",
    "not enough memory",
    "alloc_failed",
    "allocation on device",
)
_REFUSED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def failure(server: ServerConfig, response: httpx.Response) -> EngineError:
    """Return what an answer other than 200 to a job means."""
    status = response.status_code
    return _by_status(server, status) or _by_words(server, status, response)


def _by_status(server: ServerConfig, status: int) -> EngineError | None:
    if status in _REFUSED:
        return EngineAuthFailed(
            server.alias,
            f"it refused our credentials ({status}). "
            f"Correct them with: stablequeue servers add {server.alias} --update ...",
        )
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return JobRejected(
            server.alias,
            "the pictures are too large for the proxy before it; raise its body size limit",
        )
    return None


def _by_words(server: ServerConfig, status: int, response: httpx.Response) -> EngineError:
    alias, body = server.alias, _body(response)
    detail, error = _detail(body.get("detail")), one_line(text(body.get("error")))
    words = detail or text(body.get("message")) or text(body.get("errors"))
    told = ": ".join(filter(None, (error, one_line(words)))) or str(status)
    if not body:
        said = one_line(response.text, 120) or "empty"
        found: EngineError = ProtocolError(
            alias, f"unexpected status {status} for a job ({said}). Is it Forge at this address?"
        )
    elif _is_out_of_memory(error, words):
        found = OutOfMemory(
            alias,
            f"the card has not enough memory ({one_line(words or error, 160)});"
            " use a smaller size, or free memory there",
        )
    elif status == HTTPStatus.NOT_FOUND and detail == "Not Found":
        found = EngineBusy(
            alias, "its API is not there now (404); it is starting, or runs without --api"
        )
    elif "do not have any model" in words:
        found = ModelMissing(alias, "checkpoint", "any model")
    elif detail or status == HTTPStatus.UNPROCESSABLE_ENTITY:
        found = JobRejected(alias, f"it refused the job: {one_line(words) or status}")
    elif error in REQUEST_FAULTS:
        found = JobRejected(alias, f"the job made it fail: {told}. Check the request's settings")
    else:
        found = JobFailed(alias, f"the job failed there: {told}. See the server's console")
    return found


def _is_out_of_memory(error: str, words: str) -> bool:
    said = f"{error} {words}".casefold()
    return any(sign in said for sign in _OUT_OF_MEMORY)


def _body(response: httpx.Response) -> JSON:
    try:
        return mapping(json.loads(response.content))
    except (ValueError, RecursionError):
        return {}


def _detail(detail: Any) -> str:
    """`detail` is text, or a list of `{loc, msg}` from the check of the request."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    problems: list[str] = []
    for entry in map(mapping, cast("list[Any]", detail)[:5]):
        loc = entry.get("loc")
        parts = cast("list[Any]", loc) if isinstance(loc, list) else []
        place = ".".join(str(part) for part in parts[:6] if part != "body")
        problems.append(": ".join(filter(None, (place, text(entry.get("msg"))))))
    return "; ".join(filter(None, problems))
