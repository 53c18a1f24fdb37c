"""Compares what a real ComfyUI was recorded to say with what the sandbox says.

What differs by nature (time stamps, sizes, paths, file counters, random parts of names) is in
`VOLATILE` and `normal`; everything else has to be equal, types included.
"""

import json
import re
import struct
from collections import defaultdict
from typing import Any, TypeGuard

JSON = dict[str, Any]
VOLATILE = {
    "timestamp", "traceback", "exception_message", "current_inputs", "current_outputs",
    "ram_total", "ram_free", "vram_total", "vram_free", "torch_vram_total", "torch_vram_free",
    "python_version", "pytorch_version", "argv", "modified", "created", "folders", "size",
    "entries", "max_upload_size",
}  # fmt: skip
"""Keys whose values are compared by type only."""

_ADDED = {"stablequeue_sandbox"}
_PROGRESS_KEYS = {
    "value", "max", "state", "node_id", "prompt_id", "display_node_id", "parent_node_id",
    "real_node_id",
}  # fmt: skip
_PREVIEW_WITH_METADATA = 4


class Difference(AssertionError):
    """The sandbox does not do what the recording shows."""


def is_object(value: Any) -> TypeGuard[JSON]:
    """Narrow a JSON value to an object."""
    return isinstance(value, dict)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Narrow a JSON value to a list."""
    return isinstance(value, list)


class Comparison:
    """Compares, and learns which names of this run stand for recorded ones."""

    def __init__(self) -> None:
        self.same: dict[str, str] = {}

    def own(self, recorded: str) -> str:
        """Return this run's name for a recorded file or id."""
        return self.same.get(recorded, recorded)

    def values(self, where: str, told: Any, mine: Any) -> None:
        """Compare two JSON values.

        Raises:
            Difference: They differ; the message begins with `where` and the path below it.
        """
        if told == "...":
            return
        if is_list(told) and is_object(mine) and "state" in mine:
            mine = [mine["value"], mine["max"], mine["state"]]  # as the recordings keep progress
        if is_object(told) and is_object(mine):
            self._objects(where, told, mine)
        elif is_list(told) and is_list(mine):
            self._lists(where, told, mine)
        elif isinstance(told, str) and isinstance(mine, str):
            self._texts(where, told, mine)
        elif type(told) is not type(mine) or told != mine:
            raise Difference(f"{where}: {mine!r} instead of {told!r}")

    def _lists(self, where: str, told: list[Any], mine: list[Any]) -> None:
        if told[1:] == [{}]:
            told = told[:1]  # only a tooltip stood there
        if len(told) != len(mine):
            raise Difference(f"{where}: {mine!r} instead of {told!r}")
        for index, (one, other) in enumerate(zip(told, mine, strict=True)):
            self.values(f"{where}[{index}]", one, other)

    def _objects(self, where: str, told: JSON, mine: JSON) -> None:
        known = {self.own(key): value for key, value in told.items()}
        if set(known) != set(mine) - _ADDED:
            raise Difference(f"{where}: keys {sorted(mine)} instead of {sorted(known)}")
        for key, value in known.items():
            here, other = f"{where}.{key}", mine[key]
            if key in VOLATILE:
                if value is not None and type(value) is not type(other):
                    raise Difference(f"{here}: {other!r} instead of {value!r}")
            elif key == "executed" and is_list(value):  # a set there
                self.values(here, sorted(value), sorted(other))
            elif key == "prompt" and is_list(value) and len(value) == 5:
                self.values(here, value[:4], other[:4])
                self.values(f"{here}[4]", sorted(value[4]), sorted(other[4]))  # a set there
            else:
                self.values(here, value, other)

    def _texts(self, where: str, told: str, mine: str) -> None:
        if normal(told) != normal(mine) and self.same.get(told) != mine:
            raise Difference(f"{where}: {mine!r} instead of {told!r}")
        if told != mine:
            self.same[told] = mine

    def sequences(self, where: str, told: list[JSON], mine: list[JSON]) -> None:
        """Compare the messages about one prompt, or about none.

        A socket opened or closed in mid-run hears only a part, and how much is chance: then the
        parts that both have are compared.
        """
        types, own = [m.get("type") for m in told], [m.get("type") for m in mine]
        if types[0] == "status":
            if len(own) < len(types) or (ended(told) and len(own) != len(types)):
                raise Difference(f"{where}: {own} instead of {types}")
            # which numbers come between depends on how fast prompts follow each other
            last = slice(-1, None) if ended(told) else slice(0, 0)
            told, mine = [told[0], *told[last]], [mine[0], *mine[last]]
        elif "execution_start" in types and ended(told):
            if "execution_interrupted" in types:
                told, mine = up_to_first_step(told), up_to_first_step(mine)
                types, own = [m.get("type") for m in told], [m.get("type") for m in mine]
            if len(own) != len(types):
                raise Difference(f"{where}: {own} instead of {types}")
        elif ended(told):
            shared = min(len(told), len(mine))
            told, mine = told[-shared:], mine[-shared:]
        elif "execution_start" in types:
            shared = min(len(told), len(mine))
            told, mine = told[:shared], mine[:shared]
        else:
            if not set(own) <= set(types):
                raise Difference(f"{where}: {own} instead of {types}")
            return
        for index, (one, other) in enumerate(zip(told, mine, strict=True)):
            self.values(f"{where} message {index}", one, other)


