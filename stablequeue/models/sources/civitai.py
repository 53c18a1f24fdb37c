"""Civitai's API: looking models up, and offers to download their files.

Lookups are cached (`cache.AnswerCache`) and paced (`pace.Pace`); what is not at the first base URL
is asked for at the fallback, since the two have shown different models. URLs in answers are never
used: some read `https://undefined/...`, and those with parameters find no file.
Source: Civitai's server source (v5.0.2257) and its developer documentation, August 2026.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from stablequeue.errors import (
    DownloadDisabled,
    LoginNeeded,
    ModelGone,
    NoSuitableFile,
)
from stablequeue.models.sources.access import Access
from stablequeue.models.sources.asking import ApiTries, Asker, as_mapping, as_mappings
from stablequeue.models.sources.cache import AnswerCache, Cached
from stablequeue.models.sources.choosing import Wish, choose
from stablequeue.models.sources.civitai_answers import (
    EMPTY_SHA256,
    CivitaiFile,
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
    HashIds,
    Me,
)
from stablequeue.models.sources.civitai_urls import HOSTS, CivitaiRef, parse
from stablequeue.models.sources.kinds import of_civitai
from stablequeue.models.sources.naming import safe_name
from stablequeue.models.sources.network import Reach, open_client
from stablequeue.models.sources.offer import Offer, Wanted
from stablequeue.models.sources.pace import Pace
from stablequeue.models.sources.patience import Pause
from stablequeue.models.sources.refusals import civitai_refusal
from stablequeue.source_settings import CivitaiSettings

_API = "api/v1"
_BULK = 100
_BULK_IDS = 10_000
_READ_S = 30.0
Parameters = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What to search for; empty: no matter. `types` and `base_models` are Civitai's own words."""

    query: str = ""
    types: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()
    tag: str = ""
    username: str = ""
    sort: str = ""
    period: str = ""
    nsfw: bool = False
    page_size: int = 100

    def parameters(self) -> list[tuple[str, str]]:
        """Return them as the API takes them: lists repeat their name, false is left out."""
        found = [("limit", str(self.page_size))]
        found += [("types", one) for one in self.types]
        found += [("baseModels", one) for one in self.base_models]
        texts = ("query", "tag", "username", "sort", "period")
        found += [(name, value) for name in texts if (value := str(getattr(self, name)))]
        return [*found, ("nsfw", "true")] if self.nsfw else found


def civitai_access(settings: CivitaiSettings) -> Access:
    """Return how Civitai and its storage are reached."""
    return Access(
        source="civitai",
        reach=Reach(settings.hosts, loopback=settings.loopback),
        token=settings.token,
        token_hosts=settings.token_hosts,
        refusal=civitai_refusal,
    )


