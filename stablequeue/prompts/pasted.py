"""Whatever a person pastes or points at, made into a request."""

from pathlib import Path
from typing import Any, cast

from stablequeue.engines.base import Kind
from stablequeue.errors import BadRequest, NotFound, UnreadableFile
from stablequeue.prompts.comfy_graph import is_api_graph, request_from_comfy_prompt
from stablequeue.prompts.infotext import LARGEST_INFOTEXT
from stablequeue.prompts.infotext_requests import request_from_infotext
from stablequeue.request import GenerationRequest, Mode, parse_request
from stablequeue.storage.metadata import Embedded, load_json, read_metadata
from stablequeue.storage.sniffing import sniff

Pasted = tuple[GenerationRequest, list[str]]

LARGEST_TEXT = 16 * 1024 * 1024
"""Bytes of a text file: workflows are much longer than infotexts."""

OWN_TEXT = "stablequeue"
"""Name of the text our ComfyUI engine embeds, a JSON object; `request` in it is the request."""

# Where a job runs, how soon and with whose files is no property of a picture.
_NOT_A_PICTURES = frozenset(
    ["expires_at", "init_image", "mask_image", "output", "server", "source", "tags", "tier"]
)


def request_from_file(path: Path) -> Pasted:
    """Return the request a picture or a text file tells, and one line for all it leaves open.

    Args:
        path: A PNG, JPEG, WEBP or AVIF with embedded parameters; or a text file as for
            `request_from_text`.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is damaged, too large, or tells nothing about how it was made.
        BadRequest: What it tells is no valid request.
    """
    found = sniff(path, whole=False)
    if found.kind is Kind.TEXT:
        return request_from_text(_read_text(path))
    if found.kind is not Kind.IMAGE:
        raise UnreadableFile(f"{path.name} is {found.mime}; give a picture or a text file")
    return request_from_embedded(read_metadata(path), path.name)


def request_from_embedded(embedded: Embedded, name: str) -> Pasted:
    """Return the request that a picture's metadata tell.

    A ComfyUI graph goes before an infotext beside it: it is the exact one.

    Args:
        embedded: What `read_metadata` found.
        name: The picture's, for messages.

    Raises:
        UnreadableFile: They tell nothing.
        BadRequest: What they tell is no valid request.
    """
    own = load_json(embedded.texts.get(OWN_TEXT, ""))
    if isinstance(request := own.get("request"), dict):
        return _own_request(cast("dict[str, Any]", request), own.get("seed"))
    if embedded.comfy_prompt:
        made, notes = request_from_comfy_prompt(embedded.comfy_prompt)
        if embedded.infotext:
            notes.append(f"{name} also has an infotext; its ComfyUI workflow is used")
        return made, notes
    if embedded.infotext:
        return request_from_infotext(embedded.infotext)
    if embedded.comfy_workflow:
        raise UnreadableFile(
            f"{name} has ComfyUI's workflow in the editor's format only; open it in ComfyUI and"
            " export it with 'Save (API Format)'"
        )
    raise UnreadableFile(f"{name} says nothing about how it was made")


def request_from_text(text: str) -> Pasted:
    """Return the request of an infotext, a ComfyUI graph in API format, or a request as JSON.

    Raises:
        UnreadableFile: It is empty or too long.
        BadRequest: It is no valid request.
    """
    if not text.strip():
        raise UnreadableFile("there is no text to make a request of")
    data = load_json(text)
    if not data:
        return request_from_infotext(text[: LARGEST_INFOTEXT + 1])
    graph: Any = data.get("prompt")  # the body of ComfyUI's POST /prompt
    if isinstance(graph, dict):
        data = cast("dict[str, Any]", graph)
    if is_api_graph(data) or ("nodes" in data and "links" in data):
        return request_from_comfy_prompt(data)
    return parse_request(data), []


def _own_request(data: dict[str, Any], seed: object) -> Pasted:
    kept = {key: value for key, value in data.items() if key not in _NOT_A_PICTURES}
    notes: list[str] = []
    if kept.get("mode") in (Mode.IMG2IMG, Mode.INPAINT, Mode.UPSCALE):
        if kept["mode"] == Mode.UPSCALE:
            raise UnreadableFile("it was made by enlarging another picture; give that one")
        kept["mode"] = Mode.TXT2IMG.value
        notes.append("it was made from another picture, which it does not carry")
    if isinstance(seed, int) and not isinstance(seed, bool):  # this picture's, not the job's first
        kept |= {"seed": seed, "count": 1}
    return parse_request(kept), notes


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(LARGEST_TEXT + 1)
    except OSError as error:
        raise NotFound(f"{path.name} cannot be read: {error.strerror}") from error
    if len(data) > LARGEST_TEXT:
        raise UnreadableFile(f"{path.name} is larger than {LARGEST_TEXT} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRequest("from", f"{path.name} is not UTF-8 text") from error