def ended(messages: list[JSON]) -> bool:
    """Say whether a sequence goes on to the end of its prompt, or of all prompts."""
    last = messages[-1]
    if last.get("type") == "status":
        return last["data"]["status"]["exec_info"]["queue_remaining"] == 0
    return last.get("type") == "executing" and last["data"]["node"] is None


def up_to_first_step(messages: list[JSON]) -> list[JSON]:
    """Leave out every step but the first of an interrupted prompt.

    How many were done when the interrupt arrived is chance, there as here.
    """
    steps = ("progress", "progress_state")
    kept, seen = list[JSON](), False
    for message in messages:
        if not (seen and message.get("type") in steps):
            kept.append(message)
        seen = seen or message.get("type") == "progress"
    return kept


def by_prompt(messages: list[JSON]) -> dict[str | None, list[JSON]]:
    """Sort messages by prompt (None: about none); a bare picture belongs to the one before it."""
    sorted_out: dict[str | None, list[JSON]] = defaultdict(list)
    current: str | None = None
    for message in messages:
        if "closed" in message:
            continue
        data: JSON = message.get("data", {})
        current = data.get("prompt_id", current)
        about_one = "prompt_id" in data or "binary" in message
        sorted_out[current if about_one else None].append(message)
    return sorted_out


def recorded_message(event: JSON) -> JSON:
    """Return a recorded socket event as `heard_message` would have made it."""
    if "msg" in event:
        return event["msg"]
    if "closed" in event:
        return {"closed": event["closed"]["code"]}
    binary: JSON = event["binary"]
    told = {"event": binary["event"], "kind": binary["image"]["kind"]}
    if "metadata" in binary:
        return {"binary": told | {"metadata": binary["metadata"]}}
    return {"binary": told | {"format": binary["image_format"]}}


def heard_message(message: str | bytes) -> JSON:
    """Return a message of the sandbox as the recordings keep it."""
    if isinstance(message, str):
        told: JSON = json.loads(message)
        if told["type"] == "progress_state":
            for entry in told["data"]["nodes"].values():
                assert set(entry) == _PROGRESS_KEYS
        return told
    event, number = struct.unpack_from(">II", message)
    if event == _PREVIEW_WITH_METADATA:
        metadata = json.loads(message[8 : 8 + number])
        kind = _image_kind(message[8 + number :])
        return {"binary": {"event": event, "kind": kind, "metadata": metadata}}
    return {"binary": {"event": event, "kind": _image_kind(message[8:]), "format": number}}


def _image_kind(data: bytes) -> str:
    return {b"\x89PNG": "png", b"\xff\xd8\xff\xe0": "jpeg"}[data[:4]]


def normal(text: str) -> str:
    """Take out of a text what differs by nature: ids, counters, letters, years, paths."""
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "<id>", text)
    text = re.sub(r"^[0-9a-f]{32}$", "<id>", text)
    text = re.sub(r"_\d{5}_", "_#_", text)
    text = re.sub(r"^/.*/comfyui/", "/comfyui/", text)
    text = re.sub(r"ComfyUI_temp_[a-z]{5}", "ComfyUI_temp_#", text)
    text = re.sub(r"_20\d\d_", "_year_", text)
    return "tensor" if text.startswith("tensor(") else text


def shortened(told: Any, mine: Any) -> Any:
    """Bring an answer to the short form in which the recording keeps it.

    Kept were: of a history its ids, or `[number, id, "..."]` and the status; of `LoadImage` its
    inputs.
    """
    if is_object(told) and is_object(mine):
        return _shortened_object(told, mine)
    if is_list(told) and is_object(mine):
        return list(mine)
    if is_list(told) and is_list(mine):
        if told and told[-1] == "..." and len(mine) >= len(told):
            return [*mine[: len(told) - 1], "..."]
        if len(told) == len(mine):
            return [shortened(one, other) for one, other in zip(told, mine, strict=True)]
    return mine


def _shortened_object(told: JSON, mine: JSON) -> JSON:
    if set(told) == {"image"} and "LoadImage" in mine:
        return mine["LoadImage"]["input"]["required"]
    if isinstance(told.get("status"), str) and is_object(mine.get("status")):
        mine = {"prompt": mine["prompt"], "status": mine["status"]["status_str"]}
    elif set(told) == {"status_str", "completed", "messages"} and "outputs" in mine:
        mine = mine["status"]
    return {k: shortened(told[k], v) if k in told else v for k, v in mine.items()}
