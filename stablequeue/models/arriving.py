"""A model file that has just come: recorded in the library, told about beside it."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import httpx

from stablequeue.errors import CatalogueError, DownloadError, QueueError, UnreadableFile
from stablequeue.models.beside import find_preview, write_preview
from stablequeue.models.folders import Root
from stablequeue.models.library import Library
from stablequeue.models.sidecars import merge_civitai_info, merge_user_metadata, user_metadata_of
from stablequeue.models.sources import Access, Offer
from stablequeue.models.sources.network import open_client

logger = logging.getLogger("stablequeue.models")

_LARGEST_PREVIEW = 20_000_000
_PREVIEW_WITHIN_S = 30.0


def write_sidecars(file: Path, offer: Offer, sha256: str) -> None:
    """Write what the source tells beside a model file; texts a person wrote there stay.

    One that cannot be written is only noted: the model is there, and usable.
    """
    version = _version(offer)
    if not version:
        return
    try:
        merge_civitai_info(file, version)
        merge_user_metadata(file, user_metadata_of(version, sha256=sha256))
    except (UnreadableFile, OSError) as error:
        logger.warning("what is known of %s is not written beside it: %s", file.name, error)


async def fetch_preview(file: Path, offer: Offer, access: Access) -> None:
    """Fetch the first example picture of a version as the model's preview, if it has none yet."""
    pictures = _version(offer).get("images")
    listed = cast("list[Any]", pictures) if isinstance(pictures, list) else []
    urls = [
        url
        for one in listed
        if isinstance(one, dict)
        and isinstance(url := cast("dict[str, Any]", one).get("url"), str)
        and cast("dict[str, Any]", one).get("type") in {None, "", "image"}
    ]
    if not urls or find_preview(file) is not None:
        return
    try:
        write_preview(file, await _picture(urls[0], access))
    except (DownloadError, UnreadableFile, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        logger.info("no preview for %s: %s", file.name, error)


async def _picture(url: str, access: Access) -> bytes:
    where = httpx.URL(url)
    access.reach.check(where)
    data = b""
    async with (
        open_client(access.reach, read_s=_PREVIEW_WITHIN_S) as client,
        client.stream("GET", where) as response,
    ):
        response.raise_for_status()
        async for piece in response.aiter_bytes():
            data += piece
            if len(data) > _LARGEST_PREVIEW:
                raise UnreadableFile("the preview is too large")
    return data


def record(library: Library, roots: list[Root], file: Path) -> None:
    """Have the library know a file with all its hashes; what else is new waits for a scan.

    A library that cannot be written now finds the file at its next scan.
    """
    try:
        library.scan(roots, hashing=False)
        library.hash_files([file])
    except (CatalogueError, QueueError) as error:
        logger.warning("%s is not in the library yet: %s", file.name, error)


def _version(offer: Offer) -> Mapping[str, Any]:
    found = offer.facts.get("version")
    return cast("Mapping[str, Any]", found) if isinstance(found, dict) else {}
