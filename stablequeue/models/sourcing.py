"""Which file of a source a reference identifies. A bare name identifies none.

A hash that is not a whole SHA-256 is compared with the file that comes back: short ones collide,
and Forge writes the beginning of the SHA-256 where others write AutoV3.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from stablequeue.errors import ModelGone, NoSuitableFile
from stablequeue.model_names import base, path
from stablequeue.models.kinds import ModelType, type_of
from stablequeue.models.references import (
    CivitaiModel,
    CivitaiVersion,
    DirectUrl,
    Hash,
    HashKind,
    HuggingFaceFile,
    Name,
    Number,
    Reference,
)
from stablequeue.models.resolving import is_fake_hash
from stablequeue.models.sources import Offer, Sources, Wanted, Wish, model_links

_AUTOV2 = 10
_FORGE = 12
_SITE = "https://civitai.com"


def identifies(reference: Reference, links: Sequence[Wanted] = ()) -> bool:
    """Say whether a source can be asked for exactly the file a reference means."""
    match reference:
        case Name(name=name, digits=digits):
            hashed = bool(digits) and not is_fake_hash(digits, name)
            return hashed or linked(name, links) is not None
        case Hash() | CivitaiVersion() | CivitaiModel() | Number():
            return True
        case HuggingFaceFile() | DirectUrl():
            return True
        case _:
            return False


def links_of(workflow: Any) -> list[Wanted]:
    """Return what an editor's workflow tells of where its models are; none if it is none."""
    return model_links(workflow) if isinstance(workflow, Mapping) else []


async def offer_for(
    reference: Reference,
    kind: ModelType | None,
    sources: Sources,
    links: Sequence[Wanted] = (),
) -> Offer:
    """Return the file a source offers for a reference.

    Args:
        reference: One that `identifies`.
        kind: What it is to be used for; None: the source says.
        sources: Open.
        links: Where a workflow says its models are; used for names it has.

    Raises:
        DownloadError: It cannot be had; see `Sources.offer`.
        NoSuitableFile: It is another type of model than is needed.
    """
    offer = await _offer(reference, kind, sources, links)
    told = type_of(offer.kind)
    images = {ModelType.CHECKPOINT, ModelType.DIFFUSION_MODEL}
    fits = told is None or kind is None or told is kind or {told, kind} <= images
    if not fits:
        raise NoSuitableFile(offer.source, f"{reference} is a {told}, and a {kind} is needed here")
    return offer


async def _offer(
    reference: Reference, kind: ModelType | None, sources: Sources, links: Sequence[Wanted]
) -> Offer:
    match reference:
        case Name(name=name, digits=digits):
            link = linked(name, links)
            offer = sources.offer(link) if link else _by_hash(digits, (HashKind.AUTOV2,), sources)
        case Hash(digits=digits, kinds=kinds):
            offer = _by_hash(digits, kinds, sources)
        case CivitaiVersion() | CivitaiModel() | Number():
            offer = _on_civitai(reference, sources)
        case HuggingFaceFile(repo=repo, path=file, revision=revision):
            offer = sources.offer(Wanted(url=f"{repo}/{file}@{revision}", kind=_word(kind)))
        case DirectUrl(url=url):
            offer = sources.offer(Wanted(url=url, kind=_word(kind)))
        case _:
            raise NoSuitableFile("any source", f"{reference} does not name one file; name it")
    return await offer


async def _on_civitai(reference: CivitaiVersion | CivitaiModel | Number, sources: Sources) -> Offer:
    if isinstance(reference, CivitaiVersion):
        return await _version(reference, sources)
    if isinstance(reference, CivitaiModel):
        return await sources.civitai.offer(Wanted(url=f"{_SITE}/models/{reference.model_id}"))
    try:  # a bare number may be either
        return await _version(CivitaiVersion(reference.number), sources)
    except ModelGone:
        return await sources.civitai.offer(Wanted(url=f"{_SITE}/models/{reference.number}"))


async def _version(reference: CivitaiVersion, sources: Sources) -> Offer:
    asked = dict(reference.wish)
    wish = Wish(
        file_id=reference.file_id,
        type=asked.get("type", ""),
        format=asked.get("format", ""),
        fp=asked.get("fp", ""),
        size=asked.get("size", ""),
    )
    wanted = Wanted(url=f"{_SITE}/api/download/models/{reference.version_id}")
    return await sources.civitai.offer(wanted, wish)


async def _by_hash(digits: str, kinds: Sequence[HashKind], sources: Sources) -> Offer:
    """Ask Civitai by a hash; it takes whole ones of each kind only, never a beginning."""
    tried = [digits]
    if len(digits) == _FORGE or (HashKind.SHA256 in kinds and len(digits) > _AUTOV2):
        tried.append(digits[:_AUTOV2])
    for one in tried:
        version = await sources.civitai.version_by_hash(one)
        if version is None:
            continue
        for file in version.files:
            if not file.has_hash(one):
                continue
            if one == digits or file.sha256.startswith(digits):
                return sources.civitai.offer_of(version, file)
    raise ModelGone(
        "civitai", f"it knows no file with the hash {digits}; give its address or version instead"
    )


def linked(name: str, links: Sequence[Wanted]) -> Wanted | None:
    """Return the link a workflow has for a file of this name."""
    wanted = base(path(name)).casefold()
    for link in links:
        if base(path(link.name)).casefold() == wanted:
            return link
    return None


def _word(kind: ModelType | None) -> str:
    if kind is ModelType.DIFFUSION_MODEL:
        return "unet"
    return kind.value if kind is not None else ""
