"""A pasted picture as a request whose models are identified, not only named.

Each model is looked for by all that is said of it: first in the library, then on Civitai. What is
found there is asked for by what identifies its bytes, so that a server without it gets it, and one
with another file of that name does not use that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from stablequeue.client.online import finished
from stablequeue.editor_workflow import is_editor_format
from stablequeue.errors import (
    BadRequest,
    DownloadError,
    NotFound,
    UnreadableFile,
)
from stablequeue.models.infotext_models import models_of
from stablequeue.models.linking import Use, embeddings_of, uses_of, with_references
from stablequeue.models.recorded import recorded
from stablequeue.models.records import ModelFile
from stablequeue.models.references import (
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
    Hash,
    Name,
    Number,
    Reference,
    parse_reference,
)
from stablequeue.models.resolving import is_fake_hash, resolve
from stablequeue.models.roots import library_roots
from stablequeue.prompts.civitai_meta import graph_of_meta, infotext_of_meta
from stablequeue.prompts.comfy_graph import is_api_graph
from stablequeue.prompts.infotext_requests import request_from_infotext
from stablequeue.prompts.pasted import Told, told_by_file, told_by_graph, told_by_text
from stablequeue.request import GenerationRequest
from stablequeue.settings import Settings

if TYPE_CHECKING:
    from stablequeue.models.sources import Offer, Sources


@dataclass(frozen=True, slots=True, kw_only=True)
class Pasted:
    """What a pasted picture asks for.

    Attributes:
        request: With references that identify its models, where they were found.
        notes: What it leaves open, one line each.
        matched: Field and how it was matched, one line each.
        unmatched: What could not be identified, one line each; its name is used as it is.
    """

    request: GenerationRequest
    notes: tuple[str, ...] = ()
    matched: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()


def read_pasted(settings: Settings, source: str) -> Pasted:
    """Return what a source tells, its models identified where that is possible.

    Args:
        settings: Of the installation.
        source: A file's path, an infotext or JSON, or the address of a picture on Civitai.

    Raises:
        NotFound: There is no such file or picture.
        UnreadableFile: It tells nothing about how it was made.
        BadRequest: What it tells is no valid request.
        DownloadError: Civitai cannot be asked for the picture.
    """
    image_id = image_of(source)
    told = told_by_image(settings, image_id) if image_id else _told(source)
    return identified(settings, told)


def image_of(source: str) -> int:
    """Return the id of a picture on Civitai that an address names; 0: it is none."""
    if "\n" in source.strip() or "://" not in source:
        return 0
    try:
        reference = parse_reference(source)
    except BadRequest:
        return 0
    return reference.image_id if isinstance(reference, CivitaiImage) else 0


def told_by_image(settings: Settings, image_id: int) -> Told:
    """Return what Civitai tells of a picture.

    Raises:
        NotFound: There is none.
        UnreadableFile: It was published without how it was made.
        DownloadError: Civitai cannot be asked.
    """
    from stablequeue.client.model_sources import generation_of  # noqa: PLC0415  # httpx

    meta = generation_of(settings, image_id)
    if meta is None:
        raise NotFound(f"Civitai has no picture {image_id}, or it is not public")
    graph, workflow = graph_of_meta(meta)
    if is_api_graph(graph):
        return told_by_graph(graph, workflow)
    if is_editor_format(workflow):
        return told_by_graph(workflow)
    infotext = infotext_of_meta(meta)
    if not infotext.prompt and not infotext.params:
        raise UnreadableFile(f"picture {image_id} was published without how it was made")
    return Told(*request_from_infotext(infotext), infotext)


def identified(settings: Settings, told: Told) -> Pasted:
    """Return the request with its models identified, as far as they are found."""
    files = recorded(settings)
    named = models_of(told.infotext) if told.infotext is not None else []
    uses = uses_of(told.request, named)
    plain = Pasted(request=told.request, notes=tuple(told.notes))
    if told.request.workflow or not (uses or named):
        return plain
    if not files and not library_roots(settings.models):
        # Nothing can be fetched here: the server finds its own by name, or refuses.
        return plain
    work = _Matching(settings, files, uses, embeddings_of(named))
    found = finished(work.all())
    return Pasted(
        request=with_references(told.request, found),
        notes=tuple(told.notes),
        matched=tuple(work.matched),
        unmatched=tuple(work.unmatched),
    )


def _told(source: str) -> Told:
    if "\n" in source:
        return told_by_text(source)
    try:
        path = Path(source).expanduser()
        if path.is_file():
            return told_by_file(path)
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, no such user
        pass
    if ":" not in source:
        raise NotFound(f"there is no file {source!r}")
    return told_by_text(source)


class _Matching:
    """Matches the models of one picture."""

    def __init__(
        self,
        settings: Settings,
        files: Sequence[ModelFile],
        uses: Sequence[Use],
        embeddings: Sequence[Use],
    ) -> None:
        self._settings, self._files = settings, files
        self._uses, self._embeddings = uses, embeddings
        self._offline = ""
        self.matched: list[str] = []
        self.unmatched: list[str] = []

    async def all(self) -> list[tuple[Use, str]]:
        """Return for each use that is found the reference that identifies it."""
        found: list[tuple[Use, str]] = []
        left: list[Use] = []
        for use in (*self._uses, *self._embeddings):
            reference = self._in_library(use)
            if reference:
                found.append((use, reference))
            else:
                left.append(use)
        asked = [use for use in left if _askable(use)]
        if asked:
            found += await self._on_civitai(asked)
        taken = {use.field + use.given for use, _ in found}
        for use in left:
            if use.field + use.given not in taken:
                self._miss(use)
        return found

    def _in_library(self, use: Use) -> str:
        for reference in _sure(use):
            answer = resolve(reference, self._files, kind=use.kind)
            if answer.file is not None and answer.file.sha256 and answer.how not in _BY_NAME:
                self.matched.append(f"{use} is {answer.file.name} of the library")
                return f"sha256:{answer.file.sha256}"
        return ""

    async def _on_civitai(self, uses: Sequence[Use]) -> list[tuple[Use, str]]:
        from stablequeue.client.model_sources import BRIEFLY  # noqa: PLC0415  # httpx
        from stablequeue.models.sources import open_sources  # noqa: PLC0415

        found: list[tuple[Use, str]] = []
        async with open_sources(
            self._settings.sources, self._settings.source_answers, tries=BRIEFLY
        ) as sources:
            for use in uses:
                reference = await self._offered(use, sources)
                if reference:
                    found.append((use, reference))
        return found

    async def _offered(self, use: Use, sources: "Sources") -> str:
        from stablequeue.models.sourcing import offer_for  # noqa: PLC0415  # httpx

        for reference in _sure(use):
            if self._offline or not _for_civitai(reference):
                continue
            try:
                offer = await offer_for(reference, use.kind, sources)
            except DownloadError as error:
                if error.retryable:
                    self._offline = str(error)
                continue
            identity = _identity(offer)
            self.matched.append(f"{use} is {offer.name} on Civitai ({identity})")
            return identity
        return ""

    def _miss(self, use: Use) -> None:
        if use.field == "prompt":
            self.unmatched.append(f"{use} is not in the library; the prompt names it all the same")
            return
        here = resolve(Name(use.given, kind=use.kind), self._files, kind=use.kind).file
        hashes = [one.digits for one in use.references if isinstance(one, Hash)]
        if not use.references:
            if here is None:
                self.unmatched.append(f"{use} is told by name only; the server must have it")
            return
        what = f" (hash {hashes[0]})" if hashes else ""
        why = f"Civitai cannot be asked: {self._offline}" if self._offline else "nobody knows it"
        also = f"; {here.name} of the library has other bytes" if here is not None else ""
        self.unmatched.append(f"{use}{what} could not be matched: {why}{also}; its name is used")


_BY_NAME = {"name", "path", "alias"}


def _sure(use: Use) -> list[Reference]:
    """Return what identifies a model's bytes; a hash of its name (Forge, 2024) does not."""
    return [
        one
        for one in use.references
        if not (isinstance(one, Hash) and is_fake_hash(one.digits, use.given))
        and not (isinstance(one, Name) and is_fake_hash(one.digits, one.name))
    ]


def _identity(offer: "Offer") -> str:
    """Return the text that names one file of Civitai."""
    version: Any = offer.facts.get("version")
    told = cast("dict[str, Any]", version) if isinstance(version, dict) else {}
    version_id, model_id, file_id = (
        one if isinstance(one, int) else 0
        for one in (told.get("id"), told.get("modelId"), offer.facts.get("fileId"))
    )
    return str(CivitaiVersion(version_id, model_id, file_id))


def _askable(use: Use) -> bool:
    return use.field != "prompt" and any(_for_civitai(one) for one in _sure(use))


def _for_civitai(reference: Reference) -> bool:
    if isinstance(reference, Name):
        return bool(reference.digits)
    return isinstance(reference, Hash | CivitaiVersion | CivitaiModel | Number)
