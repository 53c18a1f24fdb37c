"""Whatever is sent, the sandbox answers as the recorded server answers, and goes on."""

import json
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stablequeue.sandbox.forge.payloads import (
    ExtrasBatchPayload,
    ExtrasSinglePayload,
    GenerationPayload,
    Img2ImgPayload,
    InterrogatePayload,
    PngInfoPayload,
    ProgressPayload,
    QueuePayload,
    Txt2ImgPayload,
)
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.recorded import files_below, is_object, png

_SMALL = st.integers(-3, 3)
_NUMBERS = st.one_of(
    _SMALL,
    st.sampled_from([8, 64, 65, -64, 2**31, 2**63, 2**64, 10**30]),
    st.floats(-3, 3),
    st.sampled_from([math.nan, math.inf, -math.inf, 1e300]),
)
_TEXT = st.one_of(
    st.text(max_size=20),
    st.sampled_from(["", "\0", "\ud800", "<lora:tiny-lora:x>", "../../x", "[seed]", png((8, 8))]),
    st.sampled_from(["http://127.0.0.1/a.png", "data:image/png;base64,", "Euler a", "Latent"]),
)
_LEAVES = st.one_of(st.none(), st.booleans(), _SMALL, st.floats(-3, 3), _TEXT)
_JUNK = st.recursive(
    _LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
# A real server would be busy for ever with these, and so would ours.
_LONG = {"steps", "hr_second_pass_steps", "n_iter", "batch_size"}


_OPTIONS = st.sampled_from(["sd_model_checkpoint", "CLIP_stop_at_last_layers", "Sampler", "seed"])
_TYPED: dict[str, st.SearchStrategy[Any]] = {
    "bool": st.booleans(),
    "int": st.one_of(_SMALL, st.sampled_from([8, 64, 65, 100, -64, 2**31, 2**64]), st.none()),
    "float": st.one_of(_NUMBERS, st.none()),
    "dict": st.dictionaries(st.one_of(_TEXT, _OPTIONS), _JUNK, max_size=2),
    "list": st.lists(_LEAVES, max_size=3),
    "str": st.one_of(_TEXT, st.none()),
}
_PICTURES = st.one_of(st.just(png((16, 16))), _TEXT)
_NAMED = {
    **dict.fromkeys(_LONG, st.one_of(_SMALL, st.none())),
    "image": _PICTURES,
    "mask": _PICTURES,
    "init_images": st.lists(_PICTURES, max_size=2),
}


def _fitting(name: str, annotation: str) -> st.SearchStrategy[Any]:
    """Return values of a field's type, odd ones among them."""
    of_type = (values for kind, values in _TYPED.items() if kind in annotation)
    return _NAMED[name] if name in _NAMED else next(of_type, _JUNK)


def _bodies(model: type[BaseModel]) -> st.SearchStrategy[Any]:
    """Return bodies: most fit the model with a few odd values, some are anything."""
    fields = model.model_fields
    fitting = {name: _fitting(name, str(field.annotation)) for name, field in fields.items()}
    base: dict[str, st.SearchStrategy[Any]] = {
        name: fitting[name] for name, field in fields.items() if field.is_required()
    }
    if issubclass(model, GenerationPayload):
        base |= {"steps": st.just(1), "width": st.just(64), "height": st.just(64)}
    if model is Img2ImgPayload:
        base["init_images"] = st.just([png((16, 16))])
    most = st.sets(st.sampled_from(sorted(fields)), max_size=3).flatmap(
        lambda names: st.fixed_dictionaries(base | {name: fitting[name] for name in names})
    )
    junk = st.dictionaries(st.sampled_from(sorted(fields.keys() - _LONG)), _JUNK, max_size=3)
    return st.one_of(most, most, most, junk, _JUNK)


_ROUTES: dict[str, st.SearchStrategy[Any]] = {
    "/sdapi/v1/txt2img": _bodies(Txt2ImgPayload),
    "/sdapi/v1/img2img": _bodies(Img2ImgPayload),
    "/sdapi/v1/extra-single-image": _bodies(ExtrasSinglePayload),
    "/sdapi/v1/extra-batch-images": _bodies(ExtrasBatchPayload),
    "/sdapi/v1/png-info": _bodies(PngInfoPayload),
    "/sdapi/v1/interrogate": _bodies(InterrogatePayload),
    "/sdapi/v1/interrupt": _JUNK,
    "/sdapi/v1/skip": _JUNK,
    "/sdapi/v1/refresh-checkpoints": _JUNK,
    "/sdapi/v1/unload-checkpoint": _JUNK,
    "/sdapi/v1/create/embedding": _JUNK,
    "/internal/progress": _bodies(ProgressPayload),
    "/controlnet/detect": _JUNK,
    "/queue/join": _bodies(QueuePayload),
    "/cancel": _JUNK,
    "/call/txt2img_1": _bodies(QueuePayload),
    "/login": _JUNK,
}
_KNOWN_ERRORS = {
    "AssertionError", "Exception", "FileNotFoundError", "IndexError", "KeyError", "MemoryError",
    "OSError", "OutOfMemoryError", "OverflowError", "PermissionError", "RuntimeError",
    "StopIteration", "TypeError", "UnicodeEncodeError", "ValueError", "ZeroDivisionError",
    "ResponseValidationError",
}  # fmt: skip


_SAVED = {"steps": 1, "width": 64, "height": 64, "n_iter": 2, "save_images": True}


def _raw(body: Any) -> bytes:
    return json.dumps(body).encode("ascii")


def _check(peer: Peer, status: int, text: str) -> None:
    assert status in {200, 400, 403, 404, 405, 422, 500}, text
    told = json.loads(text)
    if status != 200:
        assert is_object(told)
        assert "detail" in told
        if "error" in told:
            assert status == 500
            assert [*told] == ["error", "detail", "body", "message"]
            assert told["error"] in _KNOWN_ERRORS
    if status == 422 and not isinstance(told["detail"], str):
        assert all({"type", "loc", "msg"} <= one.keys() for one in told["detail"])
    unforeseen = peer.journal("forge.unforeseen")
    peer.sandbox.state.journal.clear()
    assert unforeseen == []


@pytest.fixture(scope="module")
def hardy_peer(session_starter: StartPeer) -> Peer:
    """A sandbox that scans no pictures slowly."""
    return session_starter(stealth_scan=False)


@pytest.mark.repeats
@pytest.mark.parametrize("path", sorted(_ROUTES))
def test_random_json_never_harms_the_server(path: str, hardy_peer: Peer) -> None:
    @settings(
        max_examples=100 if "2img" in path else 25,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(body=_ROUTES[path])
    def send(body: Any) -> None:
        headers = {"content-type": "application/json"}
        answer = hardy_peer.client.post(path, content=_raw(body), headers=headers)
        _check(hardy_peer, answer.status_code, answer.text)

    send()
    assert hardy_peer.get("/internal/ping").status_code == 200
    # Overrides leak, as they do in a real Forge, and may spoil later jobs until it is restarted.
    hardy_peer.sandbox.restart()
    answer = hardy_peer.post("/sdapi/v1/txt2img", {"steps": 1, "width": 64, "height": 64})
    assert answer.status_code == 200


@pytest.mark.repeats
def test_random_options_are_accepted_and_never_harm_the_server(start_peer: StartPeer) -> None:
    peer = start_peer(stealth_scan=False)
    names = list(peer.get("/sdapi/v1/options").json())
    inside = files_below(peer.folder)
    around = set(peer.folder.parent.iterdir())

    @settings(max_examples=30, deadline=None)
    @given(st.dictionaries(st.sampled_from(names), _JUNK, max_size=4))
    def send(wanted: dict[str, Any]) -> None:
        headers = {"content-type": "application/json"}
        for path in ("/sdapi/v1/options", "/sdapi/v1/txt2img"):
            body = wanted if path.endswith("options") else _SAVED
            answer = peer.client.post(path, content=_raw(body), headers=headers)
            _check(peer, answer.status_code, answer.text)
        told = peer.get("/sdapi/v1/options")
        _check(peer, told.status_code, told.text)

    send()
    assert files_below(peer.folder) >= inside
    assert set(peer.folder.parent.iterdir()) == around, "nothing is written outside the folder"


@given(raw=st.binary(max_size=200))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_bytes_that_are_no_json_are_refused_as_recorded(raw: bytes, hardy_peer: Peer) -> None:
    headers = {"content-type": "application/json"}
    answer = hardy_peer.client.post("/internal/progress", content=raw, headers=headers)
    _check(hardy_peer, answer.status_code, answer.text)


@given(path=st.text(max_size=40))
@settings(max_examples=40, deadline=None)
def test_no_path_leaves_the_data_folder(path: str, hardy_peer: Peer) -> None:
    for told in (path, f"../{path}", f"outputs/../../{path}", f"/etc/{path}"):
        quoted = "".join(f"%{byte:02X}" for byte in told.encode("utf-8", "replace"))
        answer = hardy_peer.get(f"/file={quoted}")
        assert answer.status_code in {200, 403, 404}
        if answer.status_code == 200:
            inside = (hardy_peer.folder / told).resolve()
            assert inside.is_relative_to(hardy_peer.folder)


def test_deep_json_is_refused(hardy_peer: Peer) -> None:
    raw = b"[" * 200_000
    headers = {"content-type": "application/json"}
    answer = hardy_peer.client.post("/sdapi/v1/txt2img", content=raw, headers=headers)
    assert answer.status_code in {400, 422}
    assert hardy_peer.get("/internal/ping").json() == {}
