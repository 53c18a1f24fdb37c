"""Routes about files: `/view` and the uploads. Source: recordings [23], [24]."""

import asyncio
import email.utils
import hashlib
import io
import json
import mimetypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from stablequeue.sandbox.comfyui import multipart
from stablequeue.sandbox.comfyui.folders import absolute, is_file, within
from stablequeue.sandbox.comfyui.http import as_json, empty, read_body, route
from stablequeue.sandbox.comfyui.server import Server

_PREVIEW_QUALITY = 90
_SHOWN_AS_BYTES = {
    "text/html", "text/html-sandboxed", "application/xhtml+xml", "text/javascript", "text/css",
}  # fmt: skip


def build(server: Server) -> list[BaseRoute]:
    """Return the routes."""
    routes = _Files(server)
    return [
        *route("/view", get=routes.view),
        *route("/upload/image", post=routes.upload_image),
        *route("/upload/mask", post=routes.upload_mask),
    ]


class _Files:
    def __init__(self, server: Server) -> None:
        self.server, self.folders = server, server.folders

    async def view(self, request: Request) -> Response:
        query = request.query_params
        path = self._located(query)
        if isinstance(path, int):
            return empty(path)
        if "preview" in query:
            return await asyncio.to_thread(_preview, path, query["preview"], query.get("channel"))
        if query.get("channel") in {"rgb", "a"}:
            return await asyncio.to_thread(_channel, path, query["channel"])
        return await asyncio.to_thread(_file, path, request)

    def _located(self, query: Mapping[str, str]) -> Path | int:
        """Return the file asked for, or the status that refuses it."""
        name, folder = self.folders.annotated(query.get("filename", ""))
        if "filename" not in query:
            return 404
        folder = folder or self.folders.of(query.get("type", "output"))
        if not name or name.startswith("/") or ".." in name or folder is None:
            return 400
        inner = folder / query.get("subfolder", "")
        if not within(folder, inner):
            return 403
        path = inner / Path(name).name
        return path if is_file(path) else 404

    async def upload_image(self, request: Request) -> Response:
        return await self._upload(request, mask=False)

    async def upload_mask(self, request: Request) -> Response:
        return await self._upload(request, mask=True)

    async def _upload(self, request: Request, *, mask: bool) -> Response:
        """Store an upload; raises (500) for what the real server raises for."""
        body = await read_body(request, self.server.state.config.max_upload_bytes)
        kind = request.headers.get("content-type", "")
        fields = multipart.parse(kind, body) if kind.startswith("multipart/form-data") else {}
        target = fields["type"].text if "type" in fields else "input"
        root = self.folders.of(target)
        if root is None:
            raise UnboundLocalError(target)
        image = fields.get("image")
        if image is None or (image.filename and not image.content):
            return empty(400)
        if not image.filename:
            raise AttributeError(image.name)
        subfolder = fields["subfolder"].text if "subfolder" in fields else ""
        folder = root / subfolder
        if not within(root, folder / image.filename):
            return empty(400)
        folder.mkdir(parents=True, exist_ok=True)
        name, is_there = image.filename, False
        if "overwrite" not in fields or fields["overwrite"].text not in {"true", "1"}:
            name, is_there = _free_name(folder, image.filename, image.content)
        if not is_there:
            path = absolute(folder / name)
            if mask:
                await asyncio.to_thread(self._store_mask, fields, path)
            else:
                await asyncio.to_thread(path.write_bytes, image.content)
        return as_json({"name": name, "subfolder": subfolder, "type": target})

    def _store_mask(self, fields: dict[str, multipart.Part], path: Path) -> None:
        """Give the original the mask's transparency; an unknown original: no file, no word."""
        original: dict[str, Any] = json.loads(fields["original_ref"].text)
        name, folder = self.folders.annotated(original["filename"])
        folder = folder or self.folders.of(original.get("type", "output"))
        if not name or name.startswith("/") or ".." in name or folder is None:
            return
        inner = folder / original.get("subfolder", "")
        if not within(folder, inner) or not is_file(inner / name):
            return
        with Image.open(inner / name) as opened:
            told = {str(key): text for key, text in opened.info.items() if isinstance(text, str)}
            picture = opened.convert("RGBA")
        with Image.open(io.BytesIO(fields["image"].content)) as drawn:
            alpha = drawn.convert("RGBA").getchannel("A")
        picture.putalpha(alpha.resize(picture.size))
        info = PngInfo()
        for key, text in told.items():
            info.add_text(key, text)
        picture.save(path, "PNG", pnginfo=info, compress_level=4)


