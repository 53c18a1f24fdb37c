"""Every exchange recorded on a real Forge, sent to the sandbox."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.sandbox.forge import sequences
from tests.sandbox.forge.conftest import Peer, StartPeer
from tests.sandbox.forge.recorded import (
    NAMES,
    Differences,
    content_type,
    files_below,
    is_object,
    load,
    pattern_of,
    with_pictures,
)
from tests.sandbox.forge.timeline import is_timeline, replay_timeline

NOT_REPLAYED = {
    "gradio_txt2img_inputs": "no exchange: the list of inputs the sandbox's Gradio is built from",
    "server_down": "no exchange: nothing listens",
    "timing_overhead": "no exchange: durations of one machine",
}

OPTION_KEYS = "options_before", "options_after"


def _single(name: str) -> bool:
    recording = load(name)
    return (
        is_object(recording)
        and {"method", "path", "status"} <= recording.keys()
        and name not in sequences.BY_NAME
    )


LISTINGS = [name for name in NAMES if _single(name) and name.startswith("GET_")]
OPTIONS = [name for name in NAMES if _single(name) and OPTION_KEYS[1] in load(name)]
SINGLES = [name for name in NAMES if _single(name) and name not in {*LISTINGS, *OPTIONS}]
TIMELINES = [name for name in NAMES if is_timeline(load(name)) and name not in sequences.BY_NAME]


def test_every_recording_is_replayed_or_has_a_reason() -> None:
    replayed = [*LISTINGS, *OPTIONS, *SINGLES, *TIMELINES, *sequences.BY_NAME]
    assert sorted([*replayed, *NOT_REPLAYED]) == NAMES
    assert len(NAMES) > 180


Check = Callable[[Differences, Any, Any], None]


def _keys(differences: Differences, recorded: Any, ours: Any) -> None:
    differences.same([*recorded], [*ours], "keys")


def _exactly(differences: Differences, recorded: Any, ours: Any) -> None:
    differences.same(recorded, ours)


def _shape(differences: Differences, recorded: Any, ours: Any) -> None:
    differences.shape(recorded, ours)


def _config(differences: Differences, recorded: dict[str, Any], ours: dict[str, Any]) -> None:
    _keys(differences, recorded, ours)
    by_id = {component["id"]: component for component in ours["components"]}
    for component in recorded["components"]:
        told = by_id[component["id"]]
        differences.same([*component], [*told], f"keys of component {component['id']}")
        elem_ids = component["props"].get("elem_id"), told["props"].get("elem_id")
        differences.same([component["type"], elem_ids[0]], [told["type"], elem_ids[1]])
    dependencies = {dependency["id"]: dependency for dependency in ours["dependencies"]}
    for dependency in recorded["dependencies"]:
        told = {**dependencies[dependency["id"]], "js": dependency["js"]}
        *first, count = dependency.pop("inputs")
        inputs = told.pop("inputs")
        if dependency["backend_fn"] and dependency["outputs"] != [239]:
            differences.same(first, inputs[: len(first)], "inputs")
        differences.same(count, len(inputs), "number of inputs")
        told["targets"] = [list(target) for target in told["targets"]]
        differences.same(dependency, told, f"function {dependency['id']}")


# Paths the real server has and no client of ours reads.
_UNSERVED = {
    "/api/{api_name}", "/api/{api_name}/", "/assets/{path}", "/component_server",
    "/component_server/", "/custom_component/{id}/{type}/{file_name}", "/dev/reload",
    "/favicon.ico", "/heartbeat/{session_hash}", "/info/", "/logout", "/monitoring",
    "/monitoring/{key}", "/proxy={url_path}", "/reset/", "/run/{api_name}", "/run/{api_name}/",
    "/sd_extra_networks/cover-images", "/sd_extra_networks/get-single-card",
    "/sd_extra_networks/thumb", "/static/{path}", "/stream/{session_hash}/{run}/{component_id}",
    "/upload", "/upload_progress", "/call/{api_name}/",
}  # fmt: skip
_RENAMED = {
    "/file={path}": "/file={path_or_url}",
    "/call/{name}": "/call/{api_name}",
    "/call/{name}/{event}": "/call/{api_name}/{event_id}",
}


def _openapi(differences: Differences, recorded: dict[str, Any], ours: dict[str, Any]) -> None:
    told = {_RENAMED.get(path, path) for path in ours["paths"]}
    differences.same(
        sorted(recorded["paths"].keys() - _UNSERVED),
        sorted(told & recorded["paths"].keys()),
        "paths",
    )
    invented = told - recorded["paths"].keys()
    differences.same([], sorted(invented), "paths the real server does not have")


def _root_info(differences: Differences, recorded: dict[str, Any], ours: dict[str, Any]) -> None:
    for name, endpoint in recorded["named_endpoints"].items():
        if name == "/img2img_1":
            continue  # the sandbox's Gradio has no img2img
        told = ours["named_endpoints"][name]
        _keys(differences, endpoint["parameters"][0], told["parameters"][0])
        count = endpoint.get("n_parameters", len(endpoint["parameters"]))
        differences.same(count, len(told["parameters"]), name)


def _script_info(differences: Differences, recorded: list[Any], ours: list[Any]) -> None:
    differences.same(len(recorded), len(ours), "number of scripts")
    for script, told in zip(recorded, ours, strict=True):
        count = script.pop("n_args")
        differences.same(count, len(told["args"]), f"arguments of {script['name']}")
        args = [{**arg, "choices": arg["choices"] and arg["choices"][:3]} for arg in told["args"]]
        differences.same(script, {**told, "args": args[: len(script["args"])]}, script["name"])


def _cmd_flags(differences: Differences, recorded: dict[str, Any], ours: dict[str, Any]) -> None:
    body, told = recorded.pop("body"), ours.pop("body")
    differences.same(recorded, ours)
    differences.same(sorted(body), sorted(told), "flags")


def _text(differences: Differences, recorded: str, ours: str) -> None:
    differences.same(recorded[:5], ours[:5])


CHECKS: dict[str, Check] = {
    "GET_app_id": _shape,
    "GET_app_id_slash": _shape,
    "GET_cmd-flags": _cmd_flags,
    "GET_config": _config,
    "GET_internal_sysinfo": _keys,
    "GET_memory": _shape,
    "GET_openapi": _openapi,
    "GET_profile_startup": _keys,
    "GET_progress_idle": _shape,
    "GET_prompt-styles": lambda d, recorded, ours: _keys(d, recorded[0], ours[0]),
    "GET_quicksettings_hint": _shape,
    "GET_root_info": _root_info,
    "GET_script-info": _script_info,
    "GET_theme": _text,
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_is_answered_as_recorded(name: str, listing_peer: Peer) -> None:
    recording = load(name)
    answer = listing_peer.get(recording["path"])
    assert answer.status_code == recording["status"]
    assert content_type(answer) == recording["content_type"]
    is_text = isinstance(recording["response"], str)
    ours = answer.text if is_text else answer.json()
    differences = Differences(listing_peer.folder)
    CHECKS.get(name, _exactly)(differences, recording["response"], ours)
    assert differences.found == []


def _png_info_text() -> str:
    return load("png_info")["response"]["info"]


def _replay_single(name: str, peer: Peer) -> Differences:
    recording = load(name)
    differences = Differences(peer.folder)
    before = files_below(peer.folder)
    is_extra = "extra" in name or "png_info" in name or "interrogate" in name
    body: dict[str, Any] | None = with_pictures(
        recording["request_body"], _png_info_text() if is_extra else ""
    )
    options: dict[str, Any] = {}
    if "request_content" in recording:
        json_type = {"content-type": "application/json"}
        options = {"content": recording["request_content"], "headers": json_type}
    if body is not None:
        options = {"json": body}
    answer = peer.client.request(recording["method"], recording["path"], **options)
    differences.same(recording["status"], answer.status_code, "status")
    differences.same(recording["content_type"], content_type(answer), "content type")
    ours = answer.json()
    told = recording["response"]
    if body is not None and is_object(told) and {"parameters", "images"} <= told.keys():
        differences.generation(body, told, ours)
        if "png_chunks_of_images" in recording:
            differences.pictures(body, recording["png_chunks_of_images"], ours["images"])
    else:
        differences.same(told, ours)
    new = sorted(pattern_of(name) for name in files_below(peer.folder) - before)
    if "new_files_on_server" in recording:
        recorded_files = sorted(pattern_of(name) for name in recording["new_files_on_server"])
        differences.same(recorded_files, new, "files")
    return differences


@pytest.mark.parametrize("name", SINGLES)
def test_a_request_is_answered_as_recorded(name: str, shared_peer: Peer) -> None:
    assert _replay_single(name, shared_peer).found == []


def _present(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return the `config.json` of the server as it was: defaults are not present there."""
    defaults = {"CLIP_stop_at_last_layers": 1.0, "samples_format": "png"}
    told = {k: v for k, v in recorded.items() if v is not None and defaults.get(k) != v}
    return {"sd_model_checkpoint": "random-sd15.safetensors", **told}


