"""`/config` and `/info`, as far as a client reads them to find the function that generates."""

from collections.abc import Sequence
from typing import Any

from stablequeue.sandbox.forge.facts import rows

_BUTTON, _RESTORE, _TASK = 16, 21, 47
_OUTPUTS = {
    620: ("gallery", "txt2img_gallery"),
    633: ("textbox", "generation_info_txt2img"),
    631: ("html", "html_info_txt2img"),
    632: ("html", "html_log_txt2img"),
}
_HELPER_OUTPUT = 239
_TXT2IMG_INPUTS = 137

# Functions by number: api name, number of inputs, what it does. Several hang on the same button.
FUNCTIONS: dict[int, tuple[str, int, str]] = {
    110: ("ControlNetUnit_25", 24, "nothing"),
    255: ("txt2img", _TXT2IMG_INPUTS, "txt2img"),
    256: ("txt2img_1", _TXT2IMG_INPUTS, "txt2img"),
    260: ("restore_progress", 1, "restore_progress"),
}
_TARGETS = {
    110: (_BUTTON, "click"),
    255: (5, "submit"),
    256: (_BUTTON, "click"),
    260: (_RESTORE, "click"),
}


def config(app_id: int, root: str, checkpoints: Sequence[str]) -> dict[str, Any]:
    """Return `GET /config`."""
    return {
        "version": "4.40.0",
        "mode": "blocks",
        "app_id": app_id,
        "dev_mode": False,
        "analytics_enabled": False,
        "components": _components(checkpoints),
        "css": "",
        "connect_heartbeat": True,
        "js": "",
        "head": "",
        "title": "Stable Diffusion",
        "space_id": None,
        "enable_queue": True,
        "show_error": False,
        "show_api": True,
        "is_colab": False,
        "max_file_size": None,
        "stylesheets": [],
        "theme": "default",
        "protocol": "sse_v3",
        "body_css": {},
        "fill_height": False,
        "fill_width": False,
        "theme_hash": "",
        "layout": {"id": 0, "children": []},
        "dependencies": [_dependency(number) for number in FUNCTIONS],
        "root": root,
        "username": None,
    }


def _components(checkpoints: Sequence[str]) -> list[dict[str, Any]]:
    choices = [[title, title] for title in checkpoints]
    listed = [
        _component(2396, "dropdown", {"label": "Checkpoint", "choices": choices}),
        _component(_BUTTON, "button", {"elem_id": "txt2img_generate", "value": "Generate"}),
        _component(_RESTORE, "button", {"elem_id": "txt2img_restore_progress"}),
    ]
    for row in rows("gradio_inputs"):
        props = {"label": row["label"], "value": row["default"]}
        if row["elem_id"]:
            props["elem_id"] = row["elem_id"]
        listed.append(_component(row["id"], row["type"], props))
    listed += [
        _component(number, kind, {"elem_id": elem_id, "value": None})
        for number, (kind, elem_id) in _OUTPUTS.items()
    ]
    return listed


def _component(number: int, kind: str, props: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "type": kind,
        "props": {**props, "visible": True, "name": kind},
        "skip_api": kind == "button",
        "component_class_id": "",
        "key": None,
    }


def _dependency(number: int) -> dict[str, Any]:
    name, count, work = FUNCTIONS[number]
    inputs = [row["id"] for row in rows("gradio_inputs")][:count]
    outputs = [_HELPER_OUTPUT] if work == "nothing" else [*_OUTPUTS]
    return {
        "id": number,
        "targets": [_TARGETS[number]],
        "inputs": [_TASK] if work == "restore_progress" else inputs,
        "outputs": outputs,
        "backend_fn": True,
        "js": None,
        "queue": work != "nothing",
        "api_name": name,
        "scroll_to_output": False,
        "show_progress": "full" if work == "nothing" else "hidden",
        "batch": False,
        "max_batch_size": 4,
        "cancels": [],
        "types": {"generator": False, "cancel": False},
        "collects_event_data": False,
        "trigger_after": None,
        "trigger_only_on_success": False,
        "trigger_mode": "once",
        "show_api": True,
        "zerogpu": False,
        "rendered_in": None,
    }


def api_info() -> dict[str, Any]:
    """Return `GET /info`."""
    inputs = rows("gradio_inputs")  # an API caller does not give states
    named = {
        f"/{name}": {
            "parameters": [_parameter(row) for row in inputs[:count] if row["type"] != "state"],
            "returns": [],
        }
        for name, count, work in FUNCTIONS.values()
        if work != "nothing"
    }
    return {"named_endpoints": named, "unnamed_endpoints": {}}


def _parameter(row: dict[str, Any]) -> dict[str, Any]:
    first = row["i"] == 0
    return {
        "label": row["label"] or f"parameter_{row['id']}",
        "parameter_name": "id_task" if first else f"param_{row['i']}",
        "parameter_has_default": not first,
        "parameter_default": row["default"],
        "type": {"type": "string"},
        "python_type": {"type": "str", "description": ""},
        "component": str(row["type"]).capitalize(),
        "example_input": None,
    }
