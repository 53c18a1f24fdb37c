"""What a picture's file says about how it was made.

Read without decoding the picture and without trusting it: every size is bounded, and damage gives
what was found before it.
"""

import io
import json
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast
from xml.etree import ElementTree as ET

from stablequeue.errors import NotFound
from stablequeue.storage.chunks import Parts, jpeg_parts, png_parts, webp_parts
from stablequeue.storage.exif import ExifTexts
from stablequeue.storage.sniffing import sniff

JSON = dict[str, Any]

_LARGEST_XMP = 1024 * 1024
_XMP_TEXTS = ("parameters", "UserComment", "description")


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """What a picture's file says about how it was made; empty where it says nothing.

    Attributes:
        infotext: A1111 infotext.
        comfy_prompt: ComfyUI's graph in API format.
        comfy_workflow: ComfyUI's graph in the editor's format.
        texts: Every named text as it stands in the file, those above included.
        orientation: EXIF's 1 to 8.
    """

    infotext: str = ""
    comfy_prompt: JSON = field(default_factory=dict[str, Any])
    comfy_workflow: JSON = field(default_factory=dict[str, Any])
    texts: Mapping[str, str] = field(default_factory=dict[str, str])
    orientation: int = 1

    def __bool__(self) -> bool:
        return bool(self.infotext or self.comfy_prompt or self.comfy_workflow)


def read_metadata(source: Path | bytes) -> Embedded:
    """Return what is embedded in a picture; empty for other kinds of file.

    Raises:
        NotFound: There is no such file.
        UnreadableFile: It is of no known type, or its metadata are too large.
    """
    mime = sniff(source, whole=False).mime
    with _opened(source) as stream:
        if mime == "image/png":
            parts = png_parts(stream)
        elif mime == "image/jpeg":
            parts = jpeg_parts(stream)
        elif mime == "image/webp":
            parts = webp_parts(stream)
        elif mime == "image/avif":
            parts = _avif_parts(stream)
        else:
            return Embedded()
    return _embedded(parts)


def load_json(text: str) -> JSON:
    """Return the JSON object in `text`; empty for anything else. NaN and the infinities: null."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        data: Any = json.loads(text, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return {}
    return cast("JSON", data) if isinstance(data, dict) else {}


def _opened(source: Path | bytes) -> AbstractContextManager[BinaryIO]:
    if isinstance(source, bytes):
        return io.BytesIO(source)
    try:
        return source.open("rb")
    except OSError as error:
        raise NotFound(f"{source.name} cannot be read: {error.strerror}") from error


def _embedded(parts: Parts) -> Embedded:
    exif = ExifTexts(parts.exif)
    texts = {**parts.texts}
    for name, text in exif.named.items():
        texts.setdefault(name, text)
    comment = exif.comment
    if packed := load_json(comment):  # some ComfyUI nodes put all of it there as one object
        for name in ("prompt", "workflow"):
            if value := packed.get(name):
                texts.setdefault(name, value if isinstance(value, str) else json.dumps(value))
        comment = packed.get("parameters", "")
    if isinstance(comment, str) and comment:
        texts.setdefault("parameters", comment)
    if parts.xmp and not texts.get("parameters") and (text := _xmp_text(parts.xmp)):
        texts.setdefault("parameters", text)
    if "parameters" not in texts and "\nSteps: " in texts.get("comment", ""):
        texts["parameters"] = texts["comment"]
    return Embedded(
        infotext=texts.get("parameters", ""),
        comfy_prompt=load_json(texts.get("prompt", "")),
        comfy_workflow=load_json(texts.get("workflow", "")),
        texts=texts,
        orientation=exif.orientation,
    )


def _xmp_text(packet: bytes) -> str:
    """Return the generation text of an XMP packet; empty if there is none."""
    # Entities are how XML is made to explode; XMP has no use for them.
    if len(packet) > _LARGEST_XMP or b"<!DOCTYPE" in packet or b"<!ENTITY" in packet:
        return ""
    try:
        root = ET.fromstring(packet.strip(b"\0 \r\n\t"))  # noqa: S314 - bounded above
    except (ET.ParseError, ValueError, LookupError):
        return ""
    found: dict[str, str] = {}
    for element in root.iter():
        for name, value in [(element.tag, " ".join(element.itertext())), *element.attrib.items()]:
            found.setdefault(name.rpartition("}")[2], value.strip())
    return next((found[name] for name in _XMP_TEXTS if found.get(name)), "")


def _avif_parts(stream: BinaryIO) -> Parts:
    # Pillow is loaded only for this rare format.
    from stablequeue.storage.decoding import load_picture  # noqa: PLC0415

    info: dict[Any, Any] = load_picture(stream, pixels=False).info
    exif, xmp = info.get("exif", b""), info.get("xmp", b"")
    return Parts(
        exif=exif.removeprefix(b"Exif\0\0") if isinstance(exif, bytes) else b"",
        xmp=xmp if isinstance(xmp, bytes) else b"",
    )
