"""Hugging Face: `owner/repository/folder/file@revision`, or a file's address.

One HEAD of the file's address, its redirect not followed, tells all that is needed: the commit
(`X-Repo-Commit`), size (`X-Linked-Size`) and, for a file in LFS or Xet, its SHA-256
(`X-Linked-ETag`). The library `huggingface_hub` is not used: it brings a cache layout, redirects
and a downloader of its own, none of which checks the addresses it goes to.
Source: `huggingface_hub` (`get_hf_file_metadata`) and the hub's answers, 2026.
"""

import asyncio
import re
from dataclasses import dataclass
from types import TracebackType
from typing import Self
from urllib.parse import quote, unquote, urlsplit

import httpx

from stablequeue.errors import ModelGone, NoSuitableFile
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.asking import ApiTries, Asker
from stablequeue.models.sources.naming import has_model_suffix, safe_name
from stablequeue.models.sources.network import Reach, host_matches, open_client
from stablequeue.models.sources.offer import Offer, Wanted
from stablequeue.models.sources.pace import Pace
from stablequeue.models.sources.patience import Pause
from stablequeue.models.sources.refusals import huggingface_refusal
from stablequeue.source_settings import HuggingFaceSettings

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PART = re.compile(r"[A-Za-z0-9][\w.\-]{0,95}", re.ASCII)
_READ_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HuggingFaceRef:
    """One file of a repository; `revision` is a branch, a tag or a commit."""

    repo: str
    path: str
    revision: str = "main"


def huggingface_access(settings: HuggingFaceSettings) -> Access:
    """Return how the hub and its storage are reached."""
    return Access(
        source="huggingface",
        reach=Reach(settings.hosts, loopback=settings.loopback),
        token=settings.token,
        token_hosts=settings.token_hosts,
        refusal=huggingface_refusal,
    )


def parse_ref(text: str) -> HuggingFaceRef | None:
    """Read `owner/repository/path/to/file@revision`; None if it is none."""
    path, _, revision = text.strip().partition("@")
    parts = path.split("/")
    return _ref(parts, revision or "main") if len(parts) > 2 else None  # noqa: PLR2004


def parse_url(
    url: str, hosts: tuple[str, ...] = ("huggingface.co", "hf.co")
) -> HuggingFaceRef | None:
    """Read a file's address (`/resolve/`, `/blob/` or `/raw/`); None if it is none of the hub's."""
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname or ""
    except ValueError:
        return None
    if parts.scheme not in {"http", "https"} or not host_matches(host, hosts):
        return None
    names = [unquote(one) for one in parts.path.strip("/").split("/")]
    for verb in ("resolve", "blob", "raw"):
        if len(names) > 4 and names[2] == verb:  # noqa: PLR2004 - owner/repo/verb/revision/file
            return _ref([*names[:2], *names[4:]], names[3])
    return None


class HuggingFace:
    """A session with the hub; use it with `async with`.

    Args:
        settings: Where it is, and the token.
        tries: How patient.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        settings: HuggingFaceSettings,
        *,
        tries: ApiTries | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._base = settings.base_url.rstrip("/")
        self.access = huggingface_access(settings)
        self._client = open_client(self.access.reach, read_s=_READ_S)
        pace = Pace(5.0, 20, pause=pause)
        self._asker = Asker(self.access, self._client, pace, tries=tries, pause=pause)
        self._hosts = ("huggingface.co", "hf.co", httpx.URL(self._base).host)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    def understands(self, text: str) -> HuggingFaceRef | None:
        """Return what an address of the hub names; None for any other."""
        return parse_url(text, self._hosts)

    async def offer(self, ref: HuggingFaceRef, wanted: Wanted | None = None) -> Offer:
        """Return the offer of one file, pinned to the commit its revision is at now.

        Raises:
            ModelGone: No such repository, revision or file.
            LoginNeeded: It is private, or does not exist: the hub does not say which.
            AccessDenied: Its terms must be accepted first.
            NoSuitableFile: It is no model file.
        """
        name = safe_name((wanted.name if wanted else "") or ref.path)
        if not has_model_suffix(ref.path) or not has_model_suffix(name):
            raise NoSuitableFile("huggingface", f"{ref.path} is no model file")
        reply = await self._asker.ask("HEAD", httpx.URL(self._resolve(ref)))
        headers = reply.headers
        if not reply.found:
            raise ModelGone("huggingface", f"there is no {ref.path} in {ref.repo}")
        commit = headers.get("x-repo-commit", "")
        etag = headers.get("x-linked-etag", "").removeprefix("W/").strip('"').casefold()
        size = headers.get("x-linked-size", "")
        pinned = HuggingFaceRef(repo=ref.repo, path=ref.path, revision=commit or ref.revision)
        sha256 = etag if _SHA256.fullmatch(etag) else ""
        return Offer(
            source="huggingface",
            ident=f"huggingface:{pinned.repo}/{pinned.path}@{pinned.revision}",
            url=self._resolve(pinned),
            name=name,
            kind=wanted.kind if wanted else "",
            size=int(size) if size.isdecimal() and len(size) < 16 else 0,  # noqa: PLR2004
            sha256=sha256 or (wanted.sha256 if wanted else ""),
            facts={
                "repo": ref.repo,
                "path": ref.path,
                "revision": ref.revision,
                "commit": commit,
                "page": f"{self._base}/{ref.repo}",
            },
        )

    def _resolve(self, ref: HuggingFaceRef) -> str:
        revision = quote(ref.revision, safe="")
        return f"{self._base}/{ref.repo}/resolve/{revision}/{quote(ref.path)}"


def _ref(parts: list[str], revision: str) -> HuggingFaceRef | None:
    owner, repo, *rest = parts
    path = "/".join(rest).split("/")  # a part that was written %2F is two
    # A hostile path must not leave the repository's part of the address.
    safe = all(one not in {"", ".", ".."} and "\\" not in one and "\0" not in one for one in path)
    if not (_PART.fullmatch(owner) and _PART.fullmatch(repo) and path and safe):
        return None
    if not revision or ".." in revision or len(revision) > 255:  # noqa: PLR2004
        return None
    return HuggingFaceRef(repo=f"{owner}/{repo}", path="/".join(path), revision=revision)
