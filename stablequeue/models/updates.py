"""Which models of the library have newer versions on Civitai. Only data comes out of this.

A file's version is what its sidecars tell, else what Civitai knows its SHA-256 as. A newer version
of the same model counts as an update where it is for the same base model: another base model is
another model to whoever uses the file.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stablequeue.errors import DownloadError
from stablequeue.models.families import family_of
from stablequeue.models.records import ModelFile
from stablequeue.models.sources.civitai import Civitai
from stablequeue.models.sources.civitai_answers import CivitaiModel, CivitaiVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """A newer version of a model that is here.

    Attributes:
        file: What is here, the newest version of it.
        model: Its name on Civitai.
        have: Id of the version that is here.
        version_id: Of the newer one.
        published: As Civitai tells it (ISO 8601), "" if it does not.
        early_access: It costs something now.
        same_base: It is for the same base model.
    """

    file: ModelFile
    model: str
    model_id: int
    have: int
    version_id: int
    name: str
    base_model: str
    published: str
    early_access: bool
    same_base: bool

    @property
    def reference(self) -> str:
        """Text that names the newer version."""
        return f"civitai:{self.model_id}@{self.version_id}"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "path": str(self.file.path),
            "file": self.file.name,
            "model": self.model,
            "model_id": self.model_id,
            "have": self.have,
            "version_id": self.version_id,
            "name": self.name,
            "base_model": self.base_model,
            "published": self.published,
            "early_access": self.early_access,
            "same_base": self.same_base,
            "reference": self.reference,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateReport:
    """What a check found.

    Attributes:
        updates: Sorted by model and then newest first.
        checked: How many models were asked for.
        unknown: Files that Civitai does not know.
        gone: Files whose model is no longer there.
        problems: (model id, why) of those that could not be asked for.
    """

    updates: tuple[Update, ...] = ()
    checked: int = 0
    unknown: tuple[ModelFile, ...] = ()
    gone: tuple[ModelFile, ...] = ()
    problems: tuple[tuple[int, str], ...] = ()


async def check_updates(civitai: Civitai, files: Iterable[ModelFile]) -> UpdateReport:
    """Ask Civitai once for each model of these files.

    One model that cannot be asked for does not end the check; a source that cannot be reached at
    all does.

    Raises:
        SourceUnreachable: Retryable.
        RateLimited: Retryable, later.
    """
    usable = [one for one in files if not one.problem]
    known, unknown = await _identified(civitai, usable)
    updates: list[Update] = []
    gone: list[ModelFile] = []
    problems: list[tuple[int, str]] = []
    for model_id, mine in sorted(known.items()):
        try:
            model = await civitai.model(model_id)
        except DownloadError as error:
            if error.retryable:
                raise
            problems.append((model_id, str(error)))
            continue
        if model is None:
            gone += [file for file, _ in mine]
        else:
            updates += newer(model, mine)
    return UpdateReport(
        updates=tuple(updates),
        checked=len(known),
        unknown=tuple(unknown),
        gone=tuple(gone),
        problems=tuple(problems),
    )


def newer(model: CivitaiModel, mine: Iterable[tuple[ModelFile, int]]) -> list[Update]:
    """Return the versions of a model that are newer than what is here of the same base. Pure.

    Args:
        model: As Civitai tells it, all its versions.
        mine: Files here and the ids of their versions.
    """
    here = dict[int, ModelFile]()
    for file, version_id in mine:
        here.setdefault(version_id, file)
    ranks = {one.id: _age(one) for one in model.model_versions}
    found: list[Update] = []
    for version in model.model_versions:
        if version.id in here or version.status not in {"", "Published"}:
            continue
        # Compared with what is here of the same base; with nothing of it here, with the newest.
        alike = [one for one in here if _same_base(model, one, version)]
        base = max(alike or here, key=lambda one: ranks.get(one, ("", one)))
        # A version that is no longer listed has no date: then the ids, which only grow, decide.
        if _age(version) <= ranks[base] if base in ranks else version.id <= base:
            continue
        found.append(
            Update(
                file=here[base],
                model=model.name,
                model_id=model.id,
                have=base,
                version_id=version.id,
                name=version.name,
                base_model=version.base_model,
                published=version.published_at,
                early_access=version.for_sale,
                same_base=bool(alike),
            )
        )
    return sorted(found, key=lambda one: (one.published, one.version_id), reverse=True)


def _age(version: CivitaiVersion) -> tuple[str, int]:
    """Return what newer versions have more of: the time of publication, then the id."""
    return version.published_at, version.id


def _same_base(model: CivitaiModel, mine: int, version: CivitaiVersion) -> bool:
    own = next((one for one in model.model_versions if one.id == mine), None)
    if own is None or not own.base_model or not version.base_model:
        return True
    return own.base_model == version.base_model or (
        family_of(own.base_model) is not None
        and family_of(own.base_model) is family_of(version.base_model)
    )


async def _identified(
    civitai: Civitai, files: list[ModelFile]
) -> tuple[dict[int, list[tuple[ModelFile, int]]], list[ModelFile]]:
    """Return files with their versions by model, and those that nobody knows."""
    known: dict[int, list[tuple[ModelFile, int]]] = defaultdict(list)
    rest: list[ModelFile] = []
    for one in files:
        if one.model_id and one.version_id:
            known[one.model_id].append((one, one.version_id))
        else:
            rest.append(one)
    hashed = [one for one in rest if one.sha256]
    ids = await civitai.ids_by_hashes(one.sha256 for one in hashed) if hashed else []
    by_hash = {found.hash: found for found in ids}
    unknown: list[ModelFile] = []
    for one in rest:
        found = by_hash.get(one.sha256) if one.sha256 else None
        if found is not None and found.model_id and found.model_version_id:
            known[found.model_id].append((one, found.model_version_id))
        else:
            unknown.append(one)
    return known, unknown