# Before these nothing was recorded: the state the ones recorded around them tell.
_BEFORE_POST: dict[str, Any] = {
    "sd_model_checkpoint": "sub dir/other-sd15.safetensors [b1ee8ef881]",
    "forge_additional_modules": [],
    "sd_checkpoint_hash": "b1ee8ef8810a67f498142ae9f9587992884b3f5e6c4c472ca8700db69ead0b80",
    "CLIP_stop_at_last_layers": 2.0,
    "samples_format": "jpg",
}
_OTHER_CHECKPOINT: dict[str, Any] = {"sd_model_checkpoint": "random-sd15.safetensors"}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_are_as_recorded_after_a_request(name: str, start_peer: StartPeer) -> None:
    recording = load(name)
    before = recording.get("options_before")
    if before is None:
        other = {} if name == "POST_options_ckpt_unknown" else _OTHER_CHECKPOINT
        before = _BEFORE_POST | other
        if name == "POST_options_partial_then_fail":
            before |= {"CLIP_stop_at_last_layers": 1.0}  # recorded right after `..._clip1`
    peer = start_peer(options=_present(before))
    differences = _replay_single(name, peer)
    after = peer.get("/sdapi/v1/options")
    if None in recording["options_after"].values():
        assert after.status_code == 500
    else:
        ours = {key: after.json()[key] for key in recording["options_after"]}
        differences.same(recording["options_after"], ours, "options after")
    assert differences.found == []


@pytest.mark.parametrize("name", TIMELINES)
def test_a_timeline_runs_as_recorded(name: str, start_peer: StartPeer) -> None:
    differences = replay_timeline(name, start_peer)
    assert differences.found == []


@pytest.mark.parametrize("name", sorted(sequences.BY_NAME))
def test_a_sequence_runs_as_recorded(name: str, start_peer: StartPeer) -> None:
    differences = sequences.BY_NAME[name](load(name), start_peer)
    assert differences.found == []
