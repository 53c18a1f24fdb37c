"""Whatever a person pastes or points at, made into a request."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from stablequeue.editor_workflow import is_editor_format
from stablequeue.engines.base import Kind
from stablequeue.errors import BadRequest, NotFound, UnreadableFile
from stablequeue.prompts.comfy_graph import is_api_graph, request_from_comfy_prompt
from stablequeue.prompts.infotext import LARGEST_INFOTEXT, Infotext, parse_infotext
from stablequeue.prompts.infotext_requests import request_from_infotext
from stablequeue.request import GenerationRequest, Mode, parse_request
from stablequeue.storage.metadata import Embedded, load_json, read_metadata
from stablequeue.storage.sniffing import sniff

Pasted = tuple[GenerationRequest, list[str]]


@dataclass(frozen=True, slots=True)
class Told:
    """What a picture or a text tells.

    Attributes:
        request: That makes the same picture again, its models named as they are there.
        notes: One line for all it leaves open.
        infotext: What it was made of, if it was one: says more about the models than a request can.
    """

    request: GenerationRequest
    notes: Sequence[str] = ()
    infotext: Infotext | None = None


LARGEST_TEXT = 16 * 1024 * 1024
"""Bytes of a text file: workflows are much longer than infotexts."""

OWN_TEXT = "stablequeue"
"""Name of the text our ComfyUI engine embeds, a JSON object; `request` in it is the request."""

# Where a job runs, how soon and with whose files is no property of a picture.
_NOT_A_PICTURES = frozenset(
    ["expires_at", "init_image", "mask_image", "output", "server", "source", "tags", "tier"]
)


def request_from_file(path: Path) -> Pasted:
    """Return the request a picture or a text file tells, and notes; see `told_by_file`."""
    told = told_by_file(path)
    return told.request, list(told.notes)


def request_from_text(text: str) -> Pasted:
    """Return the request a text tells, and notes; see `told_by_text`."""
    told = told_by_text(text)
    return told.request, list(told.notes)


def told_by_file(path: Path) -> Told:
    """Return what a picture or a text file tells.

    Args:
        path: A PNG, JPEG, WEBP or AVIF with embedded parameters; or a text file as for
            `told_by_text`.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is damaged, too large, or tells nothing about how it was made.
        BadRequest: What it tells is no valid request.
    """
    found = sniff(path, whole=False)
    if found.kind is Kind.TEXT:
        return told_by_text(_read_text(path))
    if found.kind is not Kind.IMAGE:
        raise UnreadableFile(f"{path.name} is {found.mime}; give a picture or a text file")
    return told_by_embedded(read_metadata(path), path.name)


def told_by_embedded(embedded: Embedded, name: str) -> Told:
    """Return what a picture's metadata tell.

    A ComfyUI graph goes before an infotext beside it: it is the exact one.

    Args:
        embedded: What `read_metadata` found.
        name: The picture's, for messages.

    Raises:
        UnreadableFile: They tell nothing.
        BadRequest: What they tell is no valid request.
    """
    own = load_json(embedded.texts.get(OWN_TEXT, ""))
    infotext = parse_infotext(embedded.infotext[:LARGEST_INFOTEXT]) if embedded.infotext else None
    if isinstance(request := own.get("request"), dict):
        made, notes = _own_request(cast("dict[str, Any]", request), own.get("seed"))
        return Told(made, notes, infotext)
    if embedded.comfy_prompt:
        told = told_by_graph(embedded.comfy_prompt, embedded.comfy_workflow)
        beside = [f"{name} also has an infotext; its ComfyUI workflow is used"] if infotext else []
        return Told(told.request, [*told.notes, *beside])
    if embedded.infotext:
        return Told(*request_from_infotext(embedded.infotext), infotext)
    if embedded.comfy_workflow:
        return told_by_graph(embedded.comfy_workflow)
    raise UnreadableFile(f"{name} says nothing about how it was made")


def told_by_graph(graph: dict[str, Any], workflow: dict[str, Any] | None = None) -> Told:
    """Return what a ComfyUI workflow tells.

    Args:
        graph: In API format, or as the editor saves it.
        workflow: The same in the editor's format, which may say where its models are: then it
            goes along, so that missing ones can be fetched.

    Raises:
        BadRequest: It is neither, or damaged.
    """
    edited = is_editor_format(graph)
    made, notes = request_from_comfy_prompt(graph)
    if not workflow and not edited:
        return Told(made, notes)
    from stablequeue.models.sources.templates import model_links  # noqa: PLC0415  # httpx

    if links := model_links(graph if edited else workflow):
        if not edited:
            section = {"extra_pnginfo": {"workflow": workflow}}
            made = parse_request({**made.dumped(), "sections": {"comfyui": section}})
        names = ", ".join(link.name for link in links)
        notes.append(f"the workflow says where to fetch {names}")
    return Told(made, notes)


def told_by_text(text: str) -> Told:
    """Return what an infotext, a ComfyUI workflow, or a request as JSON tells.

    Raises:
        UnreadableFile: It is empty or too long.
        BadRequest: It is no valid request.
    """
    if not text.strip():
        raise UnreadableFile("there is no text to make a request of")
    data = load_json(text)
    if not data:
        infotext = parse_infotext(text[: LARGEST_INFOTEXT + 1])
        return Told(*request_from_infotext(infotext), infotext)
    graph: Any = data.get("prompt")  # the body of ComfyUI's POST /prompt
    if isinstance(graph, dict):
        workflow = _workflow_of(data)
        return told_by_graph(cast("dict[str, Any]", graph), workflow)
    if is_api_graph(data) or is_editor_format(data):
        return told_by_graph(data)
    return Told(parse_request(data))


def _workflow_of(body: dict[str, Any]) -> dict[str, Any] | None:
    """Return the editor's workflow that the body of POST /prompt carries."""
    found: Any = body
    for key in ("extra_data", "extra_pnginfo", "workflow"):
        found = cast("dict[str, Any]", found).get(key) if isinstance(found, dict) else None
    return cast("dict[str, Any]", found) if isinstance(found, dict) else None


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