class Civitai:
    """A session with Civitai's API; use it with `async with`.

    Every call raises a `DownloadError`: `SourceUnreachable` or `RateLimited` (retryable) after
    several tries, or what its refusal means.

    Args:
        settings: Where it is, and the key.
        cache: Folder for answers.
        pace: Shared by all sessions of a process.
        tries: How patient.
        pause: Waits so many seconds.
    """

    def __init__(
        self,
        settings: CivitaiSettings,
        cache: Path,
        *,
        pace: Pace | None = None,
        tries: ApiTries | None = None,
        pause: Pause = asyncio.sleep,
    ) -> None:
        self._settings = settings
        self._bases = [one.rstrip("/") for one in (settings.base_url, settings.fallback_url) if one]
        self.access = civitai_access(settings)
        self.cache = AnswerCache(cache, found_s=settings.cache_s, missing_s=settings.missing_s)
        self._client = open_client(self.access.reach, read_s=_READ_S)
        self._asker = Asker(
            self.access,
            self._client,
            pace or Pace(settings.requests_per_s, settings.burst, pause=pause),
            tries=tries,
            pause=pause,
        )
        own = httpx.URL(self._bases[0]).host
        self._hosts = (*HOSTS, own)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._client.aclose()

    async def me(self) -> Me:
        """Return the account of the key.

        Raises:
            LoginNeeded: There is no key, or it is not accepted. Everywhere else Civitai takes a
                bad key for none, so this is the way to check one.
        """
        if not self._settings.token.get_secret_value():
            raise LoginNeeded("civitai", "no API key is set")
        reply = await self._asker.ask("GET", self._url(self._bases[0], "me"))
        return Me.model_validate(as_mapping(reply.data))

    async def model(self, model_id: int) -> CivitaiModel | None:
        """Return a model with all its versions; None if there is none."""
        found = await self._get(f"models/{int(model_id)}")
        if found is None:
            return None
        model = CivitaiModel.model_validate(as_mapping(found.data))
        return model.model_copy(update={"found_at": found.base})

    async def version(self, version_id: int) -> CivitaiVersion | None:
        """Return a version; None if there is none."""
        return await self._version(f"model-versions/{int(version_id)}")

    async def version_by_hash(self, wanted: str) -> CivitaiVersion | None:
        """Return the oldest version with a file of this hash (SHA-256, AutoV1-3, BLAKE3, CRC32).

        The primary file need not be the one with the hash: `Wish(hash=...)` finds that. Several
        versions may have the file. Short hashes collide: compare the name, too.
        """
        text = wanted.strip().casefold().removeprefix("0x")
        if not text or not set(text) <= set("0123456789abcdef") or EMPTY_SHA256.startswith(text):
            return None
        return await self._version(f"model-versions/by-hash/{text.upper()}")

    async def versions_by_hashes(self, sha256s: Iterable[str]) -> list[CivitaiVersion]:
        """Return the versions of many files, each once, in no order; what is unknown is missing."""
        found: dict[int, CivitaiVersion] = {}
        for batch in _batches(_good(sha256s), _BULK):
            for data in await self._post("model-versions/by-hash", batch):
                version = CivitaiVersion.model_validate(data)
                found.setdefault(version.id, version)
        return list(found.values())

    async def ids_by_hashes(self, sha256s: Iterable[str]) -> list[HashIds]:
        """Return model and version ids of many files: the cheapest first step for a library."""
        found: list[HashIds] = []
        for batch in _batches(_good(sha256s), _BULK_IDS):
            for data in await self._post("model-versions/by-hash/ids", batch):
                ids = HashIds.model_validate(data)
                found.append(ids.model_copy(update={"hash": ids.hash.casefold()}))
        return found

    async def image(self, image_id: int) -> CivitaiImage | None:
        """Return a picture with what it was made with; None if there is none."""
        async for image in self.images(("imageId", str(int(image_id))), pages=1):
            if image.id == image_id:
                return image
        return None

    async def images(
        self, *parameters: tuple[str, str], pages: int = 20
    ) -> AsyncIterator[CivitaiImage]:
        """Yield pictures, e.g. of `("modelVersionId", "123")` or `("postId", "4")`."""
        asked = [*parameters, ("withMeta", "true"), ("flatMeta", "true"), ("browsingLevel", "31")]
        async for item in self._pages("images", asked, pages):
            yield CivitaiImage.model_validate(item)

    async def search(self, search: Search, *, pages: int = 20) -> AsyncIterator[CivitaiModel]:
        """Yield models, page by page, until there are no more or `pages` were read.

        Pages may be short or empty while there are more. Lists may lag behind and lack versions:
        for a known id ask `model`.
        """
        async for item in self._pages("models", search.parameters(), pages):
            yield CivitaiModel.model_validate(item)

    async def search_page(
        self, search: Search, cursor: str = "", *, pages: int = 20
    ) -> tuple[list[CivitaiModel], str]:
        """Return the next models of a search, and the cursor of what follows them.

        Empty pages in between are read over, at most `pages` of them.

        Args:
            search: What to search for; the same for every page.
            cursor: Empty: the first page. Opaque, and Civitai's own.
            pages: See above.

        Returns:
            The cursor is empty where nothing follows.
        """
        for _ in range(pages):
            more = [("cursor", cursor)] if cursor else []
            found = await self._get("models", [*search.parameters(), *more])
            data = as_mapping(found.data if found is not None else None)
            after = str(as_mapping(data.get("metadata")).get("nextCursor") or "")
            models = [CivitaiModel.model_validate(one) for one in as_mappings(data.get("items"))]
            if models or not after or after == cursor:
                return models, "" if after == cursor else after
            cursor = after
        return [], cursor

    def understands(self, url: str) -> CivitaiRef | None:
        """Return what a URL of Civitai names; None for any other URL."""
        return parse(url, hosts=self._hosts)

    async def offer(self, wanted: Wanted, wish: Wish | None = None) -> Offer:
        """Return the offer for a page's or download's URL.

        Raises:
            ModelGone: There is no such model or version, or no file of it may be had any more.
            NoSuitableFile: See `choosing.choose`; also for the URL of a picture.
            DownloadDisabled: Its creator offers no download.
        """
        ref = self.understands(wanted.url)
        if ref is None or not (ref.model_id or ref.version_id):
            raise NoSuitableFile("civitai", "the address names no model and no version")
        version = await self._version_of(ref)
        if wish is None:
            wish = Wish(file_id=ref.file_id, hash=wanted.sha256)
        chosen = choose(version, wish)
        return self.offer_of(version, chosen.file)

    def offer_of(self, version: CivitaiVersion, file: CivitaiFile) -> Offer:
        """Return the offer of one file of a version.

        Raises:
            ModelGone: The model is archived.
            DownloadDisabled: Its creator offers no download.
        """
        if version.model.mode.casefold() == "archived":
            raise ModelGone("civitai", "the model is archived and not available for download")
        if version.usage_control not in {"", "Download"}:
            raise DownloadDisabled(
                "civitai", "its creator lets it be used on the site only; a key does not help"
            )
        base = version.found_at or self._bases[0]
        return Offer(
            source="civitai",
            ident=f"civitai:{version.id}/{file.id}",
            url=f"{base}/api/download/models/{version.id}?fileId={file.id}",
            name=safe_name(file.name),
            kind=of_civitai(version.model.type, file.type),
            size=file.size,
            sha256=file.sha256,
            facts={"version": version.raw, "fileId": file.id},
        )

    async def _version(self, path: str) -> CivitaiVersion | None:
        found = await self._get(path)
        if found is None:
            return None
        version = CivitaiVersion.model_validate(as_mapping(found.data))
        return version.model_copy(update={"found_at": found.base})

    async def _version_of(self, ref: CivitaiRef) -> CivitaiVersion:
        if ref.version_id:
            version = await self.version(ref.version_id)
        else:
            model = await self.model(ref.model_id)
            if model is not None and model.mode.casefold() == "archived":
                raise ModelGone("civitai", f"{model.name} is archived; it cannot be downloaded")
            inner = None if model is None else model.version()
            # An entry within a model may tell neither model nor model id, which sidecars need.
            version = inner and (await self.version(inner.id) or inner)
        if version is None:
            what = f"version {ref.version_id}" if ref.version_id else f"model {ref.model_id}"
            raise ModelGone("civitai", f"there is no {what}, or it is not published (any more)")
        return version

    async def _pages(
        self, path: str, parameters: Parameters, most: int
    ) -> AsyncIterator[dict[str, Any]]:
        cursor, seen = "", set[str]()
        for _ in range(most):
            more = [("cursor", cursor)] if cursor else []
            found = await self._get(path, [*parameters, *more])
            data = as_mapping(found.data if found is not None else None)
            for item in as_mappings(data.get("items")):
                yield item
            # `nextPage` is a whole URL, on a host of the server's choice: not followed.
            cursor = str(as_mapping(data.get("metadata")).get("nextCursor") or "")
            if not cursor or cursor in seen:
                return
            seen.add(cursor)

    async def _get(self, path: str, parameters: Parameters = ()) -> Cached | None:
        """Return an answer, from the cache if it is fresh; None if there is no such thing."""
        keyed = "keyed" if self._settings.token.get_secret_value() else "anonymous"
        key = f"{keyed} {self._bases[0]} {path}?{httpx.QueryParams(list(parameters))}"
        cached = self.cache.get(key)
        if cached is not None and self.cache.fresh(cached):
            return cached if cached.found else None
        for base in self._bases:
            etag = cached.etag if cached is not None and cached.base == base else ""
            reply = await self._asker.ask("GET", self._url(base, path, parameters), etag=etag)
            if not reply.found:
                continue
            unchanged = cached is not None and reply.data is None
            data = cached.data if cached is not None and unchanged else reply.data
            return self.cache.put(key, data, base=base, etag=reply.headers.get("etag", etag))
        self.cache.put(key, None, base=self._bases[0], found=False)
        return None

    async def _post(self, path: str, body: list[str]) -> list[dict[str, Any]]:
        reply = await self._asker.ask("POST", self._url(self._bases[0], path), body=body)
        return as_mappings(reply.data)

    def _url(self, base: str, path: str, parameters: Parameters = ()) -> httpx.URL:
        url = httpx.URL(f"{base}/{_API}/{path}")
        return url.copy_with(params=list(parameters)) if parameters else url


def _good(sha256s: Iterable[str]) -> list[str]:
    """Return what the bulk endpoints take: 64 digits each, once, nothing that names no model."""
    cleaned = (one.strip().casefold().removeprefix("0x") for one in sha256s)
    return list(
        dict.fromkeys(
            one.upper()
            for one in cleaned
            if len(one) == 64 and set(one) <= set("0123456789abcdef") and one != EMPTY_SHA256  # noqa: PLR2004
        )
    )


def _batches(all_of_them: list[str], size: int) -> list[list[str]]:
    return [all_of_them[begin : begin + size] for begin in range(0, len(all_of_them), size)]
