"""`Client.models`: the model library, its sources and its downloads."""

import time
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stablequeue.client.session import Session
from stablequeue.errors import BadRequest, NotFound, Refused
from stablequeue.models.answers import Explained, Identified, identify_file, resolve_text
from stablequeue.models.care import EvictionPlan, delete, plan_eviction, rename
from stablequeue.models.folders import Root
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.library import Library
from stablequeue.models.records import ModelFile, ScanProgress, ScanReport
from stablequeue.models.references import parse_reference
from stablequeue.models.resolving import resolve
from stablequeue.models.roots import library_roots
from stablequeue.models.sidecars import Sidecars, read_sidecars

if TYPE_CHECKING:
    from stablequeue.client.model_downloads import Downloading
    from stablequeue.client.model_fetching import Fetched, OnFetch
    from stablequeue.client.model_sources import FoundModels
    from stablequeue.models.sources.civitai_answers import CivitaiModel
    from stablequeue.models.updates import UpdateReport

GB = 10**9


class Models:
    """The models of this host, and what the world offers.

    A *reference* is whatever a person may give for a model: a name or path, a title with its hash,
    a hash, an address, `civitai:MODEL@VERSION`, `hf:OWNER/REPO/FILE`; see
    `stablequeue.models.references`. A *type* is a word for `ModelType`; "" means any.

    Args:
        session: Of the client.
    """

    def __init__(self, session: Session) -> None:
        self._session = session

    @cached_property
    def library(self) -> Library:
        """The record, made if need be."""
        return Library(self._session.settings.home)

    @cached_property
    def roots(self) -> list[Root]:
        """The folders of models, in the order new files go into them.

        Raises:
            SettingsError: A file that lists folders cannot be read.
        """
        return library_roots(self._session.settings.models)

    def close(self) -> None:
        """Close the record."""
        if (opened := self.__dict__.pop("library", None)) is not None:
            opened.close()

    def scan(
        self,
        *,
        hashing: bool = True,
        progress: Callable[[ScanProgress], None] | None = None,
    ) -> ScanReport:
        """Bring the record up to date with the disk; what is unchanged costs next to nothing.

        Args:
            hashing: Also hash new files, at the disk's speed.
            progress: Told how far hashing is, from any thread, one at a time.
        """
        return self.library.scan(self.roots, hashing=hashing, progress=progress)

    def reads_library(self, listed: Iterable[str]) -> bool | None:
        """Say whether a server that lists these model files reads this library's folders.

        None: there is no library.
        """
        from stablequeue.pipeline.delivery import lists_library  # noqa: PLC0415  # the engines

        if not self.roots:
            return None
        self.scan(hashing=False)
        return lists_library([one.path for one in self.files()], listed)

    def files(
        self,
        *,
        text: str = "",
        kind: str = "",
        family: str = "",
        tag: str = "",
        missing: bool = False,
        unused: bool = False,
    ) -> list[ModelFile]:
        """Return the files of the record that fit, by folder and name.

        Args:
            text: In their name, title or alias.
            kind: Of this type.
            family: Of this family or base model, e.g. `sdxl`, `Pony`.
            tag: With this tag.
            missing: Those that are gone, instead of those that are there.
            unused: Those no job ever used.

        Raises:
            BadRequest: There is no such type.
        """
        wanted = model_type(kind)
        found = self.library.files(missing=missing)
        return [
            one
            for one in found
            if (wanted is None or wanted in {one.kind, one.shown_kind})
            and (not family or _of_family(one, family))
            and (not tag or tag.casefold() in {each.casefold() for each in one.tags})
            and not (unused and one.uses)
            and _has_text(one, text)
        ]

    def file(self, reference: str, *, kind: str = "") -> ModelFile:
        """Return the one file that a reference means.

        Raises:
            BadRequest: It can mean no model.
            NotFound: None, or more than one, is meant; says which look alike.
        """
        found = resolve(parse_reference(reference), self.library.files(), kind=model_type(kind))
        if found.file is not None:
            return found.file
        if found.suggestions:
            hint = f"Did you mean: {', '.join(found.suggestions)}?"
        else:
            hint = "What there is: stablequeue models ls; new files: stablequeue models scan"
        raise NotFound(f"{parse_reference(reference)} is no model of the library. {hint}")

    def sidecars(self, file: ModelFile) -> Sidecars:
        """Return what is told beside a file."""
        return read_sidecars(file.path)

    def resolve(self, reference: str, *, kind: str = "") -> Explained:
        """Say what a reference means in the library, and why.

        Raises:
            BadRequest: It can mean no model.
        """
        return resolve_text(self.library, reference, kind=model_type(kind))

    def identify(self, path: Path, *, progress: Callable[[int], None] | None = None) -> Identified:
        """Tell all hashes, architecture and embedded metadata of any file.

        Raises:
            NotFound: There is no such file.
            FileInUse: It is being written. Retryable.
        """
        return identify_file(path.expanduser().absolute(), progress=progress)

    def duplicates(self) -> list[list[ModelFile]]:
        """Return groups of files with the same bytes, the largest waste first."""
        return self.library.duplicates()

    def tag(self, file: ModelFile, *, add: Iterable[str] = (), remove: Iterable[str] = ()) -> None:
        """Put a model into collections and take it out of others."""
        self.library.tag(file, add=add, remove=remove)

    def pin(self, file: ModelFile, *, pinned: bool = True) -> None:
        """Keep a model whatever eviction wants, or no longer."""
        self.library.pin(file, pinned=pinned)

    def rename(self, file: ModelFile, name: str) -> Path:
        """Rename a model in its folder with all that lies beside it; return its new path.

        Raises:
            BadRequest: The name is not possible.
            Refused: Something of that name is there already, or the system does not allow it.
            NotFound: The file is gone.
        """
        with _allowed(f"{file.path} cannot be renamed"):
            return rename(self.library, file, name)

    def delete(self, file: ModelFile) -> list[Path]:
        """Delete a model and all that lies beside it; return what was deleted.

        Raises:
            Refused: It is pinned, or the system does not allow it.
        """
        with _allowed(f"{file.path} cannot be deleted"):
            return delete(self.library, file)

    def plan_eviction(self, most_bytes: int, *, rest_days: float = 0.0) -> EvictionPlan:
        """Choose the least used models to delete until the rest is small enough.

        Pins, and what waiting jobs need, are safe. Nothing is deleted.

        Args:
            most_bytes: Size of the rest.
            rest_days: What was used or came within so many days is safe, too.

        Raises:
            PrefectUnreachable: Nobody knows what waiting jobs need.
        """
        from stablequeue.client.model_needs import needed_by_waiting  # noqa: PLC0415  # SQLModel

        files = self.library.files()
        now_ms = time.time_ns() // 1_000_000
        return plan_eviction(
            files,
            most_bytes,
            needed=needed_by_waiting(self._session, files),
            now_ms=now_ms,
            rest_days=rest_days,
        )

    def evict(self, plan: EvictionPlan) -> list[Path]:
        """Delete what a plan says; return what was deleted.

        Raises:
            Refused: The system does not allow it; those before are deleted.
        """
        return [path for file in plan.evict for path in self.delete(file)]

    def search(self, text: str = "", *, cursor: str = "", **filters: Any) -> "FoundModels":
        """Search Civitai; see `model_sources.search`.

        Raises:
            DownloadError: Civitai cannot be asked.
        """
        from stablequeue.client.model_sources import search  # noqa: PLC0415  # httpx

        return search(self._session.settings, text, cursor=cursor, **filters)

    def online(self, file: ModelFile) -> "CivitaiModel | None":
        """Return what Civitai tells of a file's model, all its versions; None: it does not know it.

        Raises:
            DownloadError: Civitai cannot be asked.
        """
        from stablequeue.client.model_sources import model_of  # noqa: PLC0415  # httpx

        return model_of(self._session.settings, file)

    def updates(self, references: Iterable[str] = (), *, kind: str = "") -> "UpdateReport":
        """Say which models have newer versions on Civitai.

        Args:
            references: Of files here; none: all.
            kind: Only of this type.

        Raises:
            DownloadError: Civitai cannot be asked.
        """
        from stablequeue.client.model_sources import updates  # noqa: PLC0415  # httpx

        files = [self.file(one) for one in references] or self.files(kind=kind)
        return updates(self._session.settings, files)

    def fetch(
        self,
        references: Sequence[str],
        *,
        kind: str = "",
        wish: Collection[tuple[str, str]] = (),
        direct: bool = False,
        on_progress: "OnFetch | None" = None,
    ) -> "list[Fetched]":
        """Bring models into the library; what is there already stays as it is.

        Where downloads are flow runs (`stablequeue up`), they are asked for and this returns at
        once; else, or when `direct` is wished, this returns when the files are there.

        Args:
            references: What to fetch. A picture on Civitai stands for all models it names.
            kind: Their type, where the source does not tell it.
            wish: Which file of a version of Civitai: pairs of `fp`, `size`, `format`, `type`.
            direct: In this process whatever runs.
            on_progress: Told the name of a file and how far it is.

        Raises:
            BadRequest: One can mean no model, or nobody says of which type it is.
            NotFound: One is a name only, and names are not guessed.
            SettingsError: There is no folder for such models.
            DownloadError: One cannot be had; those before it are there.
        """
        from stablequeue.client.model_fetching import fetch  # noqa: PLC0415  # httpx

        return fetch(
            self._session,
            self.library,
            self.roots,
            references,
            kind=model_type(kind),
            wish=tuple(wish),
            direct=direct,
            on_progress=on_progress,
        )

    def downloads(self, *, ended: bool = False, limit: int = 50) -> "list[Downloading]":
        """Return the downloads that are flow runs, running ones first.

        Args:
            ended: Also those that ended.
            limit: At most so many.

        Raises:
            PrefectUnreachable: Retryable.
        """
        from stablequeue.client.model_downloads import downloads  # noqa: PLC0415

        return downloads(self._session.api, ended=ended, limit=limit)

    def cancel_download(self, run_id: str) -> str:
        """Cancel a download by its run's id (or its first digits); return the whole id."""
        from stablequeue.client.model_downloads import cancel  # noqa: PLC0415

        return cancel(self._session.api, run_id)

    def clear_cache(self) -> int:
        """Forget what Civitai answered; return how many answers that were."""
        from stablequeue.client.model_sources import clear_cache  # noqa: PLC0415

        return clear_cache(self._session.settings)


def model_type(word: str, *, field: str = "--type") -> ModelType | None:
    """Return the type a person names; None: any.

    Raises:
        BadRequest: There is no such type.
    """
    if not word.strip():
        return None
    kind = type_of(word.strip())
    if kind is None:
        raise BadRequest(field, f"there is no type of models {word[:50]!r}", list(ModelType))
    return kind


@contextmanager
def _allowed(what: str) -> Generator[None]:
    """Translate what the file system says.

    Raises:
        Refused: It does not allow it.
    """
    try:
        yield
    except OSError as error:
        raise Refused(f"{what}: {error.strerror or error}") from error


def _of_family(file: ModelFile, word: str) -> bool:
    wanted = word.casefold()
    names = (file.family.value, file.family.spoken) if file.family else ()
    return wanted in {one.casefold() for one in (*names, file.base_model)}


def _has_text(file: ModelFile, text: str) -> bool:
    told = f"{file.name}\n{file.title}\n{file.alias}".casefold()
    return all(word in told for word in text.casefold().split())
