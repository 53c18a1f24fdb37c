"""Bringing models into the library: as flow runs where there is a pool for them, else here."""

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from stablequeue.client.online import finished
from stablequeue.client.session import Session
from stablequeue.errors import (
    BadRequest,
    ModelGone,
    NotFound,
    PrefectError,
    SettingsError,
)
from stablequeue.fetches import DEPLOYMENT, Target, ask
from stablequeue.models.arriving import fetch_preview, record, write_sidecars
from stablequeue.models.downloads import Progress, download
from stablequeue.models.folders import Root, target_in
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.library import Library
from stablequeue.models.records import ModelFile
from stablequeue.models.references import (
    CivitaiImage,
    CivitaiModel,
    CivitaiVersion,
    Hash,
    HashKind,
    Number,
    Reference,
    parse_reference,
)
from stablequeue.models.resolving import resolve
from stablequeue.models.sources import Offer, Sources, access_for, open_sources
from stablequeue.models.sourcing import identifies, offer_for

OnFetch = Callable[[str, Progress], None]
"""Told a file's name and how far it is; called in an event loop, must not block."""

Wish = tuple[tuple[str, str], ...]

_IMAGES = (ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What became of one file.

    Attributes:
        reference: As it was given.
        state: `here`: it was in the library already; `fetched`; `asked`: a flow run fetches it.
        path: Where it is, or will be.
        size: Bytes; 0: not known yet.
        sha256: "" where it is not known yet.
        run_id: Of the flow run, if there is one.
        warnings: One sentence each.
    """

    reference: str
    state: str
    path: Path
    size: int = 0
    sha256: str = ""
    run_id: str = ""
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "reference": self.reference,
            "state": self.state,
            "path": str(self.path),
            "size": self.size,
            "sha256": self.sha256,
            "run_id": self.run_id,
            "warnings": list(self.warnings),
        }


def fetch(
    session: Session,
    library: Library,
    roots: list[Root],
    references: Sequence[str],
    *,
    kind: ModelType | None = None,
    wish: Wish = (),
    direct: bool = False,
    on_progress: OnFetch | None = None,
) -> list[Fetched]:
    """Fetch models; see `Models.fetch`."""
    wanted = [(text, parse_reference(text)) for text in references]
    through_runs = not direct and _has_deployment(session)
    fetching = _Fetching(session, library, roots, kind=kind, wish=wish, on_progress=on_progress)
    return finished(fetching.all(wanted, through_runs=through_runs))


def _has_deployment(session: Session) -> bool:
    try:
        session.api.deployment(DEPLOYMENT)
    except (NotFound, PrefectError):
        return False
    return True


class _Fetching:
    """One call of `fetch`."""

    def __init__(
        self,
        session: Session,
        library: Library,
        roots: list[Root],
        *,
        kind: ModelType | None,
        wish: Wish,
        on_progress: OnFetch | None,
    ) -> None:
        self._session, self._settings = session, session.settings
        self._library, self._roots = library, roots
        self._kind, self._wish = kind, wish
        self._tell = on_progress
        self._files = library.files()

    async def all(
        self, wanted: Sequence[tuple[str, Reference]], *, through_runs: bool
    ) -> list[Fetched]:
        found: list[Fetched] = []
        async with open_sources(self._settings.sources, self._settings.source_answers) as sources:
            for text, given in wanted:
                async for reference in self._single(given, sources):
                    there = self._here(reference)
                    if there is not None:
                        found.append(_known(text, there))
                        continue
                    offer = await self._offer(reference, sources)
                    found.append(await self._bring(text, offer, through_runs=through_runs))
        return found

    async def _single(self, reference: Reference, sources: Sources) -> AsyncIterator[Reference]:
        """Yield the references of single models: a picture names several."""
        if not isinstance(reference, CivitaiImage):
            yield await self._wished(reference, sources)
            return
        image = await sources.civitai.image(reference.image_id)
        ids = list(dict.fromkeys(image.model_version_ids)) if image is not None else []
        if not ids:
            raise ModelGone(
                "civitai", f"picture {reference.image_id} is not there or has no models"
            )
        for version_id in ids:
            yield CivitaiVersion(version_id)

    async def _wished(self, reference: Reference, sources: Sources) -> Reference:
        """Put the person's wish into a reference to a version; a named file goes before it."""
        if not self._wish or not isinstance(reference, CivitaiVersion | CivitaiModel | Number):
            return reference
        if isinstance(reference, Number):
            version = await sources.civitai.version(reference.number)
            is_version = version is not None
            number = reference.number
            reference = CivitaiVersion(number) if is_version else CivitaiModel(number)
        if isinstance(reference, CivitaiModel):
            model = await sources.civitai.model(reference.model_id)
            first = model.version() if model is not None else None
            if first is None:
                return reference  # whoever asks for it says why
            reference = CivitaiVersion(first.id, reference.model_id)
        return reference if reference.file_id else replace(reference, wish=self._wish)

    def _here(self, reference: Reference) -> ModelFile | None:
        if isinstance(reference, CivitaiVersion) and (reference.wish or reference.file_id):
            return None  # another file of the version may be here: its hash decides
        if isinstance(reference, CivitaiModel):
            return None  # an older version of it may be here
        return resolve(reference, self._files, kind=self._kind).file

    async def _offer(self, reference: Reference, sources: Sources) -> Offer:
        if not identifies(reference):
            raise NotFound(
                f"{str(reference)[:200]!r} is a name only, and names are not guessed;"
                " find it with: stablequeue models search"
            )
        offer = await offer_for(reference, self._kind, sources)
        return replace(offer, kind=self._kind.value) if self._kind else offer

    async def _bring(self, text: str, offer: Offer, *, through_runs: bool) -> Fetched:
        whole = Hash(offer.sha256, (HashKind.SHA256,)) if offer.sha256 else None
        there = resolve(whole, self._files).file if whole is not None else None
        if there is not None and there.path.exists():
            return _known(text, there)
        target = target_of(offer, self._roots, self._kind)
        path = target_in(Root(target.root, target.kind, ""), target.name)
        warnings = () if offer.sha256 else (f"{offer.name} has no SHA-256 to compare it with",)
        if through_runs:
            run = ask(self._session.api, offer, target, "interactive")
            return Fetched(
                reference=text,
                state="asked",
                path=path,
                size=offer.size,
                sha256=offer.sha256,
                run_id=run.id,
                warnings=warnings,
            )
        return replace(await self._download(text, offer, path), warnings=warnings)

    async def _download(self, text: str, offer: Offer, path: Path) -> Fetched:
        tell = self._tell
        access = access_for(offer, self._settings.sources)
        got = await download(
            offer,
            path,
            access,
            locks=self._settings.model_locks,
            progress=None if tell is None else lambda progress: tell(path.name, progress),
        )
        write_sidecars(got.path, offer, got.sha256)
        await fetch_preview(got.path, offer, access)
        record(self._library, self._roots, got.path)
        self._files = self._library.files()
        return Fetched(
            reference=text,
            state="fetched" if got.fetched else "here",
            path=got.path,
            size=got.size,
            sha256=got.sha256,
        )


def target_of(offer: Offer, roots: Sequence[Root], kind: ModelType | None = None) -> Target:
    """Return where in the library an offered file goes.

    Two files of one version may have the same name: where another file has it, this one gets the
    beginning of its hash into its name.

    Args:
        offer: What a source offers.
        roots: Folders of the library, the first of a type for new files.
        kind: What it is for; None: as the source says.

    Raises:
        BadRequest: Nobody says what it is for.
        SettingsError: There is no folder for such models.
    """
    kind = kind or type_of(offer.kind)
    if kind is None:
        raise BadRequest("--type", f"nobody says what {offer.name} is for", list(ModelType))
    kinds = (kind, *_IMAGES) if kind in _IMAGES else (kind,)
    root = next((one for each in kinds for one in roots if one.kind is each), None)
    if root is None:
        raise SettingsError(
            f"there is no folder for models of the type {kind.value}; name one that exists in the"
            f" setting models.folders.{kind.value}, or ComfyUI's or Forge's in models.installations"
        )
    path = target_in(root, offer.name)
    if not path.exists() or (offer.size and path.stat().st_size == offer.size):
        return Target(kind, root.path, offer.name)
    name = PurePosixPath(offer.name)
    mark = offer.sha256 or hashlib.sha256(offer.ident.encode()).hexdigest()
    return Target(kind, root.path, f"{name.stem}-{mark[:8]}{name.suffix}")


def _known(text: str, file: ModelFile) -> Fetched:
    return Fetched(reference=text, state="here", path=file.path, size=file.size, sha256=file.sha256)
