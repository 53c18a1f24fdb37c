"""Civitai's page, image and download addresses, as people paste them."""

import re
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from stablequeue.models.sources.network import host_matches

HOSTS = ("civitai.com", "civitai.red", "civitai.green", "*.civitai.com", "*.civitai.red")
_ARCHIVE = ("civarchive.com", "*.civarchive.com")
_LARGEST_ID = 2**31 - 1
_PATHS = (
    ("model", re.compile(r"/(?:api/v1/)?models/(\d+)(?:/.*)?")),
    ("version", re.compile(r"/(?:api/v1/)?model-versions/(\d+)/?")),
    ("version", re.compile(r"/api/download/models/(\d+)/?")),
    ("image", re.compile(r"/images/(\d+)/?")),
    ("post", re.compile(r"/posts/(\d+)/?")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CivitaiRef:
    """What an address names; 0: not named. A token in the address is dropped."""

    model_id: int = 0
    version_id: int = 0
    file_id: int = 0
    image_id: int = 0
    post_id: int = 0


def parse(url: str, *, hosts: tuple[str, ...] = HOSTS) -> CivitaiRef | None:
    """Return what a URL names; None if it is none of Civitai's. Slugs mean nothing."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
        asked = parse_qs(parts.query)
    except ValueError:
        return None
    archive = host_matches(host, _ARCHIVE)
    if parts.scheme not in {"http", "https"} or not (archive or host_matches(host, hosts)):
        return None
    for kind, pattern in _PATHS:
        found = pattern.fullmatch(parts.path)
        if found is not None and (ident := _number(found[1])) and (kind == "model" or not archive):
            return _named(kind, ident, asked)
    return None


def _named(kind: str, ident: int, asked: dict[str, list[str]]) -> CivitaiRef:
    match kind:
        case "model":
            version = _number(asked.get("modelVersionId", ["0"])[0])
            return CivitaiRef(model_id=ident, version_id=version)
        case "version":
            return CivitaiRef(version_id=ident, file_id=_number(asked.get("fileId", ["0"])[0]))
        case "image":
            return CivitaiRef(image_id=ident)
        case _:
            return CivitaiRef(post_id=ident)


def _number(text: str) -> int:
    fits = text.isascii() and text.isdecimal() and len(text) <= len(str(_LARGEST_ID))
    return int(text) if fits and int(text) <= _LARGEST_ID else 0