def _free_name(folder: Path, wanted: str, content: bytes) -> tuple[str, bool]:
    """Return the name to store under, and whether the same bytes are there already."""
    stem, suffix = Path(wanted).stem, Path(wanted).suffix
    parent = wanted[: len(wanted) - len(Path(wanted).name)]
    name, number = wanted, 1
    while (folder / name).exists():
        if is_file(folder / name) and _same(folder / name, content):
            return name, True
        name = f"{parent}{stem} ({number}){suffix}"
        number += 1
    return name, False


def _same(path: Path, content: bytes) -> bool:
    digest = hashlib.sha256(path.read_bytes()).digest()
    return digest == hashlib.sha256(content).digest()


def _named(response: Response, path: Path) -> Response:
    """Add the file's name, as bytes: headers there are UTF-8.

    Raises:
        ValueError: The name would break the header.
    """
    if not path.name.isprintable():
        raise ValueError(path.name)
    value = f'filename="{path.name}"'.encode()
    response.raw_headers.append((b"content-disposition", value))
    return response


def _preview(path: Path, wanted: str, channel: str | None) -> Response:
    """Re-encode a picture, `webp;60` or `jpeg`; anything else is WEBP."""
    kind, *more = wanted.split(";")
    if kind not in {"webp", "jpeg"} or "a" in (channel or ""):
        kind = "webp"
    last = more[-1] if more else ""
    quality = int(last) if last.isdecimal() else _PREVIEW_QUALITY
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        flat = kind == "jpeg" or channel == "rgb"
        (picture.convert("RGB") if flat else picture).save(buffer, kind, quality=quality)
    return _named(Response(buffer.getvalue(), media_type=f"image/{kind}"), path)


def _channel(path: Path, channel: str) -> Response:
    """Return a picture without its transparency, or the transparency alone, as PNG."""
    buffer = io.BytesIO()
    with Image.open(path) as picture:
        if channel == "rgb":
            picture.convert("RGB").save(buffer, "PNG")
        else:
            alpha = picture.convert("RGBA").getchannel("A")
            layer = Image.new("RGBA", alpha.size)
            layer.putalpha(alpha)
            layer.save(buffer, "PNG")
    return _named(Response(buffer.getvalue(), media_type="image/png"), path)


def _file(path: Path, request: Request) -> Response:
    """Return a file whole, in part (206, 416) or not at all (304)."""
    kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    if kind in _SHOWN_AS_BYTES:
        kind = "application/octet-stream"
    stat = path.stat()
    etag = f'"{stat.st_mtime_ns:x}-{stat.st_size:x}"'
    headers = {
        "content-type": kind,
        "etag": etag,
        "last-modified": email.utils.formatdate(stat.st_mtime, usegmt=True),
    }
    if _unchanged(request, etag, stat.st_mtime):
        return _named(Response(status_code=304, headers=headers), path)
    headers["accept-ranges"] = "bytes"
    content = path.read_bytes()
    wanted = request.headers.get("range")
    if wanted is None:
        return _named(Response(content, headers=headers), path)
    part = _range(wanted, len(content))
    if part is None:
        headers["content-range"] = f"bytes */{len(content)}"
        return Response(status_code=416, headers=headers)
    start, end = part
    headers["content-range"] = f"bytes {start}-{end - 1}/{len(content)}"
    return _named(Response(content[start:end], 206, headers=headers), path)


def _unchanged(request: Request, etag: str, changed: float) -> bool:
    if (known := request.headers.get("if-none-match")) is not None:
        return known.strip() == "*" or etag in [one.strip() for one in known.split(",")]
    since = request.headers.get("if-modified-since")
    if since is None:
        return False
    try:
        return int(changed) <= email.utils.parsedate_to_datetime(since).timestamp()
    except ValueError:
        return False


def _range(wanted: str, size: int) -> tuple[int, int] | None:
    """Return start and end of `bytes=a-b`, `bytes=a-` or `bytes=-n`; None: cannot be satisfied."""
    unit, _, span = wanted.partition("=")
    first, dash, last = span.strip().partition("-")
    if unit.strip() != "bytes" or not dash or not f"{first}{last}".isdecimal():
        return None
    if not first:
        return max(0, size - int(last)), size
    start = int(first)
    end = min(size, int(last) + 1) if last else size
    return (start, end) if start < min(end, size) else None
