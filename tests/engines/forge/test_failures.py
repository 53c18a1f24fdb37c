"""What an answer other than 200 means."""

from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from stablequeue.engines.forge.failures import failure
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
from tests.engines.forge.making import config
from tests.engines.forge.recordings import job, job_names

SERVER: ServerConfig = config("http://127.0.0.1:1")


def told(status: int, body: Any) -> EngineError:
    return failure(SERVER, httpx.Response(status, json=body))


RECORDED = [name for name in job_names() if job(name)["status"] != 200]


@pytest.mark.parametrize("name", RECORDED)
def test_every_recorded_failure_becomes_one_line_that_says_what_happened(name: str) -> None:
    recorded = job(name)
    error = told(recorded["status"], recorded["response"])
    assert "\n" not in str(error)
    assert isinstance(error, JobRejected | JobFailed)
    assert not error.retryable


@pytest.mark.parametrize(
    ("name", "kind", "words"),
    [
        ("txt2img_dims_string", JobRejected, "width: Input should be a valid integer"),
        ("txt2img_alwayson_unknown", JobRejected, "Script 'ADetailer' not found"),
        ("img2img_no_init", JobRejected, "Init image not found"),
        ("img2img_bad_base64", JobRejected, "Invalid encoded image"),
        ("txt2img_steps_0", JobRejected, "ZeroDivisionError"),
        ("override_unknown_key", JobRejected, "no_such_option"),
        ("txt2img_prompt_null", JobRejected, "AssertionError"),
        ("txt2img_hires_default_modules_null", JobRejected, "NoneType"),
        ("txt2img_refiner_unknown", JobFailed, "Could not find checkpoint"),
        ("txt2img_dims_neg", JobFailed, "negative dimension"),
    ],
)
def test_the_request_s_fault_is_told_from_the_server_s(
    name: str, kind: type[EngineError], words: str
) -> None:
    recorded = job(name)
    error = told(recorded["status"], recorded["response"])
    assert type(error) is kind
    assert words in str(error)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "OutOfMemoryError", "detail": "", "message": "CUDA out of memory. Tried ..."},
        {"error": "RuntimeError", "detail": "", "message": "CUDA error: out of memory"},
        {"error": "torch.OutOfMemoryError", "detail": "", "errors": "Allocation on device 0"},
        {
            "error": "RuntimeError",
            "message": "[enforce fail] DefaultCPUAllocator: not enough memory",
        },
    ],
)
def test_running_out_of_memory_is_told_apart(body: dict[str, str]) -> None:
    assert type(told(500, body)) is OutOfMemory


def test_other_statuses() -> None:
    assert isinstance(told(401, {"detail": "Not authenticated"}), EngineAuthFailed)
    assert isinstance(told(404, {"detail": "Not Found"}), EngineBusy)
    assert isinstance(told(413, {}), JobRejected)
    assert isinstance(failure(SERVER, httpx.Response(418, text="<html>teapot")), ProtocolError)
    no_model = {"error": "ValueError", "message": "You do not have any model! Please download"}
    assert isinstance(told(500, no_model), ModelMissing)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)


@example(400, {"detail": None, "error": "\r"})
@given(
    st.sampled_from([400, 404, 422, 500, 501]),
    st.dictionaries(st.sampled_from(["detail", "error", "message", "errors"]), JSON),
)
def test_whatever_a_refusal_holds_it_is_one_line(status: int, body: dict[str, Any]) -> None:
    error = told(status, body)
    assert isinstance(error, EngineError)
    assert len(str(error).splitlines()) == 1


@given(st.binary(max_size=200))
def test_whatever_bytes_a_refusal_is_it_is_one_line(body: bytes) -> None:
    error = failure(SERVER, httpx.Response(500, content=body))
    assert len(str(error).splitlines()) == 1
