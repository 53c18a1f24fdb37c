"""Asking Civitai: searching, what a model is, what is new. Answers are kept for a while."""

from dataclasses import dataclass
from typing import Any

from stablequeue.client.online import finished
from stablequeue.models.records import ModelFile
from stablequeue.models.sources.asking import ApiTries
from stablequeue.models.sources.civitai import Civitai, Search
from stablequeue.models.sources.civitai_answers import CivitaiModel, CivitaiVersion
from stablequeue.models.updates import UpdateReport, check_updates
from stablequeue.settings import Settings

BRIEFLY = ApiTries(tries=2, most_failures=2, first_wait_s=0.3, patience_s=2.0)
"""For whoever can go on without the answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundModels:
    """A page of a search.

    Attributes:
        models: May be fewer than a page has.
        cursor: Of the next page; "" where nothing follows.
    """

    models: tuple[CivitaiModel, ...]
    cursor: str

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {"models": [brief(one) for one in self.models], "cursor": self.cursor}


def search(
    settings: Settings,
    text: str = "",
    *,
    cursor: str = "",
    types: tuple[str, ...] = (),
    base_models: tuple[str, ...] = (),
    tag: str = "",
    username: str = "",
    sort: str = "",
    period: str = "",
    nsfw: bool = False,
    limit: int = 20,
) -> FoundModels:
    """Search models on Civitai, a page at a time.

    Args:
        settings: Of the installation.
        text: Words; empty: any model.
        cursor: Of an earlier page of the very same search.
        types: Civitai's own words, e.g. `LORA`, `LoCon`, `Checkpoint`.
        base_models: Civitai's own words, e.g. `SDXL 1.0`, `Pony`.
        tag: Only with this tag there.
        username: Only of this creator.
        sort: `Highest Rated`, `Most Downloaded`, `Newest`, ...
        period: Of the sorting: `AllTime`, `Year`, `Month`, `Week`, `Day`.
        nsfw: Also what is not safe for work.
        limit: Models a page, at most 100.

    Raises:
        DownloadError: Civitai cannot be asked.
    """
    wanted = Search(
        query=text,
        types=types,
        base_models=base_models,
        tag=tag,
        username=username,
        sort=sort,
        period=period,
        nsfw=nsfw,
        page_size=max(1, min(limit, 100)),
    )

    async def ask() -> FoundModels:
        async with _civitai(settings) as civitai:
            models, after = await civitai.search_page(wanted, cursor)
            return FoundModels(models=tuple(models), cursor=after)

    return finished(ask())


def model_of(settings: Settings, file: ModelFile) -> CivitaiModel | None:
    """Return what Civitai tells of a file's model; None: it does not know the file."""

    async def ask() -> CivitaiModel | None:
        async with _civitai(settings, tries=BRIEFLY) as civitai:
            model_id = file.model_id
            if not model_id and file.sha256:
                version = await civitai.version_by_hash(file.sha256)
                model_id = version.model_id if version else 0
            return await civitai.model(model_id) if model_id else None

    return finished(ask())


def generation_of(settings: Settings, image_id: int) -> dict[str, Any] | None:
    """Return how a picture on Civitai was made; None: there is none.

    Where it tells nothing of its models, those it is listed under are put in.

    Raises:
        DownloadError: Civitai cannot be asked.
    """

    async def ask() -> dict[str, Any] | None:
        async with _civitai(settings) as civitai:
            image = await civitai.image(image_id)
            if image is None:
                return None
            meta = dict(image.generation)
            told = ("hashes", "resources", "civitaiResources", "Model hash", "comfy")
            if meta and not any(meta.get(name) for name in told):
                meta["civitaiResources"] = [
                    {
                        "type": version.model.type.casefold(),
                        "modelVersionId": version.id,
                        "modelName": version.model.name,
                    }
                    for version_id in dict.fromkeys(image.model_version_ids)
                    if (version := await civitai.version(version_id)) is not None
                ]
            return meta

    return finished(ask())


def updates(settings: Settings, files: list[ModelFile]) -> UpdateReport:
    """Say which of these files have newer versions."""

    async def ask() -> UpdateReport:
        async with _civitai(settings) as civitai:
            return await check_updates(civitai, files)

    return finished(ask())


def clear_cache(settings: Settings) -> int:
    """Forget all answers; return how many there were."""

    async def clear() -> int:
        async with _civitai(settings) as civitai:
            return civitai.cache.clear()

    return finished(clear())


def brief(model: CivitaiModel) -> dict[str, Any]:
    """Return what matters of a model as plain data."""
    return {
        "id": model.id,
        "name": model.name,
        "type": model.type,
        "creator": str(model.creator.get("username") or ""),
        "nsfw": model.nsfw,
        "mode": model.mode,
        "tags": model.tags,
        "stats": model.stats,
        "licence": {
            "no_credit_needed": model.allow_no_credit,
            "commercial_use": model.allow_commercial_use,
            "derivatives": model.allow_derivatives,
            "other_licence": model.allow_different_license,
        },
        "versions": [_version(one, model.id) for one in model.model_versions],
    }


def _version(version: CivitaiVersion, model_id: int) -> dict[str, Any]:
    return {
        "id": version.id,
        "name": version.name,
        "base_model": version.base_model,
        "published": version.published_at,
        "trained_words": version.trained_words,
        "early_access": version.for_sale,
        "usage": version.usage_control,
        "reference": f"civitai:{model_id}@{version.id}",
        "files": [
            {
                "id": file.id,
                "name": file.name,
                "type": file.type,
                "size": file.size,
                "format": file.wish("format"),
                "fp": file.wish("fp"),
                "variant": file.wish("size"),
                "primary": file.primary,
                "sha256": file.sha256,
            }
            for file in version.files
        ],
    }


def _civitai(settings: Settings, *, tries: ApiTries | None = None) -> Civitai:
    # `open_sources` keeps Civitai's answers in the same place.
    return Civitai(settings.sources.civitai, settings.source_answers / "civitai", tries=tries)
