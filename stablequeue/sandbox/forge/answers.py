"""How the server answers: JSON, and every failure in the form FastAPI 0.104 gives it.

Recorded forms: `{"detail": ...}` for refusals (also with status 500), `{"detail": [{...}]}` with
422 for bodies of a wrong shape, and `{"error", "detail", "body", "message"}` with 500 for any
exception inside the server.
"""

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

# What the recorded server's pydantic writes into its answers.
_ERRORS_URL = "https://errors.pydantic.dev/2.8/v/"

Model = TypeVar("Model", bound=BaseModel)


class Refusal(Exception):
    """Answered as `{"detail": ...}`."""

    def __init__(self, status: int, detail: Any, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, headers)
        self.status, self.detail, self.headers = status, detail, headers


class Failure(Exception):
    """An exception inside the server: 500 with its class in `error`."""

    def __init__(self, error: str, message: str = "", body: Any = "") -> None:
        super().__init__(error, message, body)
        self.error, self.message, self.body = error, message, body


def answer(data: Any, status: int = 200) -> JSONResponse:
    """Render `data`; what cannot be rendered (NaN, half a surrogate pair) is a 500 as well."""
    try:
        return JSONResponse(data, status)
    except ValueError as error:
        return answer_exception(error)


def answer_exception(error: Exception) -> JSONResponse:
    """Render an exception inside the server."""
    if isinstance(error, Refusal):
        headers = dict(error.headers) if error.headers else None
        try:
            return JSONResponse({"detail": error.detail}, error.status, headers)
        except ValueError as unwritable:
            return answer_exception(unwritable)
    if isinstance(error, Failure):
        name, message, body = error.error, error.message, error.body
    else:
        name, message, body = type(error).__name__, str(error), ""
    told = {"error": name, "detail": "", "body": body, "message": message}
    try:
        return JSONResponse(told, 500)
    except ValueError:
        return JSONResponse({**told, "body": "", "message": ascii(message)}, 500)


async def read_json(request: Request) -> Any:
    """Return the body as JSON, None when empty, its bytes when it is not said to be JSON.

    Raises:
        Refusal: 422 for bad JSON, 400 for bytes that are no text at all.
    """
    raw = await request.body()
    if not raw:
        return None
    kind = request.headers.get("content-type", "application/json").split(";")[0].strip().lower()
    if kind != "application/json" and not kind.endswith("+json"):
        return raw
    try:
        return json.loads(raw)
    except json.JSONDecodeError as error:
        detail = {
            "type": "json_invalid",
            "loc": ["body", error.pos],
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise Refusal(422, [detail]) from error
    except (ValueError, RecursionError) as error:
        raise Refusal(400, "There was an error parsing the body") from error


async def read_model(request: Request, model: type[Model]) -> Model:
    """Return the body as `model`.

    Raises:
        Refusal: 422, in the recorded server's words.
    """
    return to_model(await read_json(request), model)


def to_model(data: Any, model: type[Model]) -> Model:
    """Validate parsed JSON; see `read_model`."""
    if data is None:
        raise Refusal(422, [_missing(["body"])])
    try:
        return TypeAdapter(model).validate_python(data, from_attributes=True)
    except ValidationError as error:
        raise Refusal(422, [_told(dict(e)) for e in error.errors()]) from error


async def read_dict(request: Request) -> dict[str, Any]:
    """Return the body, which must be an object.

    Raises:
        Refusal: 422.
    """
    data = await read_json(request)
    if data is None:
        raise Refusal(422, [_missing(["body"])])
    try:
        return TypeAdapter(dict[str, Any]).validate_python(data)
    except ValidationError as error:
        raise Refusal(422, [_told(dict(e)) for e in error.errors()]) from error


def _missing(loc: list[str]) -> dict[str, Any]:
    url = f"{_ERRORS_URL}missing"
    return {"type": "missing", "loc": loc, "msg": "Field required", "input": None, "url": url}


def _told(error: dict[str, Any]) -> dict[str, Any]:
    told = {
        "type": error["type"],
        "loc": ["body", *error["loc"]],
        "msg": error["msg"],
        "input": _plain(error["input"]),
    }
    if "ctx" in error:
        told["ctx"] = {key: _plain(value) for key, value in error["ctx"].items()}
    return {**told, "url": f"{_ERRORS_URL}{error['type']}"}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return ascii(value)
    return value


def no_content() -> Response:
    """Answer `null`, as routes without a result do."""
    return JSONResponse(None)
