"""A model the server lacks: found in the library, or offered by a source, or refused.

What is in the library and reaches the server is used under the server's own name for it. What is
not is offered by a source, if the reference says exactly which file is meant: then somebody has to
fetch it first. A bare name that nothing identifies is never searched for.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from stablequeue.engines.base import Inventory, SupportsRefresh
from stablequeue.errors import (
    BadRequest,
    DownloadError,
    ModelMissing,
    NotDelivered,
    NotFetched,
)
from stablequeue.model_names import TITLE_HASH, stem
from stablequeue.models.folders import Root, target_in, type_of_folder
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.library import Library
from stablequeue.models.records import ModelFile
from stablequeue.models.references import (
    Hash,
    HashKind,
    Name,
    Reference,
    parse_reference,
)
from stablequeue.models.resolving import Resolved
from stablequeue.models.resolving import resolve as find
from stablequeue.models.roots import library_roots
from stablequeue.models.sources import Offer, Sources, Wanted, open_sources
from stablequeue.models.sourcing import identifies, linked, links_of, offer_for
from stablequeue.pipeline.delivery import host_of, listed_as, path_there, roots_for, undelivered
from stablequeue.pipeline.job import Job, logger
from stablequeue.pipeline.needs import Need, needs_of, renamed
from stablequeue.request import GenerationRequest
from stablequeue.request_checks import one_line
from stablequeue.servers import ServerConfig
from stablequeue.settings import Settings

T = TypeVar("T")

Fetched = Callable[[Offer], Path | None]

_IMAGES = (ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL)
_TITLE_DIGITS = 10
_TOLD_BY_INPUT = frozenset(
    {
        *(ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL, ModelType.VAE, ModelType.LORA),
        *(ModelType.CONTROLNET, ModelType.HYPERNETWORK, ModelType.EMBEDDING),
    }
)
"""Inputs named for these are of their loaders only; `clip_name` and `model_name` of several."""
_LISTS = {
    ModelType.CHECKPOINT: "checkpoints",
    ModelType.DIFFUSION_MODEL: "unets",
    ModelType.LORA: "loras",
    ModelType.VAE: "vaes",
    ModelType.TEXT_ENCODER: "text_encoders",
    ModelType.UPSCALER: "upscalers",
}


@dataclass(frozen=True, slots=True)
class Here:
    """A model of the library that reaches the server under the path `there`."""

    need: Need
    file: ModelFile
    there: str


@dataclass(frozen=True, slots=True)
class ToFetch:
    """A file to be fetched.

    Attributes:
        need: What it is for.
        offer: What the source offers.
        kind: Type of the folder it goes into.
        root: That folder of the library; it reaches the server.
        name: Relative to it.
        host: Whose folder that is; empty: hosts share it.
    """

    need: Need
    offer: Offer
    kind: ModelType
    root: Path
    name: str
    host: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """What becomes of everything the server lacks."""

    here: tuple[Here, ...] = ()
    fetch: tuple[ToFetch, ...] = ()


async def plan(job: Job, missing: ModelMissing, fetched: Fetched | None = None) -> Plan:
    """Find everything the server lacks, in the library or at a source.

    Args:
        job: Its request and its server.
        missing: All the server lacks.
        fetched: Says where an earlier download put what a source offers; asked, in a thread, where
            no hash can tell. None: nobody knows.

    Raises:
        ModelMissing: One of them is known to nobody by that name.
        NotDelivered: One is here, or could be fetched, and does not reach the server.
        NotFetched: The source does not give it away; says why and what to do.
        DownloadError: The source cannot be asked now; retryable.
    """
    planning = _Planning(job.settings, job.server, job.request, missing, fetched)
    return await planning.plan()


async def obtainable(
    server: ServerConfig, request: GenerationRequest, missing: ModelMissing, settings: Settings
) -> bool:
    """Say whether a server can get what it lacks, without asking any source."""
    if server.models_from == "none":
        return False
    return await _Planning(settings, server, request, missing).hopeful()


async def use(job: Job, here: Sequence[Here]) -> None:
    """Resolve the job anew with these files, under the server's own names for them.

    A server that only lists its files when told to is told to, once.

    Raises:
        NotDelivered: It does not see one of them; says where to look.
        ModelMissing: It lacks something else, too.
        EngineUnreachable: Retryable.
    """
    for refreshed in (False, True):
        if refreshed:
            engine = job.engine
            if isinstance(engine, SupportsRefresh):
                kinds = {one.need.kind or one.file.kind for one in here}
                await engine.refresh(kinds | {one.file.kind for one in here})
        inventory = await job.engine.inventory()
        names = [(one.need, _name_there(job, one, inventory)) for one in here]
        request = renamed(job.request, names)
        try:
            job.resolution = await job.engine.resolve(request)
        except ModelMissing as still:
            told = {name for _, name in names}
            unseen = [one for one in (still, *still.also) if one.name in told]
            if len(unseen) != 1 + len(still.also):
                raise
            if refreshed:
                raise _unseen(job.server, here, names, unseen[0].name) from still
        else:
            job.renamed = request
            logger.info("models of the library: %s", ", ".join(one.file.name for one in here))
            return


class _Planning:
    """Plans for one request on one server."""

    def __init__(
        self,
        settings: Settings,
        server: ServerConfig,
        request: GenerationRequest,
        missing: ModelMissing,
        fetched: Fetched | None = None,
    ) -> None:
        self._settings, self._server = settings, server
        self._fetched = fetched
        self._missing = missing
        self._links = _links(request)
        self._needs = [self._placed(need) for need in needs_of(missing)]
        self._roots = library_roots(settings.models)
        self._files: list[ModelFile] = []

    async def plan(self) -> Plan:
        return await self._with_library(self._plan)

    async def hopeful(self) -> bool:
        """Whether each is in the library where the server sees it, or identified and welcome."""

        async def look(library: Library) -> bool:
            await self._look_up(library)
            for need in self._needs:
                reference = _reference(need)
                if reference is None:
                    return False
                found = find(reference, self._files, kind=need.kind)
                if self._reaching(found):
                    continue
                kind = need.kind or ModelType.CHECKPOINT
                wanted = identifies(reference, self._links)
                homeless = self._foreign_folder(need) or not self._roots_for(kind)
                if found.file or not wanted or homeless:
                    return False
            return True

        return await self._with_library(look)

    async def _with_library(self, act: Callable[[Library], Awaitable[T]]) -> T:
        library = await asyncio.to_thread(Library, self._settings.home)
        try:
            return await act(library)
        finally:
            await asyncio.to_thread(library.close)

    async def _look_up(self, library: Library, *, anew: bool = False) -> None:
        if anew:
            await asyncio.to_thread(library.scan, self._roots, hashing=False)
        files = await asyncio.to_thread(library.files)
        self._files = [one for one in files if await asyncio.to_thread(one.path.exists)]

    async def _plan(self, library: Library) -> Plan:
        await self._look_up(library)
        here: list[Here] = []
        left: list[tuple[Need, Reference]] = []
        for need in self._needs:
            reference = _reference(need)
            if reference is None:
                raise self._missing
            if (file := self._reaching(find(reference, self._files, kind=need.kind))) is not None:
                here.append(Here(need, file, path_there(self._server, file.path)))
            else:
                left.append((need, reference))
        if left:
            await self._look_up(library, anew=True)
        unknown: list[tuple[Need, Reference]] = []
        for need, reference in left:
            found = find(reference, self._files, kind=need.kind)
            if (file := self._reaching(found)) is not None:
                here.append(Here(need, file, path_there(self._server, file.path)))
            elif found.file is not None:
                raise undelivered(self._server, need.given, found.file.path)
            elif not identifies(reference, self._links):
                raise self._missing
            else:
                unknown.append((need, reference))
        fetch = await self._offers(library, unknown, here) if unknown else []
        return Plan(tuple(here), tuple(fetch))

    def _reaching(self, found: Resolved) -> ModelFile | None:
        """Return the file that is meant, of several with the same bytes one the server sees."""
        for file in (found.file, *found.same):
            if file is not None and path_there(self._server, file.path):
                return file
        return None

    async def _offers(
        self, library: Library, unknown: Sequence[tuple[Need, Reference]], here: list[Here]
    ) -> list[ToFetch]:
        for need, _ in unknown:
            if folder := self._foreign_folder(need):
                where = f"{need.field} {need.given!r} belongs in ComfyUI's folder models/{folder}"
                why = "the library has no folders of that type; put it there by hand"
                raise NotFetched(self._server.alias, f"{where}, and {why}")
            if not self._roots_for(need.kind or ModelType.CHECKPOINT):
                raise undelivered(self._server, f"{need.field} {need.given!r}")
        wanted: list[ToFetch] = []
        cache = self._settings.home / "cache" / "models"
        async with open_sources(self._settings.sources, cache) as sources:
            for need, reference in unknown:
                offer = await self._offer(need, reference, sources)
                file = await asyncio.to_thread(self._known, library, offer, need.kind)
                if file is None:
                    wanted.append(self._to_fetch(need, offer))
                elif there := path_there(self._server, file.path):
                    here.append(Here(need, file, there))
                else:
                    raise undelivered(self._server, need.given, file.path)
        return wanted

    async def _offer(self, need: Need, reference: Reference, sources: Sources) -> Offer:
        try:
            return await offer_for(reference, need.kind, sources, self._links)
        except DownloadError as error:
            if error.retryable:
                raise
            what = f"{need.field} {str(reference)[:200]!r}"
            raise NotFetched(self._server.alias, f"{what} cannot be fetched: {error}") from error

    def _known(self, library: Library, offer: Offer, kind: ModelType | None) -> ModelFile | None:
        """Return the file of the library that is what a source offers; blocks.

        Files not hashed yet may be it if they have its size.
        """
        if not offer.sha256:
            path = self._fetched(offer) if self._fetched is not None else None
            return next((one for one in self._files if one.path == path), None)
        reference = Hash(offer.sha256, (HashKind.SHA256,))
        same_size = [
            one.path for one in self._files if not one.sha256 and one.size == offer.size > 0
        ]
        if same_size:
            library.hash_files(same_size)
            self._files = [one for one in library.files() if one.path.exists()]
        found = find(reference, self._files, kind=kind)
        return self._reaching(found) or found.file

    def _placed(self, need: Need) -> Need:
        """Return a need with the type that a template's link tells, where the input does not."""
        link = None if need.kind in _TOLD_BY_INPUT else linked(need.given, self._links)
        kind = type_of_folder(link.folder) if link is not None else None
        return need if kind is None else replace(need, kind=kind)

    def _foreign_folder(self, need: Need) -> str:
        """Return the folder a template names for what the input does not tell, if none is ours."""
        link = None if need.kind in _TOLD_BY_INPUT else linked(need.given, self._links)
        if link is None or not link.folder or type_of_folder(link.folder) is not None:
            return ""
        return one_line(link.folder, 60)

    def _roots_for(self, kind: ModelType) -> list[Root]:
        kinds = [kind, *_IMAGES] if kind in _IMAGES else [kind]
        found = [one for each in kinds for one in roots_for(self._server, self._roots, each)]
        return list(dict.fromkeys(found))

    def _to_fetch(self, need: Need, offer: Offer) -> ToFetch:
        kind = need.kind or type_of(offer.kind)
        if kind is None:
            detail = f"{need.field} {need.given!r}: nobody tells what type of model it is"
            raise NotFetched(self._server.alias, f"{detail}; put it into its folder by hand")
        roots = self._roots_for(kind)
        if not roots:
            raise undelivered(self._server, f"{need.field} {need.given!r}")
        target_in(roots[0], offer.name)  # refuses a hostile name now
        return ToFetch(need, offer, kind, roots[0].path, offer.name, host_of(self._server))


def _reference(need: Need) -> Reference | None:
    try:
        return parse_reference(need.given, field=need.field)
    except BadRequest:
        return Name(need.given) if need.given.strip() else None


def _links(request: GenerationRequest) -> list[Wanted]:
    """Return what the editor's workflow, or one that came along, tells of where its models are."""
    if links := links_of(request.workflow):
        return links
    section = request.sections.comfyui
    return links_of(section.extra_pnginfo.get("workflow")) if section is not None else []


def _name_there(job: Job, one: Here, inventory: Inventory) -> str:
    kind = one.need.kind or one.file.kind
    listed: tuple[str, ...] = getattr(inventory, _LISTS.get(kind, ""), ())
    name = listed_as(one.there, listed)
    if one.need.field in {"prompt", "negative_prompt"} and not name:
        return stem(one.file.name)
    if job.server.type != "forge" or kind not in _IMAGES or not one.file.sha256:
        return name or one.file.name
    told = TITLE_HASH.search(name)
    if told is None:
        # Its hash is known to us: then a picture made with another file is noticed.
        return f"{name or one.file.name} [{one.file.sha256[:_TITLE_DIGITS]}]"
    if not one.file.sha256.startswith(told[1].casefold()):
        detail = f"it lists {name}, and {one.file.path} has other bytes ({one.file.autov2})"
        raise NotDelivered(job.server.alias, f"{detail}; correct models_from or model_paths")
    return name


def _unseen(
    server: ServerConfig,
    here: Sequence[Here],
    names: Sequence[tuple[Need, str]],
    name: str,
) -> NotDelivered:
    one = next(one for one, (_, told) in zip(here, names, strict=True) if told == name)
    detail = f"it does not list {one.file.name}, though the file is at {one.file.path}"
    seen = f" (for it: {one.there})" if one.there != str(one.file.path) else ""
    return NotDelivered(
        server.alias,
        f"{detail}{seen}; is that one of its own model folders? Correct models_from or model_paths",
    )
